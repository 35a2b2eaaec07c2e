"""vLLM's ``priority`` for requests that nobody waits for: a larger number is served later.

A vLLM that was not started with ``--scheduling-policy priority`` refuses any but 0 ("Got priority 100 but Priority
scheduling is not enabled"). It is asked again without, and is not told one any more. Other servers ignore the field.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from ai_router.errors import ApiNotSpoken, UpstreamRefused
from ai_router.providers.fields import SentFields
from ai_router.providers.registry import Candidate

log = logging.getLogger(__name__)

_FIELD = "priority"


class PriorityRefused(ApiNotSpoken):
    """4xx: the backend takes no priorities. It is asked again without."""


class Priorities:
    """Which backends take priorities. Safe from any thread."""

    def __init__(self) -> None:
        self._refusing: set[str] = set()

    def added(self, fields: SentFields, candidate: Candidate) -> tuple[SentFields, bool]:
        """The fields of a body with the candidate's priority, and whether it was added: the backend may be told, and
        the client names none itself."""
        if candidate.backend.name in self._refusing or _FIELD in fields.values:
            return fields, False
        return replace(fields, values={_FIELD: candidate.priority, **fields.values}), True

    def check(self, problem: UpstreamRefused, candidate: Candidate) -> None:
        """Raise PriorityRefused if the refusal of a call with an added priority is about that."""
        name = candidate.backend.name
        if _FIELD not in problem.detail.lower():
            return
        if name not in self._refusing:
            self._refusing.add(name)
            log.warning(
                "%s takes no priorities, and is told none any more: vLLM has to run with --scheduling-policy priority",
                name,
            )
        raise PriorityRefused(problem.detail, problem.source, status=problem.status) from problem
