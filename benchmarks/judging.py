"""Why a judge is asked in both orders: python -m benchmarks.judging [PAIRS].

The judge is the packaged SmolLM2, so that this is about a small judge, and a bad one. The two answers are its own: one
to the prompt, and one to another prompt, which is beside the point whatever it says. So the first is the better one.
Left to itself such a model never gets to a verdict, so that it is made to say one by a grammar.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ai_router.judging.comparing import Judgement, contradict, judge_messages, preference_in, win_rates, winner_of
from benchmarks.small_model import SaidAnswer, answers, said, small_model, some_prompts

_ANSWER_TOKENS, _JUDGE_TOKENS = 60, 4
_VERDICTS = 'root ::= "A" | "B" | "TIE"'


def main(pairs: int) -> None:
    """Measure and print."""
    fields = {"grammar": _VERDICTS}
    with tempfile.TemporaryDirectory() as folder, small_model(Path(folder)) as model:
        told = answers(model, some_prompts(pairs), _ANSWER_TOKENS)

        def words(number: int) -> tuple[str | None, str | None]:
            asked, right, wrong = _pair(told, number)
            both = (judge_messages(asked, right, wrong), judge_messages(asked, wrong, right))
            first, second = (preference_in(said(model, messages, _JUDGE_TOKENS, **fields)[0]) for messages in both)
            return first, second

        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(words, range(len(told))))
    print("the words for (right first, wrong first):")
    for both, count in Counter(found).most_common():
        print(f"  {both[0] or '-':>4} {both[1] or '-':>4}: {count}")
    once = [first for first, _ in found if first is not None]
    print(f"asked once, the right one first: it wins {once.count('A')} of {len(once)}")
    once = [second for _, second in found if second is not None]
    print(f"asked once, the wrong one first: it wins {once.count('B')} of {len(once)}")
    judgements = [Judgement("both orders", winner_of(*both), contradict(*both)) for both in found]
    rates = win_rates(judgements)["both orders"]
    print(f"asked in both orders: {rates}; it wins {rates.rate}, {rates.interval}")


def _pair(told: list[SaidAnswer], number: int) -> tuple[list[dict[str, str]], str, str]:
    asked = [{"role": "user", "content": told[number].prompt}]
    return asked, told[number].answer, told[(number + 1) % len(told)].answer


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
