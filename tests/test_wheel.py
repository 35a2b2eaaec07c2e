"""The wheel: built, installed into a virtual environment of its own, and run there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from ai_router.routing.head.store import packaged_slow_models, unpack_head
from tests.fakes.router import clean_environment

ROOT = Path(__file__).parents[1]
DATASETS = ROOT / "datasets"
PACKAGED = ("train", "calibration")
KEEP_EVERY = 40
"""Learning from all examples takes minutes of one core; from every fortieth, seconds."""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout: an earlier build's leftovers (build/lib) would get into the wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "datasets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", out, source)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it.

    The dependencies are those of the environment that runs the tests. Its editable install of this checkout is out of
    reach, because Python reads no .pth file in a folder that was itself added by a .pth file.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages(folder) / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return folder


def site_packages(environment: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(environment)}))


def test_the_wheel_has_the_training_and_calibration_examples_and_no_test_set(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if "datasets/" in name}
    examples = [path for part in PACKAGED for path in (DATASETS / part).glob("*.*")]
    assert packed == {f"ai_router/{path.relative_to(ROOT)}": path.read_bytes() for path in examples}


def test_the_wheel_has_every_file_of_the_source(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not re.match(r"ai_router/datasets/|[^/]*\.dist-info/", name)}
    source = ROOT / "src"
    files = {path.relative_to(source) for path in source.glob("ai_router/**/*") if path.is_file()}
    assert packed == {str(path) for path in files if "__pycache__" not in path.parts}


def test_learn_runs_from_the_wheel_on_the_examples_in_it(environment: Path, tmp_path: Path) -> None:
    packaged = sorted((site_packages(environment) / "ai_router" / "datasets").glob("*/*.jsonl"))
    rows = sum(thin_out(path) for path in packaged)
    (tmp_path / "mine.jsonl").write_text('{"text": "hello there", "label": "MODERATE"}\n')
    learned = subprocess.run(
        [environment / "bin" / "ai-router", "learn", "--from", "mine.jsonl", "--out", "head.npz"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert learned.returncode == 0, learned.stderr
    counts = re.search(r"fitted on (\d+) examples in \d+ s; of (\d+) others", learned.stdout)
    assert counts, learned.stdout
    assert sum(map(int, counts.groups())) == rows + 1
    head = unpack_head((tmp_path / "head.npz").read_bytes(), packaged_slow_models())
    examples = {path.stem for part in PACKAGED for path in (DATASETS / part).glob("*.jsonl")}
    assert set(head.metadata["sources"]) == {*examples, "mine"}


def thin_out(path: Path) -> int:
    """Leave every KEEP_EVERYth line of a file; returns how many these are."""
    lines = path.read_text().splitlines(keepends=True)[::KEEP_EVERY]
    path.write_text("".join(lines))
    return len(lines)
