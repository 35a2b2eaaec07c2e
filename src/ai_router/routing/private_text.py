"""What of a text is private: card numbers, IBANs, secrets, e-mail addresses, and the owner's own patterns.

A request with any of it is local-only. RE2 takes time in proportion to the text, whatever that is: a sixth of a
millisecond for 100 KB and one pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import re2

from ai_router.routing.prompt import text_of
from ai_router.types import Message

_CARD = (
    # Of Visa, Mastercard, American Express and Discover; in groups of four, or of four, six and five.
    r"\b(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|3[47]\d{2}|6(?:011|5\d{2}|4[4-9]\d))"
    r"[ -]?\d{4,6}[ -]?\d{4,5}(?:[ -]?\d{1,4})?\b"
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
_IBAN = rf"\b(?:{'|'.join(_IBAN_LENGTHS)})\d{{2}}(?: ?[A-Z0-9]){{11,28}}"
_MOST_LOOKED_AT = 500
"""So many matches are checked, which takes two to four milliseconds. A text with more is taken to be private."""
_EMAIL = r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}"
_SECRET = "|".join(
    (
        r"\b(?:sk|xai|pk|rk)-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, xAI, Stripe
        r"\b(?:sk|rk)_live_[A-Za-z0-9]{16,}",
        r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{50,}|\bglpat-[A-Za-z0-9_-]{20,}",
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}",  # AWS, Google
        r"\bxox[abprs]-[A-Za-z0-9-]{10,}|\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{36}|\bpypi-[A-Za-z0-9_-]{40,}",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # a JSON Web Token
        # A value that is written out; not `password = ask_for_it()`.
        r"""(?i:\b(?:password|passwd|secret|api[_-]?key|token)["']?\s*[:=]\s*["'][^"'\s]{8,}["'])""",
    )
)
_NO_BLANKS = b" -"
_DOUBLED = bytes(48 + sum(map(int, str(2 * digit))) for digit in range(10))
_DOUBLE = bytes.maketrans(b"0123456789", _DOUBLED)


class BadPattern(ValueError):
    """An expression that RE2 does not take; the message says why."""


def _is_card(found: bytes) -> bool:
    """Whether the check digit is right (Luhn)."""
    digits = found.translate(None, _NO_BLANKS)
    doubled = digits[-2::-2].translate(_DOUBLE)
    return (sum(digits[-1::-2]) + sum(doubled) - 48 * len(digits)) % 10 == 0


def _is_iban(found: bytes) -> bool:
    """Whether the check digits are right (ISO 13616, modulo 97)."""
    text = found.replace(b" ", b"").decode()
    # Words may follow it.
    number = text[: _IBAN_LENGTHS[text[:2]]]
    if len(number) < _IBAN_LENGTHS[text[:2]]:
        return False
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


KINDS: Mapping[str, tuple[str, str, Callable[[bytes], bool] | None]] = {
    "card": ("a card number", _CARD, _is_card),
    "iban": ("an IBAN", _IBAN, _is_iban),
    "secret": ("a secret", _SECRET, None),
    "email": ("an e-mail address", _EMAIL, None),
}
"""What each of PRIVATE_PATTERNS looks for: its name in words, the expression, and what has to be true of a match."""


class PrivateText:
    """Finds what is private. ``kinds``: of KINDS; ``own``: further expressions, by their names. Raises BadPattern.

    Immutable; safe from any thread.
    """

    def __init__(self, kinds: Sequence[str], own: Mapping[str, str]) -> None:
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        self._patterns: list[tuple[str, Any, Callable[[bytes], bool] | None]] = []
        for kind in kinds:
            words, expression, check = KINDS[kind]
            self._patterns.append((words, re2.compile(expression, options=options), check))
        for name, expression in own.items():
            try:
                self._patterns.append((f"what '{name}' looks for", re2.compile(expression, options=options), None))
            except re2.error as problem:
                why = problem.args[0]
                raise BadPattern(f"{name}: {why.decode() if isinstance(why, bytes) else why}") from None

    def found_in(self, text: bytes) -> str:
        """What was found first, in words that do not repeat it; empty: nothing."""
        for words, pattern, check in self._patterns:
            if check is None:
                if pattern.search(text) is not None:
                    return words
            elif _any_passes(check, pattern.finditer(text)):
                return words
        return ""

    def found_in_messages(self, messages: Sequence[Message]) -> str:
        """The same for a conversation: what was said, and what tools were called with."""
        return self.found_in("\n".join(_texts(messages)).encode("utf-8", "surrogatepass"))


def _any_passes(check: Callable[[bytes], bool], matches: Iterator[Any]) -> bool:
    return any(number >= _MOST_LOOKED_AT or check(match.group()) for number, match in enumerate(matches))


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield text_of(message)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, Mapping) else None
            if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
                yield function["arguments"]
