"""Which models are in memory, at servers that load them when they are asked: Ollama, LM Studio, llama-swap.

Loading takes seconds, and may put another model out of memory. Two things follow, where a server says what it holds:

- Where several local backends may answer MODERATE or ENRICH, one whose model is in memory is asked first. COMPLEX, a
  chat UI's own jobs and an owner's routes have the backend that they have for a reason.
- Where the classifier and the primary are two models of one server and do not fit together, each request would load
  both, one after the other. Then the classifier is left alone, and the head decides by itself.

Nothing is asked where neither can happen, and nothing is concluded from what is not known. Servers are asked on a
thread, while there are requests; what they said is used for _GOOD_FOR_S.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ai_router.dispatch.plan import Plan
from ai_router.http.session import BackendSession
from ai_router.providers.registry import Backend, Candidate, Registry
from ai_router.providers.servers import server_at
from ai_router.types import Label, LabelName

log = logging.getLogger(__name__)

POLL_S = 2.0
_STOP_AFTER_S = 30.0
"""Servers are asked for so long after the last request."""
_GOOD_FOR_S = 10.0
_TOGETHER_S = 60.0
"""Two answers that are no further apart belong together. Loading a model takes seconds, and nobody unloads one so soon
for want of requests."""
_SIGHTINGS = 3
"""So often one of two models has to be found alone, after both have answered, before they are taken not to fit."""
_TRIED_AGAIN_AFTER_S = 600.0
"""Another model may have been taken away since."""

_ANY_WILL_DO = (Label.MODERATE, Label.ENRICH)

InMemory = Mapping[str, bool]
"""The names of a server's models, and whether each is in memory."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a server said, and when, in monotonic seconds."""

    at: float
    models: InMemory


class ModelsInMemory:
    """Asks the servers, and says what follows. ``start`` it, ``close`` it. Safe from any thread.

    Where there are no ``urls``, nothing of it need be called.
    """

    def __init__(
        self,
        session: BackendSession,
        registry: Registry,
        clock: Callable[[], float] = time.monotonic,
        poll_s: float = POLL_S,
    ) -> None:
        self._session = session
        self._registry = registry
        self._clock = clock
        self._poll_s = poll_s
        self._seen: dict[str, _Seen] = {}
        self._answered_at: dict[str, float] = {}
        """When the classifier and each backend have answered last."""
        self._counted_at = float("-inf")
        """When the two were found together, or apart, last."""
        self._apart = 0
        """How often in a row only one of the two was found in memory after both had answered."""
        self._left_alone_until = float("-inf")
        self.urls = _urls_of(registry)
        """The servers of which it matters what they hold; none: nothing is to be found out."""
        self._needed_at = float("-inf")
        self._polling = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="models-in-memory", daemon=True)

    def start(self) -> None:
        """Start the thread, which waits for the first request for which it matters."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._polling.set()

    def refresh(self) -> None:
        """Look again at which backends there are."""
        self.urls = _urls_of(self._registry)

    def prefer(self, plan: Plan, label: LabelName) -> Plan:
        """The plan, in which a local candidate that is in memory stands before local ones that are known not to be."""
        if label not in _ANY_WILL_DO:
            return plan
        self._keep_polling()
        local = [candidate for candidate in plan.candidates if candidate.backend.local]
        ready = next((candidate for candidate in local if self.in_memory(candidate)), None)
        first = plan.candidates[0]
        if ready is None or ready is first or not first.backend.local or self.in_memory(first) is not False:
            return plan
        others = tuple(candidate for candidate in plan.candidates if candidate is not ready)
        note = f"{first.backend.name}'s model is not in memory: {ready.backend.name} is asked"
        # Not the name of its first candidate, but a route: ENRICH.
        route = ready.backend.name if plan.route == first.backend.name else plan.route
        notes = "; ".join(one for one in (plan.note, note) if one)
        return replace(plan, candidates=(ready, *others), route=route, note=notes)

    def in_memory(self, candidate: Candidate) -> bool | None:
        """Whether a candidate's model is in memory; None: that is not known."""
        seen = self._seen.get(candidate.backend.base_url)
        if seen is None or self._clock() - seen.at > _GOOD_FOR_S:
            return None
        return seen.models.get(_bare(candidate.model))

    def answered(self, backend: str) -> None:
        """The classifier or a backend has answered, so that its model is in memory at this moment."""
        self._keep_polling()
        self._answered_at[backend] = self._clock()

    def classifier_left_alone(self) -> str | None:
        """Why the classifier is not to be asked now; None: it may be."""
        if self._clock() < self._left_alone_until:
            return "its model and the primary's put each other out of memory"
        return None

    def _keep_polling(self) -> None:
        """Ask the servers for a while."""
        self._needed_at = self._clock()
        if not self._polling.is_set():
            self._polling.set()

    def _poll(self) -> None:
        while True:
            self._polling.wait()
            if self._stopped.is_set():
                return
            if self._clock() - self._needed_at > _STOP_AFTER_S:
                self._polling.clear()
                continue
            for url in self.urls:
                self._look_at(url)
            self._compare()
            self._stopped.wait(self._poll_s)

    def _look_at(self, url: str) -> None:
        server = server_at(self._session, url)
        if server is not None:
            models = {_bare(model.name): model.loaded for model in server.models if model.loaded is not None}
            self._seen[url] = _Seen(self._clock(), models)

    def _compare(self) -> None:
        """Whether the models of classifier and primary are in memory together, after both have answered."""
        pair, now = _pair(self._registry), self._clock()
        if pair is None or now < self._left_alone_until:
            return
        here = [self.in_memory(Candidate(backend, backend.model)) for backend in pair]
        answered = [self._answered_at.get(backend.name, float("-inf")) for backend in pair]
        together, is_new = min(answered) > now - _TOGETHER_S, max(answered) > self._counted_at
        if all(here):
            self._apart, self._counted_at = 0, now
        elif sorted(here, key=bool) == [False, True] and together and is_new:
            self._apart, self._counted_at = self._apart + 1, now
        if self._apart == _SIGHTINGS:
            self._apart, self._left_alone_until = 0, now + _TRIED_AGAIN_AFTER_S
            log.warning(
                "Classifier and primary put each other out of memory at %s: the classifier is left alone for %.0f "
                "minutes; unset ROUTER_URL, or give it a server of its own",
                pair[0].base_url,
                _TRIED_AGAIN_AFTER_S / 60,
            )


def _pair(registry: Registry) -> tuple[Backend, Backend] | None:
    """The classifier and the primary, if they are two models of one server."""
    classifier, primary = registry.classifier, registry.primary
    is_one = classifier is not None and classifier.base_url == primary.base_url and classifier.model != primary.model
    return (classifier, primary) if classifier is not None and is_one else None


def _urls_of(registry: Registry) -> tuple[str, ...]:
    """The servers of which it matters what they hold."""
    found = [] if _pair(registry) is None else [registry.primary.base_url]
    for label in _ANY_WILL_DO:
        chain = registry.chains[label.lower()]
        local = {candidate.backend.base_url: None for candidate in chain if candidate.backend.local}
        models = {(candidate.backend.base_url, candidate.model) for candidate in chain if candidate.backend.local}
        if len(models) > 1:
            found += local
    return tuple(dict.fromkeys(found))


def _bare(model: str) -> str:
    """Ollama adds this tag where its owner leaves it out."""
    return model.removesuffix(":latest")
