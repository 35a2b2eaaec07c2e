"""Dressing prompts: wrapping what is asked as people and programs wrap it, to train and to measure with.

The families are data: datasets/train/dressings.toml and, with other words, datasets/test/dressings.toml. A family has
templates; ``{ask}`` is the prompt, ``{{`` and ``}}`` are braces, and every other name is a filler, taken at random. A
family may also transform the prompt's writing, and may be ``only`` for some labels. Pure, apart from reading the file.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct, ValidationError, convert

from ai_router.learning.examples import CHECKOUT, Example, ExamplesError, packaged_dressings
from ai_router.routing.prompt import text_of
from ai_router.types import Label

_FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_PART = 4
PROSE = "prose"
"""The filler that stands for material: paragraphs that ask for nothing."""
_PUNCTUATION = re.compile(r"[.,;:!?¿¡'\"()-]")


class Family(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way of wrapping a prompt. ``only``: the labels that it keeps; empty: all."""

    templates: tuple[str, ...]
    transforms: tuple[str, ...] = ()
    only: tuple[Label, ...] = ()


class Dressings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Families by name, and the texts that stand around prompts."""

    families: Mapping[str, Family]
    fillers: Mapping[str, tuple[str, ...]]

    def dress(self, text: str, family: str, rng: random.Random) -> Dressed:
        """Wrap ``text`` in one of the family's templates."""
        found = self.families[family]
        if found.transforms:
            text = TRANSFORMS[rng.choice(found.transforms)](text, rng)
        before, after = rng.choice(found.templates).split("{ask}")
        before, after = self._filled(before, rng), self._filled(after, rng)
        return Dressed(f"{before}{text}{after}", (len(before), len(before) + len(text)))

    def split(self) -> tuple[Dressings, Dressings]:
        """Those to fit with and those to calibrate with: of each list of four or more, the fourth, eighth... item is
        for calibrating, so that confidence is measured on words that the models have not met."""
        return self._part(calibrating=False), self._part(calibrating=True)

    def _part(self, *, calibrating: bool) -> Dressings:
        def part(items: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(
                item for i, item in enumerate(items) if len(items) < _PART or (i % _PART == _PART - 1) == calibrating
            )

        families = {
            name: msgspec.structs.replace(family, templates=part(family.templates))
            for name, family in self.families.items()
        }
        return Dressings(families=families, fillers={name: part(texts) for name, texts in self.fillers.items()})

    def with_prose(self, texts: Sequence[str]) -> Dressings:
        """With more paragraphs to put around prompts; their braces are no fields."""
        plain = tuple(text.replace("{", "(").replace("}", ")") for text in texts)
        return Dressings(families=self.families, fillers={**self.fillers, PROSE: (*self.fillers[PROSE], *plain)})

    def _filled(self, template: str, rng: random.Random) -> str:
        """The template with each filler replaced, which may have fillers in it, too."""

        def fill(match: re.Match[str]) -> str:
            return self._filled(rng.choice(self.fillers[match[1]]), rng) if match[1] else match[0][0]

        return _FIELD.sub(fill, template)


@dataclass(frozen=True, slots=True)
class Dressed:
    """A wrapped prompt, and where in it the prompt stands: characters from, to."""

    text: str
    ask: tuple[int, int]


def read_dressings(path: Path) -> Dressings:
    """The families in a file. Raises ExamplesError that names what is wrong, OSError."""
    try:
        found = convert(tomllib.loads(path.read_text("utf-8")), Dressings)
    except (tomllib.TOMLDecodeError, ValidationError) as problem:
        raise ExamplesError(f"{path}: {problem}") from None
    for name, family in found.families.items():
        if unknown := set(family.transforms) - TRANSFORMS.keys():
            raise ExamplesError(f"{path}: {name}: no such transform: {', '.join(sorted(unknown))}")
        if any(template.count("{ask}") != 1 for template in family.templates):
            raise ExamplesError(f"{path}: {name}: each template must have {{ask}} in it, once")
    texts = [template for family in found.families.values() for template in family.templates]
    texts += [filler for fillers in found.fillers.values() for filler in fillers]
    if unknown := {field for text in texts for field in _FIELD.findall(text) if field} - {"ask", *found.fillers}:
        raise ExamplesError(f"{path}: no such filler: {', '.join(sorted(unknown))}")
    return found


def dressings_to_measure_with() -> Dressings:
    """Those that nothing was trained on: datasets/test/dressings.toml in a checkout, else the packaged ones' part for
    calibrating. Raises as ``read_dressings``."""
    path = CHECKOUT / "datasets" / "test" / "dressings.toml"
    return read_dressings(path) if path.exists() else read_dressings(packaged_dressings()).split()[1]


def dressed_example(example: Example, family: str, dressings: Dressings, rng: random.Random) -> Example:
    """The example with its last message dressed; as it is where the family is not for its label."""
    only = dressings.families[family].only
    last = example.messages[-1]
    if (only and example.label not in only) or last.get("role") != "user" or not isinstance(last.get("content"), str):
        return example
    dressed = dressings.dress(text_of(last), family, rng)
    messages = (*example.messages[:-1], {**last, "content": dressed.text})
    return Example(messages, example.label, example.source, example.group)


def dressed_in(family: str, examples: Sequence[Example], dressings: Dressings, seed: int = 0) -> list[Example]:
    """Each example dressed in one family. The same seed gives the same result."""
    rng = random.Random(seed)  # noqa: S311 - for measuring, not a secret
    return [dressed_example(example, family, dressings, rng) for example in examples]


def dressed_examples(examples: Sequence[Example], dressings: Dressings, seed: int) -> list[Example]:
    """Each example dressed once, in a family at random. The same seed gives the same result."""
    rng = random.Random(seed)  # noqa: S311 - for training, not a secret
    families = sorted(dressings.families)
    return [dressed_example(example, rng.choice(families), dressings, rng) for example in examples]


def _typos(text: str, rng: random.Random) -> str:
    """About one word in six with two letters swapped, one left out or one doubled."""
    return " ".join(
        _mistyped(word, rng) if len(word) > 3 and rng.random() < 1 / 6 else word for word in text.split(" ")
    )


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == 1 else word[:at] + word[at] + word[at:]


TRANSFORMS: Mapping[str, Callable[[str, random.Random], str]] = {
    "upper": lambda text, _: text.upper(),
    "lower": lambda text, _: text.lower(),
    "title": lambda text, _: text.title(),
    "no_punctuation": lambda text, _: _PUNCTUATION.sub("", text).lower(),
    "typos": _typos,
    "spaces": lambda text, rng: re.sub(" ", lambda _: " " * rng.randint(1, 3), f"\n  {text}  \n\n"),
    "stretched": lambda text, rng: f"{text.rstrip('?.!')}{rng.choice(('???', '!!!', '...', ' ??', '?!'))}",
    "emoji": lambda text, rng: f"{text} {rng.choice(('🙂', '🤔', '🚀', '❤️', '🙏🙏'))}",
}
