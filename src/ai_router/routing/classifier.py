"""Asking the classifier model for a label, in one of three modes.

``constrained``: thinking off, the answer limited to the labels and cut where it is sure to name one of them, its
log-probabilities as confidence.
``reasoning``: free text with a think block, streamed; the call is aborted as soon as the decision word is certain.
``decision``: a decision model's probabilities (decision_model.py), calibrated if that was learned.

Which of the first two a server supports is found out by a probe: vLLM ignores constraints that it does not know and
answers 200 (vLLM 0.33).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ai_router.config import ClassifierMode
from ai_router.errors import (
    AnswerSufficient,
    UpstreamError,
    UpstreamFailed,
    UpstreamRefused,
)
from ai_router.http.calls import Timeouts, UpstreamCall, UpstreamRequest
from ai_router.http.client import UpstreamClient, UpstreamResponse
from ai_router.http.sse import Event, EventTooLong, SSEDecoder
from ai_router.providers.errors import error_from_response, error_in_body
from ai_router.providers.registry import Backend
from ai_router.routing.decision_model import AS_THEY_ARE, Calibration, decision_body, decision_verdict
from ai_router.routing.decision_model import PATH as SYSTEM_ONE
from ai_router.routing.hedge import Hedge
from ai_router.routing.labels import Labels
from ai_router.routing.prompt import classifier_messages, conversation_text
from ai_router.routing.verdict import LabelSet, Verdict, WordFinder, constrained_verdict, delta_texts
from ai_router.types import ChatRequest, Message

_MAX_EVENT_BYTES = 1 << 20
"""A label takes no more."""
log = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 1 << 20
_REASONING_TOKENS = 2_048
_CHAT = "/chat/completions"
_PROBE_WAIT_S = 2.0
_PROBE_QUESTION = "Forget the labels. Write one friendly sentence about the sea."


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """How to ask. ``mode`` is the one to begin with, ``timeout_s`` the deadline of an answer, ``connect_s`` of a
    connection, ``context_chars`` the characters of conversation to show, ``max_concurrent`` how many requests may ask
    at the same time."""

    mode: ClassifierMode
    timeout_s: float
    connect_s: float
    context_chars: int
    max_concurrent: int = 8


class Classifier:
    """One classifier model; safe from any thread. ``mode`` is the configured one until ``probe`` makes it REASONING."""

    def __init__(self, client: UpstreamClient, backend: Backend, settings: ClassifierSettings) -> None:
        self._client = client
        self._backend = backend
        self._settings = settings
        self._mode_known = threading.Event()
        self._hedge: Hedge[Verdict] = Hedge(settings.max_concurrent, settings.timeout_s, backend.source)
        self.mode = settings.mode
        self.labels = Labels()
        """What it may say. Others take their place when an owner's routes change."""
        self._calibration = AS_THEY_ARE
        if self.mode is not ClassifierMode.CONSTRAINED:
            self._mode_known.set()

    def use_calibration(self, calibration: Calibration) -> None:
        """Take the probabilities of a decision model as this says, from now on."""
        self._calibration = calibration

    @property
    def mode_known(self) -> bool:
        """Whether requests need not wait for the probe: it is done, given up, or the mode needs none."""
        return self._mode_known.is_set()

    def classify(self, request: ChatRequest, new_call: Callable[[], UpstreamCall]) -> Verdict:
        """The model's verdict on the request. Waits up to _PROBE_WAIT_S for the probe.

        The call is hedged (hedge.py). Raises UpstreamError when there is no verdict, and what a call was aborted for.
        """
        self._mode_known.wait(_PROBE_WAIT_S)
        labels = self.labels
        if self.mode is ClassifierMode.DECISION:
            state = conversation_text(request, self._settings.context_chars)
            return self._hedge.first(lambda call: self._ask_decision(state, labels, call), new_call)
        messages = classifier_messages(request, self._settings.context_chars, labels.prompt)
        if self.mode is ClassifierMode.CONSTRAINED:
            return self._hedge.first(lambda call: self._ask_constrained(messages, labels.names, call), new_call)
        return self._hedge.first(lambda call: self._ask_reasoning(messages, labels.names, call), new_call)

    def close(self) -> None:
        """End the threads that its calls run on."""
        self._hedge.close()

    def probe(self) -> None:
        """Find out whether the server honours constraints; its prefix cache is warm afterwards.

        The probe asks for prose and allows only labels: a server that ignores the constraint writes prose. Raises
        UpstreamError if the server cannot be reached: then nothing is known, call again.
        """
        try:
            names = self.labels.names
            # Enough for a whole label, even if every letter were a token.
            body = _constrained_body(self._backend.model, _probe(self.labels), names, names.longest)
            honoured = _content_of(self._complete(body, UpstreamCall())) in names.names
        except UpstreamRefused as refused:
            log.warning("Classifier probe refused: %s", refused)
            honoured = False
        if not honoured:
            log.warning(
                "Classifier %s does not honour structured_outputs.choice; falling back to CLASSIFIER_MODE=reasoning",
                self._backend.model,
            )
            self.mode = ClassifierMode.REASONING
        self._mode_known.set()

    def warm_up(self) -> None:
        """Have the server read the system prompt, for its prefix cache, or load its model. Raises UpstreamError."""
        if self.mode is ClassifierMode.DECISION:
            self._ask_decision(_PROBE_QUESTION, self.labels, UpstreamCall())
            return
        response = self._open(_warm_up_body(self._backend.model, self.labels), UpstreamCall())
        try:
            response.read(_MAX_ANSWER_BYTES)
        finally:
            response.close()

    def assume_mode(self) -> None:
        """Let requests go ahead in the present mode, without a probe."""
        self._mode_known.set()

    def _ask_constrained(self, messages: tuple[Message, ...], names: LabelSet, call: UpstreamCall) -> Verdict:
        body = _constrained_body(self._backend.model, messages, names, names.deciding_tokens)
        verdict = constrained_verdict(self._complete(body, call), names)
        if verdict is None:
            raise self._failure("no decision word in its answer")
        return verdict

    def _ask_decision(self, state: str, labels: Labels, call: UpstreamCall) -> Verdict:
        payload = self._complete(decision_body(self._backend.model, state, labels), call, SYSTEM_ONE)
        verdict = decision_verdict(payload, labels, self._calibration)
        if verdict is None:
            raise self._failure("no decision in its answer")
        return verdict

    def _ask_reasoning(self, messages: tuple[Message, ...], names: LabelSet, call: UpstreamCall) -> Verdict:
        response = self._open(_reasoning_body(self._backend.model, messages), call)
        try:
            return self._read_until_word(response, names, call)
        finally:
            response.close()

    def _read_until_word(self, response: UpstreamResponse, names: LabelSet, call: UpstreamCall) -> Verdict:
        decoder, finder, finish_reason = SSEDecoder(_MAX_EVENT_BYTES), WordFinder(names), "none"
        for chunk in response.chunks():
            for event in self._events(decoder, chunk):
                payload = self._payload(event.data)
                content, reasoning, reason = delta_texts(payload)
                finish_reason = reason or finish_reason
                if (label := finder.feed(content, reasoning)) is not None:
                    call.abort(AnswerSufficient("the decision word stands"))
                    return Verdict(label, None, reason or "early")
        label = finder.finish()
        if label is None:
            raise self._failure(f"no decision word in its answer (finish_reason={finish_reason})")
        return Verdict(label, None, finish_reason)

    def _events(self, decoder: SSEDecoder, chunk: bytes) -> list[Event]:
        try:
            return decoder.feed(chunk)
        except EventTooLong as problem:
            raise self._failure(str(problem)) from None

    def _payload(self, data: bytes | None) -> Mapping[str, Any]:
        if data is None or data == b"[DONE]":
            return {}
        try:
            payload = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise self._failure("its stream is not JSON") from None
        if failure := error_in_body(payload, self._upstream_request(b"")):
            raise failure
        return payload if isinstance(payload, dict) else {}

    def _complete(self, body: bytes, call: UpstreamCall, path: str = _CHAT) -> Mapping[str, Any]:
        response = self._open(body, call, path)
        try:
            answer = response.read(_MAX_ANSWER_BYTES)
        finally:
            response.close()
        return self._payload(answer)

    def _open(self, body: bytes, call: UpstreamCall, path: str = _CHAT) -> UpstreamResponse:
        upstream_request = self._upstream_request(body, path)
        response = self._client.open(upstream_request, call)
        if response.status == 200:
            return response
        try:
            answer = response.read(_MAX_ANSWER_BYTES)
            raise error_from_response(response.status, response.headers, answer, upstream_request)
        finally:
            response.close()

    def _upstream_request(self, body: bytes, path: str = _CHAT) -> UpstreamRequest:
        timeout = self._settings.timeout_s
        return UpstreamRequest(
            source=self._backend.source,
            method="POST",
            url=f"{self._backend.base_url}/v1{path}",
            timeouts=Timeouts(connect=min(self._settings.connect_s, timeout), total=timeout, idle=timeout),
            headers=self._backend.headers,
            secret=self._backend.key,
            body=body,
        )

    def _failure(self, message: str) -> UpstreamFailed:
        return UpstreamFailed(message, self._backend.source)


class StartupProbe:
    """A thread that probes the classifier until it is reached: a vLLM may take ten minutes to load its model.

    A classifier whose mode needs no probe is warmed up instead.
    """

    _RETRY_S = 10.0

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="classifier-probe", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop retrying. A probe that is under way goes on."""
        self._stop.set()

    def _run(self) -> None:
        warm_up_only = self._classifier.mode_known
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                if warm_up_only:
                    self._classifier.warm_up()
                else:
                    self._classifier.probe()
            except UpstreamError as problem:
                log.warning("Classifier not reached, will probe again: %s", problem)
                self._classifier.assume_mode()
            else:
                mode, took = self._classifier.mode, (time.monotonic() - started) * 1000
                log.info("Classifier %s: mode=%s in %.0fms", "warmed up" if warm_up_only else "probed", mode, took)
                return
            self._stop.wait(self._RETRY_S)


def _probe(labels: Labels) -> tuple[Message, ...]:
    return ({"role": "system", "content": labels.prompt}, {"role": "user", "content": _PROBE_QUESTION})


def _warm_up_body(model: str, labels: Labels) -> bytes:
    return orjson.dumps({"model": model, "max_tokens": 1, "messages": _probe(labels)})


def _constrained_body(model: str, messages: tuple[Message, ...], names: LabelSet, tokens: int) -> bytes:
    # Field names: vLLM 0.33. structured_outputs replaced guided_choice, which is now ignored with a 200.
    return orjson.dumps(
        {
            "model": model,
            "max_tokens": tokens,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,
            "structured_outputs": {"choice": names.names},
            "chat_template_kwargs": {"enable_thinking": False},
            "messages": messages,
        }
    )


def _reasoning_body(model: str, messages: tuple[Message, ...]) -> bytes:
    # Qwen3's model card warns of endless repetition with greedy decoding while thinking; the seed keeps it repeatable.
    return orjson.dumps(
        {
            "model": model,
            "max_tokens": _REASONING_TOKENS,
            "temperature": 0.6,
            "top_p": 0.95,
            "seed": 0,
            "stream": True,
            "messages": messages,
        }
    )


def _content_of(payload: Mapping[str, Any]) -> str:
    """The first choice's content, stripped; "" if there is none."""
    try:
        content = payload["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    return content.strip() if isinstance(content, str) else ""
