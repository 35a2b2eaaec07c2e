"""Keeping a conversation on its route: the label that its previous turn had, and the rule for staying with it.

The rule. A turn keeps the label of the turn before it if the new decision has another label and a confidence below
STAY_BELOW. MODERATE, COMPLEX and owners' routes are kept: each is a backend with the conversation in its prefix cache.
ENRICH is about the question and not about the conversation: it is neither kept nor replaced, and the turn after it is
compared with the turn before it. A decision that states no confidence counts as sure.

A request that goes on with a turn, since its last message is a tool's result, keeps the turn's label, ENRICH too. It
is escalated where the loop goes in circles (``goes_in_circles``). A user who says no more than "go on" (a row of
continuations.toml) stays with the label that is kept, however sure the head is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
import threading
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import orjson
from cachetools import LRUCache

from ai_router.routing.prompt import text_of
from ai_router.types import DecidedBy, Decision, Label, LabelName, Message, route_of

STAY_BELOW = 0.8
_NEVER_KEPT = frozenset({Label.ENRICH, Label.META, Label.EXPLICIT})
_END_CHARS = 200
_FIRST_MESSAGES, _LAST_MESSAGES = 4, 60
_TOOL_ROLES = frozenset({"tool", "function"})
CIRCLES = 3
_ERROR = re.compile(r"\s*(?:<[\w-]*error>|\W{0,3}(?:error|exception|traceback|failed|failure|fatal)\b)", re.I)
"""How the results of tools begin that tell of an error. OpenAI's messages have no field for it."""
_WORD = re.compile(r"[\w']+")
_LONGEST_CONTINUATION = 40
_ROLES_IN_KEY = frozenset({"user", "system", "developer"})

TurnKey = bytes
"""A digest of a conversation up to and including one user turn. It identifies that turn, in this conversation."""


def turn_keys(messages: Sequence[Message], client: str = "") -> tuple[TurnKey | None, TurnKey]:
    """(key of the previous user turn, None if there was none; key of the current one). The same words of another
    ``client`` are another conversation.

    What a tool answered after the last user turn continues that turn: then both keys are the same. Messages of the
    roles in _ROLES_IN_KEY count: two applications with other system messages may begin with the same words. Of each
    message its length and _END_CHARS at both ends count; of a long conversation the _FIRST_MESSAGES and the
    _LAST_MESSAGES.
    """
    in_key = [message for message in messages if message.get("role") in _ROLES_IN_KEY]
    if len(in_key) > _FIRST_MESSAGES + _LAST_MESSAGES:
        in_key = in_key[:_FIRST_MESSAGES] + in_key[-_LAST_MESSAGES:]
    users = (index for index in reversed(range(len(in_key))) if in_key[index].get("role") == "user")
    last = next(users, len(in_key))
    digest = hashlib.blake2b(client.encode(), digest_size=16)
    for message in in_key[:last]:
        digest.update(_digest_input(message))
    previous = digest.digest() if any(message.get("role") == "user" for message in in_key[:last]) else None
    for message in in_key[last:]:
        digest.update(_digest_input(message))
    current = digest.digest()
    return (previous, current) if not messages or messages[-1].get("role") == "user" else (current, current)


def goes_on(messages: Sequence[Message]) -> bool:
    """Whether the request goes on with a turn: its last message is what a tool answered."""
    return bool(messages) and messages[-1].get("role") in _TOOL_ROLES


def goes_in_circles(messages: Sequence[Message]) -> bool:
    """Whether the turn's last CIRCLES rounds of tool calls were the same calls with the same arguments, and brought the
    same results or errors only."""
    rounds = list(itertools.islice(_rounds(messages), CIRCLES))
    if len(rounds) < CIRCLES or any(found.calls != rounds[0].calls for found in rounds):
        return False
    same = all(found.results == rounds[0].results for found in rounds)
    return same or all(_ERROR.match(result) for found in rounds for result in found.results)


class _Round(NamedTuple):
    """The calls of one message, each its function's name and its arguments, and what they brought."""

    calls: Sequence[tuple[str, object]]
    results: Sequence[str]


def _rounds(messages: Sequence[Message]) -> Iterator[_Round]:
    """The current turn's rounds of tool calls that have results, the newest first."""
    results: list[str] = []
    for message in reversed(messages):
        role = message.get("role")
        if role in _TOOL_ROLES:
            results.append(text_of(message))
        elif role == "assistant" and results and (calls := _calls_of(message)):
            yield _Round(calls, results)
            results = []
        else:
            return


def _calls_of(message: Message) -> list[tuple[str, object]]:
    calls = message.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    functions.append(message.get("function_call"))
    return [(str(of.get("name")), _parsed(of.get("arguments"))) for of in functions if isinstance(of, Mapping)]


def _parsed(arguments: object) -> object:
    """Arguments that differ only in how their JSON is written are the same."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments


def is_continuation(messages: Sequence[Message]) -> bool:
    """Whether the user says no more than to go on: "yes, do it", "continue", "weiter"."""
    if not messages or messages[-1].get("role") != "user":
        return False
    text = text_of(messages[-1])
    return len(text) <= _LONGEST_CONTINUATION and " ".join(_WORD.findall(text.lower())) in _continuations()


@cache
def _continuations() -> frozenset[str]:
    table = tomllib.loads(files("ai_router.routing").joinpath("continuations.toml").read_text("utf-8"))
    return frozenset(" ".join(_WORD.findall(phrase.lower())) for row in table["continuations"] for phrase in row["say"])


def _digest_input(message: Message) -> bytes:
    text = text_of(message)
    images = "".join(_image_digest_input(part) for part in _content_parts(message))
    ends = f"{message.get('role')}\0{len(text)}\0{text[:_END_CHARS]}\0{text[-_END_CHARS:]}\0{images}\0"
    return ends.encode("utf-8", "surrogatepass")


def _content_parts(message: Message) -> Sequence[object]:
    content = message.get("content")
    return content if isinstance(content, list) else ()


def _image_digest_input(part: object) -> str:
    """What tells one image from another: length and end of its URL, which may be a data URL with all of it."""
    link = part.get("image_url") if isinstance(part, Mapping) else None
    url = link.get("url") if isinstance(link, Mapping) else link
    return f"{len(url)}:{url[-_END_CHARS:]}" if isinstance(url, str) else ""


def stay(decision: Decision, previous: LabelName | None) -> Decision:
    """The decision, with the label of the turn before where the rule (above) says so. Pure."""
    sure = decision.confidence is None or decision.confidence >= STAY_BELOW
    if previous is None or sure or decision.label == previous or decision.label in _NEVER_KEPT:
        return decision
    return dataclasses.replace(
        decision,
        label=previous,
        route=route_of(previous),
        reason=f"stays {previous} like the turn before, since this is unsure ({decision.reason})",
        confidence=None,
    )


class Conversations:
    """The labels of at most ``size`` turns; the least recently used one is dropped first.

    Safe from any thread.
    """

    def __init__(self, size: int) -> None:
        self._labels: LRUCache[TurnKey, LabelName] = LRUCache(size)
        """What the next turn may stay with."""
        self._own: LRUCache[TurnKey, LabelName] = LRUCache(size)
        """What each turn was decided as."""
        self._lock = threading.Lock()

    def label_at(self, key: TurnKey | None) -> LabelName | None:
        """The label to stay with, of the turn with this key; None if there is none or it was dropped."""
        if key is None:
            return None
        with self._lock:
            return self._labels.get(key)

    def own_label(self, key: TurnKey) -> LabelName | None:
        """What the turn with this key was decided as; None if that is not known, or was dropped."""
        with self._lock:
            return self._own.get(key)

    def remember_own(self, key: TurnKey, label: LabelName) -> None:
        """Keep what a turn was decided as for the rest of it; the next turn does not stay with it."""
        with self._lock:
            self._own[key] = label

    def remember(
        self, previous: TurnKey | None, current: TurnKey, label: LabelName, previous_label: LabelName | None = None
    ) -> LabelName | None:
        """Keep ``label`` for the current turn. A turn with another label than those kept takes the previous turn's:
        ``previous_label``, or what is known of ``previous``. Returns what the next turn may stay with."""
        with self._lock:
            self._own[current] = label
            if label not in _NEVER_KEPT:
                kept: LabelName | None = label
            else:
                kept = previous_label or (None if previous is None else self._labels.get(previous))
            if kept is not None:
                self._labels[current] = kept
            return kept


def conversation_decision(label: LabelName, reason: str) -> Decision:
    """The decision of a turn that goes on with one that was decided."""
    return Decision(label, route_of(label), DecidedBy.CONVERSATION, reason)
