"""vLLM's ``priority`` for requests that nobody waits for: a larger number is served later.

A vLLM that was not started with ``--scheduling-policy priority`` refuses any but 0 ("Got priority 100 but Priority
scheduling is not enabled"). It is asked again without, and is not told one any more. Other servers ignore the field.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ai_router.errors import ApiNotSpoken, UpstreamRefused
from ai_router.providers.registry import Candidate

log = logging.getLogger(__name__)

_FIELD = "priority"


class PriorityRefused(ApiNotSpoken):
    """4xx: the backend takes no priorities. It is asked again without."""


class Priorities:
    """Which backends take priorities. Safe from any thread."""

    def __init__(self) -> None:
        self._refusing: set[str] = set()

    def with_priority(self, values: Mapping[str, Any], candidate: Candidate) -> Mapping[str, Any]:
        """The fields of a body, with the candidate's priority if it has one and may be told. The client's own stays."""
        if not candidate.priority or candidate.backend.name in self._refusing:
            return values
        return {_FIELD: candidate.priority, **values}

    def check(self, problem: UpstreamRefused, candidate: Candidate) -> None:
        """Raise PriorityRefused if that is what the backend's refusal is about."""
        name = candidate.backend.name
        if not candidate.priority or name in self._refusing or _FIELD not in problem.detail.lower():
            return
        self._refusing.add(name)
        log.warning(
            "%s takes no priorities, and is told none any more: vLLM has to run with --scheduling-policy priority", name
        )
        raise PriorityRefused(problem.detail, problem.source, status=problem.status) from problem
