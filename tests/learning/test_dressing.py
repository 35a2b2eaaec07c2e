"""Dressing prompts: templates, fillers and transforms from a file, the same for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ai_router.learning.dressing import (
    TRANSFORMS,
    Dressings,
    dressed_examples,
    dressed_in,
    dressings_to_measure_with,
    read_dressings,
)
from ai_router.learning.examples import Example, ExamplesError, packaged_dressings
from ai_router.types import Label

ROOT = Path(__file__).parents[2]
TRAIN = read_dressings(ROOT / "datasets" / "train" / "dressings.toml")
TEST = read_dressings(ROOT / "datasets" / "test" / "dressings.toml")


def example(text: str, label: Label = Label.MODERATE) -> Example:
    return Example(({"role": "user", "content": text},), label, "test", "test/0")


def read(tmp_path: Path, text: str) -> Dressings:
    path = tmp_path / "dressings.toml"
    path.write_text(text)
    return read_dressings(path)


def test_a_template_is_filled_and_says_where_the_prompt_stands(tmp_path: Path) -> None:
    made = read(
        tmp_path,
        '[families.a]\ntemplates = ["{{{hello}}} {ask}!"]\n[fillers]\nhello = ["hi {name}"]\nname = ["Ann"]',
    )
    dressed = made.dress("why {x}?", "a", random.Random(0))
    assert dressed.text == "{hi Ann} why {x}?!"
    assert dressed.text[slice(*dressed.ask)] == "why {x}?"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("families = 3", "Expected `object`"),
        ('[families.a]\ntemplates = ["{nobody} {ask}"]\n[fillers]', "no such filler: nobody"),
        ('[families.a]\ntemplates = ["no prompt"]\n[fillers]', "a: each template must have {ask} in it, once"),
        ('[families.a]\ntemplates = ["{ask}"]\ntransforms = ["rot13"]\n[fillers]', "a: no such transform: rot13"),
        ("[families", "dressings.toml: "),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ExamplesError) as raised:
        read(tmp_path, text)
    assert problem in str(raised.value)


def test_the_same_seed_dresses_alike_and_another_does_not() -> None:
    prompts = [example(f"what is {number}") for number in range(40)]
    assert dressed_examples(prompts, TRAIN, 1) == dressed_examples(prompts, TRAIN, 1)
    assert dressed_examples(prompts, TRAIN, 1) != dressed_examples(prompts, TRAIN, 2)


def test_only_the_last_message_is_dressed_and_the_label_stays() -> None:
    before = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"})
    talk = Example((*before, {"role": "user", "content": "is it far?"}), Label.ENRICH, "talk", "talk/3")
    (dressed,) = dressed_in("colon_please", [talk], TEST)
    assert dressed.messages == (*before, {"role": "user", "content": "Please: is it far?"})
    assert (dressed.label, dressed.source, dressed.group) == (talk.label, talk.source, talk.group)


def test_a_family_for_some_labels_leaves_the_others_alone() -> None:
    news = example("who won", Label.ENRICH)
    assert dressed_in("material_behind", [news], TRAIN) == [news]
    assert dressed_in("material_behind", [example("sum this up")], TRAIN) != [example("sum this up")]


@pytest.mark.parametrize("transform", sorted(TRANSFORMS))
def test_a_transform_keeps_most_letters(transform: str) -> None:
    text = "Why do cats purr, and how loud are they really?"
    written = TRANSFORMS[transform](text, random.Random(2))
    assert len(set(text.lower()) - set(written.lower())) <= 2


def test_fitting_and_calibrating_share_no_long_list() -> None:
    fitting, calibrating = TRAIN.split()
    for name, texts in TRAIN.fillers.items():
        if len(texts) >= 4:
            assert not set(fitting.fillers[name]) & set(calibrating.fillers[name]), name
            assert set(fitting.fillers[name]) | set(calibrating.fillers[name]) == set(texts)


def test_nothing_that_is_measured_with_was_trained_on() -> None:
    def long_texts(dressings: Dressings) -> set[str]:
        return {text for texts in dressings.fillers.values() for text in texts if len(text) > 30}

    assert not long_texts(TRAIN) & long_texts(TEST)


def test_a_checkout_is_measured_with_the_test_s_dressings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert dressings_to_measure_with() == TEST
    monkeypatch.setattr("ai_router.learning.dressing.CHECKOUT", tmp_path)
    assert dressings_to_measure_with() == read_dressings(packaged_dressings()).split()[1]
