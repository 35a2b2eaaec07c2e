"""The first call of ENRICH: somebody searches the web for what the primary cannot know (search_apis.py)."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from cachetools import TTLCache

from ai_router.dispatch.dispatcher import Dispatcher, Waiting
from ai_router.dispatch.forward import upstream_request_id
from ai_router.dispatch.hedged_search import BegunSearch, Findings, first_to_find
from ai_router.dispatch.plain_answer import parsed
from ai_router.dispatch.record import RequestRecord
from ai_router.dispatch.search_apis import found_in, search_call
from ai_router.errors import RouterError, ShuttingDown, Source, UpstreamError, UpstreamFailed, UpstreamFoundNothing
from ai_router.http.calls import CancelScope, Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient
from ai_router.observability import log_lines
from ai_router.providers.errors import error_from_response, error_in_body
from ai_router.providers.registry import Candidate, Searcher
from ai_router.resilience.lateness import Lateness
from ai_router.resilience.limiter import Permit
from ai_router.resilience.retry import record_result
from ai_router.routing.conversations import TurnKey, turn_keys
from ai_router.shared.start import ALONE
from ai_router.shared.values import Values
from ai_router.types import ChatRequest, Purpose

_MAX_RESULT_BYTES = 4 << 20
_MAX_CONTEXT_CHARS = 24_000
_MAX_SOURCES_CHARS = 4_000
_SOURCES = "\n\nSources:\n"
_MAX_URL_CHARS = 500
_CONTROL_TOKENS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?(?:s|think|start_of_turn|end_of_turn|bos|eos)>|<</?SYS>>|\[/?(?:INST|TOOL_CALLS)\]", re.I
)
"""Of ChatML, Llama, Mistral, Gemma and their like."""
_LEAST_LATE_S = 1.0
"""A search is not late before this many seconds."""
_RECENT_TURNS = 200
_RECENT_S = 300.0
"""How long findings are good for the same turn; a tool loop's rounds come within seconds."""


_Turn = tuple[str, TurnKey]
"""A client's name, and the turn: what was found for one client is nobody else's."""


def fetch_enrichment_context(
    client: UpstreamClient,
    searcher: Searcher,
    request: ChatRequest,
    call: UpstreamCall,
    *,
    timeout_s: float,
    connect_s: float,
) -> Findings:
    """Search the web. Raises UpstreamError, or the reason for which ``call`` was aborted. Limits are in seconds."""
    backend, search = searcher.backend, searcher.search
    asked = search_call(request, searcher)
    upstream_request = UpstreamRequest(
        source=Source(backend.name, search.model),
        method=asked.method,
        url=asked.url,
        timeouts=Timeouts(connect=connect_s, total=timeout_s, idle=timeout_s),
        secret=backend.key,
        headers={**backend.headers, "X-Request-Id": upstream_request_id(request.request_id, call.number)},
        body=asked.body,
    )
    response = client.fetch(upstream_request, call, _MAX_RESULT_BYTES)
    if response.status != 200:
        raise error_from_response(response.status, response.headers, response.body, upstream_request)
    return findings(response.body, upstream_request, search.api)


class WebSearch:
    """Searches the web for a request, on ``threads``. The result or the failure goes into its record and the log.

    ``hedge_share``: of the searches that may be made twice, by somebody else, where the first takes unusually long.
    What was found is kept for the turn: each round of a tool loop, and the same question soon again, gets the same
    text, at the same place of the prompt. Each use keeps it for _RECENT_S more.
    """

    def __init__(
        self,
        client: UpstreamClient,
        searchers: Sequence[Searcher],
        threads: Executor,
        *,
        timeout_s: float,
        connect_s: float,
        hedge_share: float = 0.0,
        values: Values = ALONE.values,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lateness = Lateness(timeout_s, least_s=_LEAST_LATE_S, share=hedge_share) if hedge_share else None
        self._client = client
        self.searchers = searchers
        """Who is asked, best first. May be replaced."""
        self._threads = threads
        self._timeout_s = timeout_s
        self._connect_s = connect_s
        self._recent: TTLCache[_Turn, str] = TTLCache(_RECENT_TURNS, _RECENT_S, clock)
        self._lock = threading.Lock()
        self._values = values

    def fetch_context(self, record: RequestRecord, scope: CancelScope, dispatcher: Dispatcher) -> Waiting[str | None]:
        """The web context, at most 24,000 characters; None if no searcher found any. Raises the reason if the request
        was aborted."""
        started = time.monotonic()
        turn = (record.request.client, turn_keys(record.request.messages)[1])
        if (context := self._found_before(turn)) is not None:
            record.enriched(started, context)
            return context
        searchers = {searcher.candidate: searcher for searcher in self.searchers}
        begun: list[BegunSearch] = []
        failures: dict[Candidate, UpstreamError] = {}

        def begin(candidate: Candidate, permit: Permit) -> BegunSearch:
            timeout_s = min(self._timeout_s, max(dispatcher.left_s(), 0.001))
            call = scope.new_call(Purpose.SEARCH)
            search = partial(self._search, record.request, searchers[candidate], call, permit, timeout_s)
            try:
                future = self._threads.submit(search)
            except RuntimeError:  # the executor is shut down: the router is stopping
                permit.release()
                raise ShuttingDown("the router is being stopped") from None
            future.add_done_callback(lambda ended: permit.release() if ended.cancelled() else None)
            begun.append(BegunSearch(future, call))
            return begun[-1]

        def ask(candidate: Candidate, permit: Permit) -> Waiting[BegunSearch]:
            if (failure := failures.pop(candidate, None)) is not None:
                # It was the second one of a search before: it is not asked the same again.
                permit.release()
                raise failure
            record.phase = "searching"
            others = [other for other in searchers if other is not candidate]
            second: list[tuple[Candidate, BegunSearch]] = []

            def begin_second() -> BegunSearch | None:
                if (other := dispatcher.permit_at_once(others)) is None:
                    return None
                second.append((other[0], begin(*other)))
                return second[0][1]

            try:
                return (yield from first_to_find(begin(candidate, permit), begin_second, self._lateness))
            finally:
                failures.update({other: problem for other, search in second if (problem := search.failure) is not None})

        try:
            found = yield from dispatcher.first_success(tuple(searchers), ask)
        except UpstreamError as problem:
            log_lines.enrichment_failed(record.kept_error(problem), record.ms() - record.ms(started))
            # A search that found nothing is charged for, too.
            billed = next((search for search in reversed(begun) if search.failed_with(problem)), None)
            usage = None if billed is None or problem.usage is None else (billed.call.number, problem.usage)
            record.enriched(started, None, problem, usage)
            return None
        findings = found.future.result()
        self._keep(turn, findings.text)
        log_lines.enriched(len(findings.text), record.ms() - record.ms(started))
        record.enriched(started, findings.text, search=(found.call.number, findings.usage))
        return findings.text

    def _found_before(self, turn: _Turn) -> str | None:
        """What was found for the turn, here or in another process, which then keeps it longer."""
        with self._lock:
            context = self._recent.get(turn)
        if context is None:
            (value,) = self._values.get([_value_name(turn)]) or (None,)
            context = None if value is None else value.decode()
        if context is not None:
            self._keep(turn, context)
        return context

    def _keep(self, turn: _Turn, context: str) -> None:
        with self._lock:
            self._recent[turn] = context
        self._values.put(_value_name(turn), context.encode("utf-8", "replace"), _RECENT_S)

    def _search(
        self, request: ChatRequest, searcher: Searcher, call: UpstreamCall, permit: Permit, timeout_s: float
    ) -> Findings:
        permit.body = request.messages_json
        try:
            found = fetch_enrichment_context(
                self._client, searcher, request, call, timeout_s=timeout_s, connect_s=self._connect_s
            )
        except RouterError as problem:
            record_result(permit, problem)
            raise
        else:
            permit.succeeded()
            return found
        finally:
            permit.release()


def _value_name(turn: _Turn) -> str:
    client, key = turn
    return f"findings:{hashlib.blake2b(client.encode() + key, digest_size=16).hexdigest()}"


def findings(body: bytes, upstream_request: UpstreamRequest, api: str = "responses") -> Findings:
    """The text of an answer with the URLs that it cites, and its usage. Raises UpstreamError if there is no text."""
    payload = parsed(body)
    if not isinstance(payload, dict):
        raise UpstreamFailed("the search answered something that is not a response", upstream_request.source)
    text, urls, usage = found_in(payload, api)
    failure: UpstreamError | None = error_in_body(payload, upstream_request)
    if failure is None and payload.get("status") == "failed":
        failure = UpstreamFailed("the search failed and does not say why", upstream_request.source)
    if failure is None and not text:
        failure = UpstreamFoundNothing("the search found nothing", upstream_request.source)
    if failure is not None:
        failure.usage = usage or None
        raise failure
    listed = _without_control_tokens(_listed(urls))
    return Findings(_without_control_tokens(text)[: _MAX_CONTEXT_CHARS - len(listed)] + listed, usage)


def _listed(urls: Sequence[str]) -> str:
    """The sources as a list, within their part of the context: what was found comes first."""
    lines, left = [], _MAX_SOURCES_CHARS
    for url in urls:
        if len(url) <= _MAX_URL_CHARS and len(url) + 3 <= left:
            lines.append(f"- {url}")
            left -= len(url) + 3
    return _SOURCES + "\n".join(lines) if lines else ""


def listed_sources(context: str) -> Sequence[str]:
    """The URLs in the list at the end of a context of ``findings``."""
    _, found, lines = context.rpartition(_SOURCES)
    return [line.removeprefix("- ") for line in lines.splitlines() if line.startswith("- ")] if found else []


def _without_control_tokens(text: str) -> str:
    """The text, in which nothing is left that chat templates read as the beginning or the end of a turn."""
    return _CONTROL_TOKENS.sub(lambda token: f"{token[0][:1]} {token[0][1:-1]} {token[0][-1:]}", text)
