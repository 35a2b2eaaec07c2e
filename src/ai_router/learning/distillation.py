"""Teaching the head what the classifier has decided here: the teacher's words from the sessions, a student, an
examination.

The student begins where the present head stands and is pulled back to it, so that what the sessions do not speak of is
kept. It is examined on conversations that it has not seen, and installed only if it does not do worse there than the
present head. One conversation is either learned from or examined on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ai_router.learning.examples import Example, StoredSession
from ai_router.routing.head.model import Head
from ai_router.routing.head.store import HEAD_FILE
from ai_router.types import DecidedBy

EXAMINED_PART = 5
FEWEST_EXAMINED = 30
SOURCE = "sessions"
PREVIOUS = "head.previous.npz"


@dataclass(frozen=True, slots=True)
class Lessons:
    """What there is to learn from, and what to be examined on."""

    learned: Sequence[Example]
    examined: Sequence[Example]


@dataclass(frozen=True, slots=True)
class Examination:
    """How a head did against the teacher: agreement on all, coverage where it was sure, agreement there."""

    cases: int
    agreement: float
    coverage: float
    agreement_sure: float | None


def lessons_from(sessions: Iterable[StoredSession]) -> Lessons:
    """The classifier's decisions as examples; the newest stands where the same was decided twice."""
    newest = {
        _text(session): Example(
            session.messages,
            session.label,
            SOURCE,
            f"{SOURCE}/{zlib.crc32(session.opening.encode('utf-8', 'replace'))}",
        )
        for session in sessions
        if session.decided_by is DecidedBy.CLASSIFIER
    }
    learned = [example for example in newest.values() if not _is_examined(example)]
    return Lessons(learned, [example for example in newest.values() if _is_examined(example)])


def examine(head: Head, cases: Sequence[Example], year: int) -> Examination:
    """Ask the head about cases whose answers the teacher has given; at least one case."""
    guesses = [head.guess(case.messages, year) for case in cases]
    agreed = [guess.label == case.label for guess, case in zip(guesses, cases, strict=True)]
    sure = [one for one, guess in zip(agreed, guesses, strict=True) if guess.sure]
    return Examination(
        len(cases), sum(agreed) / len(cases), len(sure) / len(cases), sum(sure) / len(sure) if sure else None
    )


def why_not_install(present: Examination, student: Examination, risk: float) -> str | None:
    """The reason to keep the present head; None if the student may replace it. Pure."""
    if student.cases < FEWEST_EXAMINED:
        return f"only {student.cases} decisions to examine it on; {FEWEST_EXAMINED} are needed"
    if student.agreement < present.agreement:
        return f"it agrees with the classifier in {student.agreement:.1%}, the present head in {present.agreement:.1%}"
    wrong = 1 - (student.agreement_sure if student.agreement_sure is not None else 1.0)
    before = 1 - (present.agreement_sure if present.agreement_sure is not None else 1.0)
    if wrong > max(risk, before):
        return f"where it is sure it disagrees in {wrong:.1%}, more than {max(risk, before):.1%}"
    return None


def install(content: bytes, folder: Path) -> Path:
    """Put a learned head in place, whole; the one that was there is kept beside it. A running router takes it up."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / HEAD_FILE
    if path.exists():
        (folder / PREVIOUS).write_bytes(path.read_bytes())
    temporary = folder / f".{HEAD_FILE}.tmp"
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


def _is_examined(example: Example) -> bool:
    # Another remainder of another hash than the calibration's, or all examined would calibrate, too.
    return zlib.adler32(example.group.encode()) % EXAMINED_PART == 0


def _text(session: StoredSession) -> str:
    return "\0".join(f"{message.get('role')}:{message.get('content')}" for message in session.messages)
