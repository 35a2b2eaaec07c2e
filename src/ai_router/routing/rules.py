"""The few rules that decide while there is no classifier to ask.

They claim little: an explicit wish for what is new, a plainly large task, and nothing else. What no rule recognises
is the default, and is called so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ai_router.exchange import Label, Message
from ai_router.routing.text import last_user_text

_SHORT = 400
_LONG = 6_000

_WANTS_THE_WEB = re.compile(
    r"\b(search (the )?(web|internet|online)|look (it |this |that )?up online|google (it|this|for)"
    r"|(latest|breaking|today'?s|current) (news|headlines)|news (today|about)"
    r"|weather (in|for|at|today|tomorrow|this|next|forecast)|weather like (in|today|tomorrow)|weather forecast"
    r"|(stock|share|bitcoin|gold|oil) price|price of (bitcoin|gold|oil)|exchange rate"
    r"|who won (the|last|yesterday)|(score|result) of (the|last|yesterday|today))\b",
    re.IGNORECASE,
)
_QUOTES_OR_DEFINES = re.compile(
    r"\b(translate|rewrite|rephrase|proofread|summari[sz]e|define|explain what|what does .{1,60} mean)\b", re.IGNORECASE
)
_LARGE_TASK = re.compile(
    r"\b(prove (that|the|by)|formal proof|derive the"
    r"|(design|architect) (a|an|the) [\w -]{0,60}(system|architecture|schema)"
    r"|refactor (this|the|my)|in[- ]depth analysis|research (plan|proposal))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """The label a rule gives and the rule in words."""

    label: Label
    reason: str


def match_rules(messages: Sequence[Message]) -> RuleMatch | None:
    """The first rule that recognises the last user turn; None if none does."""
    text = last_user_text(messages)
    if len(text) <= _SHORT and (found := _WANTS_THE_WEB.search(text)) and not _QUOTES_OR_DEFINES.search(text):
        return RuleMatch(Label.ENRICH, f"rule: asks for something current ('{found.group(0).lower()}')")
    if found := _LARGE_TASK.search(text[:_LONG]):
        return RuleMatch(Label.COMPLEX, f"rule: a large task ('{found.group(0).lower()}')")
    if len(text) > _LONG:
        return RuleMatch(Label.COMPLEX, f"rule: a very long request (over {_LONG} characters)")
    return None
