"""Distilling: training the head (the student) on what the classifier (the teacher) decided in stored sessions.

The student starts from the present head and is pulled back to it, so that it keeps what does not occur in the sessions.
It is measured on held-out conversations, and installed only if it does not do worse there than the present head. A
conversation is either trained on or held out.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_router.learning.examples import Example, StoredSession
from ai_router.learning.installing import install
from ai_router.routing.head.model import Head
from ai_router.routing.head.store import HEAD_FILE
from ai_router.types import DecidedBy, LabelName

HELD_OUT_PART = 5
"""One conversation in so many is held out."""
MIN_HELD_OUT = 30
MIN_TOLD = 5
SOURCE = "sessions"
PREVIOUS_HEAD_FILE = "head.previous.npz"


@dataclass(frozen=True, slots=True)
class SessionExamples:
    """The classifier's decisions: those to train on, and those held out."""

    training: Sequence[Example]
    held_out: Sequence[Example]


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """A head on held-out cases; shares in [0, 1].

    ``agreement`` with the teacher on all cases, ``coverage`` the share of which it was sure, ``agreement_sure`` on
    those (None: it was sure of none).
    """

    cases: int
    agreement: float
    coverage: float
    agreement_sure: float | None


def examples_from_sessions(sessions: Iterable[StoredSession]) -> SessionExamples:
    """The classifier's decisions as examples. Where the same conversation was decided twice, the later one counts."""
    newest = {
        _conversation_text(session): Example(
            session.messages,
            session.label,
            SOURCE,
            f"{SOURCE}/{zlib.crc32(session.first_user_text.encode('utf-8', 'replace'))}",
        )
        for session in sessions
        if session.decided_by is DecidedBy.CLASSIFIER
    }
    training = [example for example in newest.values() if not _is_held_out(example)]
    return SessionExamples(training, [example for example in newest.values() if _is_held_out(example)])


def evaluate_head(head: Head, examples: Sequence[Example], year: int) -> HeldOutResult:
    """Compare the head's guesses with the teacher's decisions, which are the examples' labels; at least one."""
    guesses = [head.guess(example.messages, year) for example in examples]
    agreed = [guess.label == example.label for guess, example in zip(guesses, examples, strict=True)]
    agreed_sure = [match for match, guess in zip(agreed, guesses, strict=True) if guess.sure]
    return HeldOutResult(
        len(examples),
        sum(agreed) / len(examples),
        len(agreed_sure) / len(examples),
        sum(agreed_sure) / len(agreed_sure) if agreed_sure else None,
    )


@dataclass(frozen=True, slots=True)
class Changes:
    """What another head says of the same cases. ``right``: how many the one and the other have right. ``moved``: how
    many go from one label to another."""

    cases: int
    right: tuple[int, int]
    moved: Mapping[tuple[LabelName, LabelName], int]


def changes(present: Head, student: Head, examples: Sequence[Example], year: int) -> Changes:
    """Compare what two heads say of the examples."""
    said = [[head.guess(example.messages, year).label for example in examples] for head in (present, student)]
    truths = [example.label for example in examples]
    before, after = (sum(label == truth for label, truth in zip(of, truths, strict=True)) for of in said)
    moved = Counter((old, new) for old, new in zip(*said, strict=True) if old != new)
    return Changes(len(examples), (before, after), moved)


def why_not_told(told: Changes) -> str | None:
    """The reason to keep the present head where there are only verdicts of people; None if the student may replace it.
    Pure."""
    if told.cases < MIN_TOLD:
        return f"only {told.cases} verdicts of people; {MIN_TOLD} are needed"
    before, after = told.right
    if after <= before:
        return f"it is right about {after} of {told.cases} verdicts, the present head about {before}"
    return None


def why_not_install(present: HeldOutResult, student: HeldOutResult, risk: float) -> str | None:
    """The reason to keep the present head; None if the student may replace it. Pure."""
    if student.cases < MIN_HELD_OUT:
        return f"only {student.cases} decisions to examine it on; {MIN_HELD_OUT} are needed"
    if student.agreement < present.agreement:
        return f"it agrees with the classifier in {student.agreement:.1%}, the present head in {present.agreement:.1%}"
    disagreement = 1 - (student.agreement_sure if student.agreement_sure is not None else 1.0)
    present_disagreement = 1 - (present.agreement_sure if present.agreement_sure is not None else 1.0)
    limit = max(risk, present_disagreement)
    if disagreement > limit:
        return f"where it is sure it disagrees in {disagreement:.1%}, more than {limit:.1%}"
    return None


def install_head(content: bytes, folder: Path) -> Path:
    """Write a learned head to ``folder``, atomically; the one before it is kept beside it. Running routers load it."""
    path = folder / HEAD_FILE
    if path.exists():
        (folder / PREVIOUS_HEAD_FILE).write_bytes(path.read_bytes())
    install(content, path)
    return path


def _is_held_out(example: Example) -> bool:
    # Another hash than the calibration's: with the same one, every held-out example would also calibrate.
    return zlib.adler32(example.group.encode()) % HELD_OUT_PART == 0


def _conversation_text(session: StoredSession) -> str:
    return "\0".join(f"{message.get('role')}:{message.get('content')}" for message in session.messages)
