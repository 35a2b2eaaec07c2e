"""What pyproject.toml allows and what is locked agree."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
RUN = [*PROJECT["dependencies"], *(ROOT / "requirements/runtime.in").read_text().splitlines()]
IN_A_REQUEST = [*RUN, *EXTRAS["postgres"], *EXTRAS["otel"]]
INSTALLED = [*IN_A_REQUEST, *EXTRAS["embedded"], *EXTRAS["learn"]]
EVERYTHING = [*INSTALLED, *EXTRAS["encoder"], *EXTRAS["dev"]]
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-lowest.txt")


def requirements(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def entries(lock: str) -> list[str]:
    """Each with the lines that go on with it."""
    text = "\n".join(line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#"))
    return re.split(r"\n(?=\S)", text.strip())


def locked(*locks: str) -> dict[str, list[Version]]:
    """The versions of each package: one, or one for each range of Python versions."""
    versions: dict[str, list[Version]] = defaultdict(list)
    for entry in (entry for lock in locks for entry in entries(lock)):
        name, _, version = entry.split(maxsplit=1)[0].partition("==")
        versions[canonicalize_name(name)].append(Version(version))
    return versions


def lower_bound(requirement: Requirement) -> str:
    (bound,) = [one.version for one in requirement.specifier if one.operator == ">="]
    return bound


@pytest.mark.parametrize(
    ("wanted", "locks"),
    [
        (INSTALLED, ["requirements.txt"]),
        (EVERYTHING, ["requirements.txt", "requirements-dev.txt"]),
        (IN_A_REQUEST, ["requirements-lowest.txt"]),
    ],
    ids=["installed", "development", "lowest"],
)
def test_every_dependency_is_locked_within_its_range(wanted: list[str], locks: list[str]) -> None:
    versions = locked(*locks)
    for requirement in requirements(wanted):
        found = versions[canonicalize_name(requirement.name)]
        assert found, f"{requirement} is not in {locks}: run 'make lock'"
        assert all(version in requirement.specifier for version in found), (str(requirement), found)


def test_the_lowest_versions_are_the_lower_bounds() -> None:
    versions = locked("requirements-lowest.txt")
    for requirement in requirements(IN_A_REQUEST):
        bound = Version(lower_bound(requirement)).release
        # 0.7 was never released as 0.7.0: what begins with the bound is the lowest there is.
        found = [version.release[: len(bound)] for version in versions[canonicalize_name(requirement.name)]]
        assert found == [bound], str(requirement)


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in requirements(EVERYTHING):
        assert lower_bound(requirement), str(requirement)


@pytest.mark.parametrize(
    "refused", ["gunicorn==26.1.0", "gunicorn==26.2.0", "gunicorn==27.0.0", "gunicorn==27.1.0", "urllib3==3.0.0"]
)
def test_versions_that_cannot_work_are_refused(refused: str) -> None:
    name, _, version = refused.partition("==")
    (allowed,) = [requirement for requirement in requirements(RUN) if requirement.name == name]
    assert Version(version) not in allowed.specifier


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_of_a_lock_is_one_version_with_hashes(lock: str) -> None:
    for entry in entries(lock):
        first, *rest = entry.replace(" \\\n", "\n").splitlines()
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", first), entry
        assert rest, first
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in rest), entry


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_says_how_it_is_made_and_installed(lock: str) -> None:
    first = (ROOT / lock).read_text().splitlines()[0]
    assert first == "# Written by 'make lock'; do not edit. Complete: install with --require-hashes --no-deps."
