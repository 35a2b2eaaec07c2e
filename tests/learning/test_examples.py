"""Reading examples and sessions: what is taken, and what is said of what cannot be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_router.cli.learning import own_examples
from ai_router.learning.examples import (
    ExamplesError,
    packaged_files,
    read_comparisons,
    read_examples,
    read_sessions,
)
from ai_router.routing.verdict import LABELS

ROOT = Path(__file__).parents[2]
DATASETS = ROOT / "datasets"
README = (DATASETS / "README.md").read_text()


def written(folder: Path, *lines: str) -> Path:
    path = folder / "set.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_text_or_a_conversation(tmp_path: Path) -> None:
    turn = '{"messages": [{"role": "user", "content": "a"}], "label": "ENRICH"}'
    first, second = read_examples([written(tmp_path, '{"text": "hi", "label": "MODERATE"}', "", turn)])
    assert first.messages == ({"role": "user", "content": "hi"},)
    assert (second.label, second.source) == ("ENRICH", "set")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "hi", "label": "EASY"}', ":1: label must be one of MODERATE, COMPLEX, ENRICH, not 'EASY'"),
        ('{"text": 3, "label": "MODERATE"}', ":1: neither text (a string) nor messages"),
        ('{"messages": [], "label": "MODERATE"}', ":1: messages must be a list of objects, not empty"),
        ("{", ":1: not JSON"),
        ("[]", ":1: not a JSON object"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(ExamplesError) as caught:
        read_examples([written(tmp_path, line)])
    assert problem in str(caught.value)


def test_rows_of_weak_and_strong_are_outcomes_and_no_examples(tmp_path: Path) -> None:
    path = written(tmp_path, '{"text": "q", "weak": false, "strong": true}', '{"text": "hi", "label": "MODERATE"}')
    assert len(read_examples([path])) == 1
    (outcome,) = read_comparisons([path])
    assert (outcome.weak, outcome.strong) == (False, True)


def test_an_outcome_without_strong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExamplesError, match=":1: weak and strong must both be"):
        read_comparisons([written(tmp_path, '{"text": "q", "weak": false}')])


def test_neighbours_are_one_group(tmp_path: Path) -> None:
    lines = [f'{{"text": "{number}", "label": "MODERATE"}}' for number in range(45)]
    groups = [example.group for example in read_examples([written(tmp_path, *lines)])]
    assert len(set(groups)) == 3


def test_the_package_s_own_examples_are_many_of_each_label_and_none_twice() -> None:
    examples, apart = own_examples()
    assert apart == {"kept_apart_traps", "kept_apart_mixed"}
    for label in LABELS:
        assert sum(example.label == label for example in examples) > 2_000
    spoken = [tuple(str(message["content"]) for message in example.messages) for example in examples]
    assert len(set(spoken)) == len(spoken)
    assert all(example.messages[-1]["role"] == "user" for example in examples)


def test_examples_that_are_missing_from_an_installation_are_an_error() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"the examples that come with the router are missing: no \*\.jsonl in "
    ):
        packaged_files("no such part")


def test_nothing_that_is_kept_for_evaluation_is_learned_from() -> None:
    examples, _ = own_examples()
    spoken = {tuple(str(message["content"]) for message in example.messages) for example in examples}
    kept = read_examples(sorted((Path(__file__).parents[2] / "datasets" / "test").glob("*.jsonl")))
    assert len(kept) == 705
    assert not [example for example in kept if tuple(str(m["content"]) for m in example.messages) in spoken]


# Sessions


def document(**changes: Any) -> dict[str, Any]:
    return {
        "session_id": "s",
        "timestamp": "2026-11-21T20:00:00+00:00",
        "client_messages": [{"role": "user", "content": "hi"}],
        "decision": {"label": "MODERATE", "decided_by": "classifier"},
        "route": "primary",
        "stream": False,
        "status": "ok",
        "timings": {"total_ms": 5.0},
        "cost_usd": None,
        **changes,
    }


def stored(folder: Path, name: str, content: bytes) -> None:
    (folder / f"{name}.json").write_bytes(content)


def test_sessions_are_read_and_broken_files_are_skipped_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path, "1", orjson.dumps(document()))
    stored(tmp_path, "2", b"{ torn")
    stored(tmp_path, "3", orjson.dumps(document(client_messages="no")))
    stored(tmp_path, "4", orjson.dumps(document(decision=None)))
    stored(tmp_path, "5", orjson.dumps(document(decision={"label": "META", "decided_by": "meta"})))
    (found,) = read_sessions(tmp_path)
    assert (found.label, found.year, found.first_user_text) == ("MODERATE", 2026, "hi")
    assert "2.json is no session" in caplog.text
    assert "3.json is no session" in caplog.text


@pytest.mark.parametrize("part", ["train", "calibration", "test"])
def test_the_readme_of_the_data_sets_counts_right(part: str) -> None:
    paths = sorted((DATASETS / part).glob("*.jsonl"))
    labels = Counter(row.label for row in read_examples(paths))
    numbers = [len(paths), labels.total(), *(labels[label] for label in ("MODERATE", "COMPLEX", "ENRICH"))]
    numbers.append(sum(path.stat().st_size for path in paths))
    row = next(line for line in README.splitlines() if line.startswith(f"| `{part}/` |"))
    assert row.endswith("| " + " | ".join(f"{number:,}" for number in numbers) + " |")


def test_the_border_pairs_stand_in_the_page_on_routing() -> None:
    rows = [orjson.loads(line) for line in (DATASETS / "test" / "borders.jsonl").read_bytes().splitlines()]
    page = (ROOT / "docs" / "routing.md").read_text()
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        assert one["topic"] == other["topic"]
        assert one["label"] != other["label"]
        assert f"| {one['topic']} | {one['text']} | {one['label']} | {other['text']} | {other['label']} |" in page
