"""Finding the ask: what a user's message asks, without what clients, templates and mail programs put around it.

``unwrap`` peels known shapes off: blocks in tags, transcripts, templates with documents, quotes around everything, mail
headers. What it knows of particular clients is data (wrappings.toml). ``segments`` cuts what is left into pieces; which
of them ask is for the head to say (head/model.py), which has learned it. Pure.

A shape that is not known stays where it is: the head sees words that it does not know, and is less sure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from msgspec import Struct, convert

from ai_router.routing.prompt import both_ends

MAX_CHARS = 12_000
"""Characters of a message that are looked at, half of them at each end."""
MAX_SEGMENTS = 24
"""Segments of a message that are looked at, half of them at each end."""
_ROUNDS = 5
_MIN_BLOCK_CHARS = 40
"""An unknown tag around less than this, within a line, is markup of the text itself."""


_MOST_BLANKS = 8
_LONG_BLANKS = re.compile(rf"[ \t]{{{_MOST_BLANKS + 1},}}")


class Wrapping(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of wrappings.toml. All names are in lower case."""

    client: str
    source: str
    ask_tags: tuple[str, ...] = ()
    around_tags: tuple[str, ...] = ()
    ask_labels: tuple[str, ...] = ()
    answer_labels: tuple[str, ...] = ()
    mail_headers: tuple[str, ...] = ()
    sign_offs: tuple[str, ...] = ()


class _Known:
    """What wrappings.toml says, as sets and patterns."""

    def __init__(self, wrappings: Sequence[Wrapping]) -> None:
        self.ask_tags = frozenset(tag for row in wrappings for tag in row.ask_tags)
        self.around_tags = frozenset(tag for row in wrappings for tag in row.around_tags)
        ask_labels = _any_of(label for row in wrappings for label in row.ask_labels)
        answer_labels = _any_of(label for row in wrappings for label in row.answer_labels)
        self.ask_label = re.compile(rf"^[ \t]*(?:#+|\*\*)?[ \t]*(?:{ask_labels})(?:\*\*)?[ \t]*:(?:\*\*)?", re.I | re.M)
        self.answer_label = re.compile(rf"(?:\n|\s{{1,4}})(?:#+[ \t]*)?(?:{answer_labels})[ \t]*:?[ \t]*\Z", re.I)
        self.mail_header = re.compile(
            rf"^>?[ \t]*\*?(?:{_any_of(h for row in wrappings for h in row.mail_headers)})\*?:.*$", re.I | re.M
        )
        sign_offs = _any_of(sign_off for row in wrappings for sign_off in row.sign_offs)
        self.sign_off = re.compile(
            rf"^[ \t>]*(?:{sign_offs})[,.!]*[ \t]*(?:\n(?!\n)[^\n]{{0,60}}){{0,3}}\s*\Z", re.I | re.M
        )


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _read_known() -> _Known:
    table = tomllib.loads(files("ai_router.routing").joinpath("wrappings.toml").read_text("utf-8"))
    return _Known(convert(table["wrappings"], tuple[Wrapping, ...]))


# Now, as in routing/prompt.py: msgspec does not bear it on several threads at once.
_KNOWN = _read_known()


def unwrap(text: str) -> str:
    """``text`` without the shapes that are known to surround what a user asks; never empty unless ``text`` is blank."""
    # Long runs of blanks say nothing, and patterns with blanks in them would be slow on them.
    found = _LONG_BLANKS.sub(" " * _MOST_BLANKS, both_ends(text, MAX_CHARS)).strip()
    for _ in range(_ROUNDS):
        before = found
        for peel in (_without_blocks, _within_marks, _within_transcript, _without_quotes, _without_mail):
            found = peel(found).strip() or found
        if found == before:
            break
    return found


# Blocks in tags.

_OPENING = re.compile(r"<([A-Za-z][\w.-]{1,40})(?:\s[^<>]{0,300})?>")


@dataclass(frozen=True, slots=True)
class _Block:
    """A tag's name, its body, and where it stands with its tags."""

    name: str
    body: str
    start: int
    end: int


def _blocks(text: str) -> Iterator[_Block]:
    """The outermost tags that are closed again. Names in lower case."""
    at, unclosed = 0, set()
    for opening in _OPENING.finditer(text):
        name = opening[1]
        if opening.start() < at or name in unclosed:
            continue
        closing = f"</{name}>"
        found = text.find(closing, opening.end())
        if found < 0:
            unclosed.add(name)
            continue
        at = found + len(closing)
        yield _Block(name.lower(), text[opening.end() : found], opening.start(), at)


def _without_blocks(text: str) -> str:
    """The body of the last tag that is known to hold the ask; else what stands outside of all blocks."""
    if "</" not in text:
        return text
    known, asks, unknown, outside, at = _KNOWN, [], [], [], 0
    for block in _blocks(text):
        if block.name in known.ask_tags:
            asks.append(block.body.strip())
        elif block.name not in known.around_tags:
            if not _stands_apart(text, block):
                continue
            unknown.append(block.body.strip())
        outside.append(text[at : block.start])
        at = block.end
    outside.append(text[at:])
    rest = "\n".join(outside).strip()
    if any(asks):
        return asks[-1] or asks[0]
    return rest or (unknown[-1] if unknown else text)


def _stands_apart(text: str, block: _Block) -> bool:
    """Whether an unknown tag is no mere markup: it is long, has lines of its own, or is all there is."""
    alone = not text[: block.start].strip() and not text[block.end :].strip()
    return alone or len(block.body) >= _MIN_BLOCK_CHARS or "\n" in block.body


# Marks of chat templates.

_MARKS = (
    ("[/INST]", re.compile(r"\[INST\](.*?)\[/INST\]", re.S)),
    ("<|im_start|>user", re.compile(r"<\|im_start\|>user\s*(.*?)(?:<\|im_end\|>|\Z)", re.S)),
    ("<|user|>", re.compile(r"<\|user\|>(.*?)(?:<\|(?:assistant|end)\|>|\Z)", re.S)),
    ("<start_of_turn>user", re.compile(r"<start_of_turn>user\s*(.*?)(?:<end_of_turn>|\Z)", re.S)),
    ("\nassistant", re.compile(r"\Auser\n(.*)\nassistant\Z", re.S)),
)
"""What a text must contain, and the pattern of the ask. Without the first the second would be slow."""
_SENTENCE_MARKS = re.compile(r"^</?s>|</s>$|^<bos>|<eos>$")


def _within_marks(text: str) -> str:
    text = _SENTENCE_MARKS.sub("", text)
    for needed, marks in _MARKS:
        if needed in text and (found := marks.findall(text)):
            return str(found[-1])
    return text


# Transcripts, and templates that end in a label for the answer.


def _within_transcript(text: str) -> str:
    """What stands behind the last label of an ask, where the label for the answer ends the text, or where the text
    before is a template's."""
    known = _KNOWN
    labels = list(known.ask_label.finditer(text))
    if not labels:
        return known.answer_label.sub("", text) if _ends_in_bare_label(text) else text
    last = labels[-1]
    ask = text[last.end() :]
    if answer := known.answer_label.search(ask):
        return ask[: answer.start()]
    stands_first, is_last_paragraph = not text[: last.start()].strip(), "\n\n" not in ask.strip()
    # "Question: ..." behind documents. In the middle of a text a label is the text's own.
    return (
        ask
        if (stands_first and len(labels) == 1) or (is_last_paragraph and _is_paragraph(text, last.start()))
        else text
    )


def _ends_in_bare_label(text: str) -> bool:
    return text.rstrip().endswith(":") and "\n" in text.strip()


def _is_paragraph(text: str, at: int) -> bool:
    before = text[:at]
    return before.rstrip(" \t").endswith(("\n\n", "---\n", ">\n")) or before.count("\n") >= 2


# Quotes and other marks around everything.

_PAIRS = (
    ('"""', '"""'),
    ("```", "```"),
    ("**", "**"),
    ('"', '"'),
    ("'", "'"),
    ("“", "”"),
    ("„", "“"),
    ("„", "”"),
    ("«", "»"),
)
_MORE_PAIRS = (
    ("»", "«"),
    ("‘", "’"),
    ("`", "`"),
    ("「", "」"),
    ("『", "』"),
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("<", ">"),
)
_EMPHASIS = (("*", "*"), ("_", "_"), ("---\n", "\n---"))
_LINE_MARK = re.compile(r"\A(?:>|#{1,6}|[-*•–]|\(?\d{1,2}[.)])[ \t]+(?=\S)")
_QUOTED_LINES = re.compile(r"^>[ \t]?", re.M)
_FENCE_LANGUAGE = re.compile(r"\A\w{0,12}\n")


def _without_quotes(text: str) -> str:
    for opening, closing in (*_PAIRS, *_MORE_PAIRS, *_EMPHASIS):
        inner = text[len(opening) : -len(closing)]
        wrapped = text.startswith(opening) and text.endswith(closing) and inner.strip()
        if wrapped and (not (opening in inner or closing in inner) or _opens_first(inner, opening)):
            return _FENCE_LANGUAGE.sub("", inner) if opening == "```" else inner
    lines = text.split("\n")
    if all(line.startswith(">") for line in lines if line.strip()):
        return _QUOTED_LINES.sub("", text)
    return _LINE_MARK.sub("", text) if len(lines) == 1 else text


def _opens_first(inner: str, quote: str) -> bool:
    """Whether the first quote inside opens a quotation: else two quotations stand side by side."""
    at = inner.find(quote)
    return 0 < at < len(inner) - 1 and quote in "\"'" and inner[at - 1].isspace() and not inner[at + 1].isspace()


# Mails.

_FORWARDED = re.compile(
    r"^[ \t>]*(?:-{3,}.{0,40}(?:message|nachricht|mensaje).{0,20}-{3,}|begin forwarded message:?|fwd?:.*)[ \t]*$",
    re.I | re.M,
)
_WROTE = re.compile(r"^[^\n]{1,80}\b(?:wrote|schrieb|a écrit|escribió)\s?:[ \t]*$", re.I | re.M)
_SENT_FROM = re.compile(r"^sent from my .{1,30}$|^von meinem .{1,30} gesendet$", re.I | re.M)
_DEAR = re.compile(r"\A(?:dear|hi|hello|hey|liebe[rs]?|hallo|sehr geehrte)\b[^\n,.!?]{0,40}[,!]?[ \t]*\n", re.I)


def _without_mail(text: str) -> str:
    """The text of a mail, without headers, salutation and sign-off."""
    known = _KNOWN
    is_mail = bool(_FORWARDED.search(text) or _WROTE.search(text)) or len(known.mail_header.findall(text[:1_000])) >= 2
    if is_mail:
        text = _SENT_FROM.sub("", known.mail_header.sub("", _WROTE.sub("", _FORWARDED.sub("", text)))).strip()
    elif not _DEAR.match(text) and not (known.mail_header.match(text) and "\n" in text):
        return text
    else:
        text = known.mail_header.sub("", text, count=1).strip() if known.mail_header.match(text) else text
    text = _DEAR.sub("", text)
    return known.sign_off.sub("", text) or text


# Segments.


@dataclass(frozen=True, slots=True)
class Ask:
    """What a message asks. ``text``: its segments that ask, one a line. ``certainty``: of the least clear segment, 0
    for one that may as well ask as not, 1 for one that surely does or does not. ``segments``: all of the message's,
    and ``unwrapped`` the message that they were cut from."""

    text: str
    certainty: float
    segments: tuple[str, ...]
    unwrapped: str


_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”»')\]]?\s+(?=\S)|(?<=[。！？؟।])\s*")
_COLON = re.compile(r"\A([^:\n]{1,80}):[ \t]+(?=\S)")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_TAIL_CHARS = 80
_TAIL = re.compile(r"(\([^()\n]{3,60}\)|[-–—] [^\n]{3,60})\s*\Z")


def segments(text: str) -> list[str]:
    """The lines and sentences of a text, in order, at most MAX_SEGMENTS; a fenced block is one of them.

    What stands in front of a colon at the beginning of a line, and a bracket or a dash's remark at the end of a
    sentence, are segments of their own: ``Please``, ``(answer in German)``.
    """
    found: list[str] = []
    at = 0
    for fence in _FENCED.finditer(text):
        found += _segments_of_lines(text[at : fence.start()])
        found.append(fence[0])
        at = fence.end()
    found += _segments_of_lines(text[at:])
    if len(found) > MAX_SEGMENTS:
        found = found[: MAX_SEGMENTS // 2] + found[-MAX_SEGMENTS // 2 :]
    return found


def _segments_of_lines(text: str) -> list[str]:
    found = []
    for line in map(str.strip, text.split("\n")):
        colon = _COLON.match(line)
        if colon:
            found.append(f"{colon[1]}:")
        for sentence in _SENTENCE_END.split(line[colon.end() :] if colon else line):
            if tail := _TAIL.search(sentence[-_TAIL_CHARS:]):
                found += [sentence[: len(sentence) - len(tail[0])], tail[1]]
            else:
                found.append(sentence)
    return [segment.strip() for segment in found if segment.strip()]
