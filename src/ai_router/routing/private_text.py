"""What of a text is private: card numbers, IBANs, secrets, e-mail addresses, and the owner's own patterns.

A request with any of it is local-only. All texts of its body are looked into, those in the arguments of tools as well.
RE2 takes time in proportion to the text, whatever that is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import re2

_DIGITS = (
    r"(?:^|[^0-9])(?:2[2-7][0-9]{2}|3[0-9]{3}|4[0-9]{3}|5[1-5][0-9]{2}|6[0245][0-9]{2})"
    r"(?:[0-9]{9,15}|[0-9]{0,2}(?:[ \n.-]{1,2}[0-9]{2,6}){2,4})"
)
"""A number that begins as those of cards do, in one piece or in three groups and more; others may follow it."""
_GROUP = re.compile(rb"[0-9]+")
_CARD = re.compile(
    # Visa, Mastercard, American Express, Discover, Diners Club, JCB and UnionPay, by their first digits and lengths.
    rb"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}"
    rb"|6(?:011|4[4-9][0-9]|5[0-9]{2}|2[0-9]{2})[0-9]{12}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35[0-9]{14}"
)
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Of the registry of ISO 13616, by country."""
_IBAN = rf"(?i:(?:{'|'.join(_IBAN_LENGTHS)})[0-9]{{2}}(?:[ \n.-]?[A-Z0-9]){{11,28}})"
_EMAIL = r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}"
_SECRET = "|".join(
    (
        r"\b(?:sk|xai|pk|rk)-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, xAI, Stripe
        r"\b(?:sk|rk)_live_[A-Za-z0-9]{16,}",
        r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}",
        r"(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}",  # AWS, Google
        r"xox[abprs]-[A-Za-z0-9-]{10,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{40,}",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
        r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # a JSON Web Token
        r"[a-z][a-z0-9+.-]{1,20}://[^/\s:@]{1,100}:[^/\s:@]{3,100}@",  # a name and a password in an address
    )
)
_NAMED = r"""(?i:(?:password|passwd|passwort|secret|api[_-]?key|access[_-]?key|token)["']?(?:\s*:\s*str)?"""
_WRITTEN_OUT = rf"""{_NAMED}\s*(?:=>|:=|=|:)\s*["'][^"'\n]{{8,}}["'])"""
"""A value in quotes; not `password = ask_for_it()`."""
_UNQUOTED = rf"""{_NAMED}\s*[:=]\s*[^\s"'(){{}}\[\],;<>$]{{8,}}(?:$|[\s,;]))"""
_DOUBLED = bytes(48 + sum(map(int, str(2 * digit))) for digit in range(10))
_DOUBLE = bytes.maketrans(b"0123456789", _DOUBLED)
_MOST_LOOKED_AT = 500
"""So many matches are checked, which takes some milliseconds. A text with more is taken to be private."""
_NOT_LOOKED_INTO = frozenset({"tools", "functions", "model"})
"""Fields of a body: what tools are called and described as."""
_MAX_DEPTH = 60
_LIKE_JSON = re.compile(r"[ \t\r\n]*[{\[]")


class BadPattern(ValueError):
    """An expression that RE2 does not take; the message says why."""


def _is_card(found: bytes) -> bool:
    """Whether some of these groups of digits, from the first on, are the number of a card with a right check digit."""
    number = b""
    for group in _GROUP.findall(found):
        number += group
        if len(number) >= 13 and _CARD.fullmatch(number) and _passes_luhn(number):
            return True
    return False


def _passes_luhn(digits: bytes) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812)."""
    doubled = digits[-2::-2].translate(_DOUBLE)
    return (sum(digits[-1::-2]) + sum(doubled) - 48 * len(digits)) % 10 == 0


def _is_iban(found: bytes) -> bool:
    """Whether it begins with an IBAN whose check digits are right (ISO 13616, modulo 97). Words may follow it."""
    text = re.sub(r"[ \n.-]", "", found.decode()).upper()
    length = _IBAN_LENGTHS[text[:2]]
    number = text[4:length] + text[:4]
    return len(text) >= length and int("".join(str(int(char, 36)) for char in number)) % 97 == 1


def _is_no_word(found: bytes) -> bool:
    """Whether a value has digits and letters, as words of a sentence do not."""
    value = re.split(rb"[:=]", found, maxsplit=1)[1].strip()
    return bool(re.search(rb"[0-9]", value)) and bool(re.search(rb"[A-Za-z]", value))


Check = Callable[[bytes], bool]

KINDS: Mapping[str, tuple[str, Sequence[tuple[str, Check | None]]]] = {
    "card": ("a card number", [(_DIGITS, _is_card)]),
    "iban": ("an IBAN", [(_IBAN, _is_iban)]),
    "secret": ("a secret", [(_SECRET, None), (_WRITTEN_OUT, None), (_UNQUOTED, _is_no_word)]),
    "email": ("an e-mail address", [(_EMAIL, None)]),
}
"""What each of PRIVATE_PATTERNS looks for: its name in words, the expressions, and what has to be true of a match."""


class PrivateText:
    """Finds what is private. ``kinds``: of KINDS; ``own``: further expressions, by their names. Raises BadPattern.

    Immutable; safe from any thread.
    """

    def __init__(self, kinds: Sequence[str], own: Mapping[str, str]) -> None:
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        self._patterns: list[tuple[str, Any, Check | None]] = []
        self._own: list[tuple[str, Any]] = []
        for kind in kinds:
            words, expressions = KINDS[kind]
            for expression, check in expressions:
                self._patterns.append((words, re2.compile(expression, options=options), check))
        for name, expression in own.items():
            try:
                self._own.append((f"what '{name}' looks for", re2.compile(expression, options=options)))
            except re2.error as problem:
                why = problem.args[0]
                raise BadPattern(f"{name}: {why.decode() if isinstance(why, bytes) else why}") from None

    def found_in(self, text: str) -> str:
        """What was found first, in words that do not repeat it; empty: nothing."""
        plain = _plain(text)
        told = _as_typed(plain).encode("utf-8", "surrogatepass")
        for words, pattern, check in self._patterns:
            if pattern.search(told) is not None if check is None else _any_passes(pattern, check, told):
                return words
        # The owner's may look for a dash or an invisible character as well.
        forms = {told, plain.encode("utf-8", "surrogatepass")} if self._own else ()
        return next((words for words, pattern in self._own if any(map(pattern.search, forms))), "")

    def found_in_body(self, body: Any) -> str:
        """The same for the body of a request, of JSON values: for all texts in it."""
        fields = body
        if isinstance(body, Mapping):
            fields = [value for name, value in body.items() if name not in _NOT_LOOKED_INTO]
        return self.found_in("\n".join(_texts(fields, 0)))


def _plain(text: str) -> str:
    """The text with one form for each character, and a blank for each that is not a line break."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.translate(_BLANKS) if _ANY_BLANK.search(text) else text


def _as_typed(text: str) -> str:
    """A plain text with hyphens for dashes, and without what nobody sees."""
    if text.isascii():
        return text
    for dash in _DASHES:
        text = text.replace(dash, "-")
    return text if text.isascii() else _UNSEEN.sub("", text)


_BLANKS = {ord(char): " " for char in "\t\v\f\u00a0\u1680\u2028\u2029\u202f\u205f\u3000"} | {ord("\r"): "\n"}
_ANY_BLANK = re.compile("[\t\v\f\r\u00a0\u1680\u2028\u2029\u202f\u205f\u3000]")
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_UNSEEN = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\U000e0100-\U000e01ef]+"
)
"""What breaks lines, joins letters and turns the direction of writing: programs for texts put it anywhere."""


def _any_passes(pattern: Any, check: Check, text: bytes) -> bool:
    """Whether the check is true of some match. Matches may overlap: the next one is looked for inside the last."""
    begin = 0
    for _ in range(_MOST_LOOKED_AT):
        match = pattern.search(text, begin)
        if match is None:
            return False
        if check(match.group()):
            return True
        begin = match.start() + 1
    return True


def _texts(value: Any, depth: int) -> Iterator[str]:
    """All texts in JSON values. One that is JSON itself, as the arguments of a tool are, is looked into."""
    if isinstance(value, str):
        inner = _parsed(value)
        if inner is not None and depth < _MAX_DEPTH:
            yield from _texts(inner, depth + 1)
        else:
            yield value
    elif (isinstance(value, (int, float)) and not isinstance(value, bool)) or depth >= _MAX_DEPTH:
        yield str(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _named(str(name), inner, depth)
    elif isinstance(value, (list, tuple)):
        # The parts of a message are read in one piece.
        parts = [inner for inner in value if _is_text_part(inner)]
        if parts:
            yield "\n".join(part["text"] for part in parts)
        for inner in value:
            others = {name: each for name, each in inner.items() if name != "text"} if _is_text_part(inner) else inner
            yield from _texts(others, depth + 1)


def _is_text_part(value: Any) -> bool:
    text = value.get("text") if isinstance(value, Mapping) else None
    return isinstance(text, str) and _parsed(text) is None


def _named(name: str, value: Any, depth: int) -> Iterator[str]:
    # In one line with its name: {"password": "..."} says that it is one.
    if isinstance(value, str) and _parsed(value) is None:
        yield f'{name}: "{value}"' if '"' not in value else f"{name}: {value}"
    else:
        yield name
        yield from _texts(value, depth + 1)


def _parsed(text: str) -> Any:
    """The object or array that a text is in JSON; None: it is none."""
    if not _LIKE_JSON.match(text):
        return None
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None
