"""Which of a client's fields a backend is sent: by the catalogue's rules, and by the policy for max_tokens. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ai_router.config import MaxTokensPolicy
from ai_router.providers.catalogue import Rules

_PASS = MaxTokensPolicy("pass")
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""How the fields are called in chat completions, in Anthropic's API and in the Responses API."""
_NO_THINKING = (b'"enable_thinking":false', b'"thinking":false')
"""How chat templates are told (Qwen's, Nemotron's; DeepSeek's), in ``chat_template_kwargs``."""
_SHOWN_NAMES = 10
_SHOWN_CHARS = 40


@dataclass(frozen=True, slots=True)
class SentFields:
    """What becomes of a client's fields.

    ``values``: what is sent; the client's own mapping if nothing changed. ``limit``: what was done to the limit of
    tokens; None: nothing. ``raised``: whether it was made larger. ``dropped``: the names of fields that are not sent.
    """

    values: Mapping[str, Any]
    limit: str | None = None
    raised: bool = False
    dropped: tuple[str, ...] = ()

    def warnings(self, backend: str) -> Sequence[str]:
        """What the client should know of it."""
        told = [] if self.limit is None else [f"{backend}: {self.limit}"]
        if self.dropped:
            names = ", ".join(name[:_SHOWN_CHARS] for name in self.dropped[:_SHOWN_NAMES])
            more = len(self.dropped) - _SHOWN_NAMES
            told.append(f"{backend} is not sent {names}" + (f" and {more} more" if more > 0 else ""))
        return told


def sent_fields(
    params: Mapping[str, Any],
    rules: Sequence[Rules] = (),
    policy: MaxTokensPolicy = _PASS,
    *,
    reasons: bool | None = None,
    understood: Collection[str] | None = None,
) -> SentFields:
    """The fields for a backend, after its rules and the policy for max_tokens.

    ``reasons``: whether the model is known to think before it answers; None: not known. ``understood``: the fields that
    the backend's API has at all; None: those of chat completions.
    """
    values, renamed = params, set[str]()
    for rule in rules:
        if rule.when is None or rule.when in values:
            values = _by_rule(values, rule)
            renamed.update(rule.rename)
    dropped: tuple[str, ...] = ()
    if values is not params or understood is not None:
        dropped = tuple(
            name
            for name in params
            if name not in renamed and (name not in values or (understood is not None and name not in understood))
        )
    return SentFields(*_by_policy(values, policy, reasons), dropped=dropped)


def _by_rule(params: Mapping[str, Any], rule: Rules) -> Mapping[str, Any]:
    dropped = rule.drop if params.get("reasoning_effort") == "none" else rule.drop | rule.drop_when_reasoning
    ruled: dict[str, Any] = {}
    for name, value in params.items():
        if name in dropped or (rule.keep is not None and name not in rule.keep):
            continue
        renamed = rule.rename.get(name)
        if renamed is None:
            # A null must not undo what has been renamed to this.
            if value is not None or name not in ruled:
                ruled[name] = value
        elif params.get(renamed) is None:
            ruled[renamed] = value
    return {**rule.add, **ruled}


def _by_policy(
    params: Mapping[str, Any], policy: MaxTokensPolicy, reasons: bool | None
) -> tuple[Mapping[str, Any], str | None, bool]:
    """The fields after the policy, what was done (None: nothing), and whether the limit is larger now."""
    limits = [name for name in TOKEN_LIMITS if isinstance(params.get(name), int)]
    # With these the model does not end by itself: a benchmark relies on the limit.
    if policy.kind == "pass" or not limits or params.get("ignore_eos") or params.get("min_tokens"):
        return params, None, False
    if policy.kind == "strip":
        kept = {name: value for name, value in params.items() if name not in TOKEN_LIMITS}
        return kept, f"{' and '.join(limits)} not sent (PRIMARY_MAX_TOKENS=strip)", False
    if policy.kind == "auto" and (reasons is False or thinks_not(params)):
        return params, None, False
    why = " for thinking" if policy.kind == "auto" else ""
    raised = {name: params[name] + policy.extra for name in limits}
    return {**params, **raised}, f"{' and '.join(limits)} raised by {policy.extra}{why}", True


def thinks_not(params: Mapping[str, Any]) -> bool:
    """Whether the client has switched thinking off."""
    if params.get("reasoning_effort") == "none":
        return True
    kwargs = params.get("chat_template_kwargs")
    return kwargs is not None and any(mark in orjson.dumps(kwargs) for mark in _NO_THINKING)
