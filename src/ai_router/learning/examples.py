"""Reading what the head is made from and measured on.

Files of JSON lines: labelled examples (``text`` or ``messages``, and ``label``), and comparisons of two models
(``weak`` and ``strong`` instead of a label). And the session files of a running router.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from ai_router.routing.prompt import text_of
from ai_router.routing.verdict import LABELS
from ai_router.types import DecidedBy, Label, LabelName, Message, label_named

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).parents[3]
GROUP_LINES = 20
"""So many neighbouring lines of a file are one group."""


class ExamplesError(ValueError):
    """A file of examples that cannot be used; the message names file, line and field."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation and the label of its last user turn.

    ``source`` names where it comes from (a file's stem). ``group``: examples of one group stand together in their file,
    since they continue the same conversation, contrast with each other or are about the same thing, and are never
    split between fitting and calibrating.
    """

    messages: Sequence[Message]
    label: LabelName
    source: str
    group: str
    private: bool = False
    """Whether the request was local-only: nothing of it may be sent anywhere else."""


def packaged_files(part: str) -> list[Path]:
    """The files of examples that come with the router, by name; ``part`` is ``train`` or ``calibration``.

    A wheel has them inside of the package (``package-dir`` in pyproject.toml puts them there). In a checkout, which is
    what an editable install runs, they are in ``datasets/``. Raises FileNotFoundError if they are in neither.
    """
    folders = (Path(str(files("ai_router").joinpath("datasets", part))), CHECKOUT / "datasets" / part)
    for folder in folders:
        if found := sorted(folder.glob("*.jsonl")):
            return found
    raise FileNotFoundError(f"the examples that come with the router are missing: no *.jsonl in {folders[0]}")


def packaged_dressings() -> Path:
    """The file of the dressings to train with. Raises FileNotFoundError."""
    return packaged_files("train")[0].with_name("dressings.toml")


def read_examples(paths: Iterable[Path], labels: Sequence[LabelName] = LABELS) -> list[Example]:
    """All examples of the files, in order; their labels must be among ``labels``. Rows without a label (other data
    sets) are left out.

    Raises ExamplesError for what is no example, OSError for what cannot be read.
    """
    return [example for path in paths for example in _read(path, labels)]


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of a file of JSON lines; blank lines are skipped. Raises ExamplesError."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as problem:
                raise ExamplesError(f"{path}:{number}: not JSON: {problem}") from None
            if not isinstance(row, dict):
                raise ExamplesError(f"{path}:{number}: not a JSON object")
            yield number, row


def _read(path: Path, labels: Sequence[LabelName]) -> Iterator[Example]:
    for number, row in read_rows(path):
        if "label" in row:
            where = f"{path}:{number}"
            group = f"{path.stem}/{number // GROUP_LINES}"
            yield Example(_messages(row, where), _label(row["label"], where, labels), path.stem, group)


def _label(value: Any, where: str, labels: Sequence[LabelName]) -> LabelName:
    if value not in labels:
        raise ExamplesError(f"{where}: label must be one of {', '.join(labels)}, not {value!r}")
    return label_named(value)


def _messages(row: Mapping[str, Any], where: str) -> Sequence[Message]:
    messages = row.get("messages")
    if messages is None:
        if not isinstance(row.get("text"), str):
            raise ExamplesError(f"{where}: neither text (a string) nor messages")
        return ({"role": "user", "content": row["text"]},)
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise ExamplesError(f"{where}: messages must be a list of objects, not empty")
    return tuple(messages)


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """A prompt, and whether a weak and a strong model got it right."""

    messages: Sequence[Message]
    weak: bool
    strong: bool


def read_comparisons(paths: Iterable[Path]) -> list[ModelComparison]:
    """The rows that have ``weak`` and ``strong`` and no label. Raises ExamplesError, OSError."""
    return [outcome for path in paths for outcome in _read_comparisons(path)]


def _read_comparisons(path: Path) -> Iterator[ModelComparison]:
    for number, row in read_rows(path):
        if "label" not in row and ("weak" in row or "strong" in row):
            if not isinstance(row.get("weak"), bool) or not isinstance(row.get("strong"), bool):
                raise ExamplesError(f"{path}:{number}: weak and strong must both be true or false")
            yield ModelComparison(_messages(row, f"{path}:{number}"), row["weak"], row["strong"])


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The parts of a session file that matter here. ``label`` is one of LABELS, by ``decided_by``, and before a wished
    quality led to another one."""

    session_id: str
    year: int
    messages: Sequence[Message]
    label: Label
    decided_by: DecidedBy
    route: str
    stream: bool
    status: str
    timings: Mapping[str, float]
    cost_usd: float | None
    private: bool = False
    """As of Example."""
    confidence: float | None = None
    failure: str | None = None
    """Why the classifier gave no decision, if it was asked and gave none."""

    @property
    def first_user_text(self) -> str:
        """The first user message, which all turns of a conversation have in common; "" if there is none."""
        return next((text_of(message) for message in self.messages if message.get("role") == "user"), "")


def read_sessions(folder: Path) -> Iterator[StoredSession]:
    """The sessions that were routed by a decision (not named by the client, not META), oldest first.

    A file that cannot be read is skipped with a warning. Raises FileNotFoundError for a folder that is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    for path in sorted(folder.glob("*.json")):
        try:
            session = session_of(orjson.loads(path.read_bytes()))
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as problem:
            log.warning("%s is no session: %s", path.name, problem)
            continue
        if session is not None:
            yield session


def session_of(document: Mapping[str, Any]) -> StoredSession | None:
    """The session in a file's ``document``; None if it was not routed by a decision. Raises KeyError, TypeError or
    ValueError for what is no session, or one whose text was not kept."""
    decision = document["decision"]
    if decision is None or decision["label"] not in LABELS:
        return None
    messages = document["client_messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("client_messages is no list")
    return StoredSession(
        session_id=document["session_id"],
        year=int(document["timestamp"][:4]),
        messages=messages,
        label=Label(decision.get("judged") or decision["label"]),
        decided_by=DecidedBy(decision["decided_by"]),
        route=document["route"],
        stream=bool(document["stream"]),
        status=document["status"],
        timings=document["timings"],
        cost_usd=document["cost_usd"],
        private=bool(document.get("private")),
        confidence=decision.get("confidence"),
        failure=decision.get("failure"),
    )
