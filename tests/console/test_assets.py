"""The console's files: small, from here only, and what the packages have that they were taken from."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from ai_router.console.assets import PAGE, STATIC, Assets
from scripts.vendor import LICENSES, differences, entries

INITIAL_BYTES, ALL_BYTES = 60 << 10, 120 << 10
"""Of JavaScript, compressed."""
IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*["']([^"']+)["']""")
LAZY_IMPORT = re.compile(r"""\bimport\(\s*["']([^"']+)["']\s*\)""")

ASSETS = Assets()


def text(name: str) -> str:
    asset = ASSETS.find(name)
    assert asset is not None, name
    return gzip.decompress(asset.body).decode()


def scripts() -> list[str]:
    paths = STATIC.rglob("*.js*")
    return sorted(path.relative_to(STATIC).as_posix().removesuffix(".gz") for path in paths)


def resolved(importer: str, name: str) -> str:
    return (Path("/") / Path(importer).parent / name).resolve().relative_to("/").as_posix()


def imports(name: str) -> set[str]:
    return {resolved(name, found) for found in IMPORT.findall(text(name))}


def initial() -> set[str]:
    """The modules that are loaded with the page."""
    found: set[str] = set()
    waiting = ["app.js"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += imports(name)
    return found


def size(names: set[str] | list[str]) -> int:
    return sum(len(asset.body) for name in names if (asset := ASSETS.find(name)))


def test_the_page_loads_little_javascript() -> None:
    assert size(initial()) <= INITIAL_BYTES
    assert size(scripts()) <= ALL_BYTES


def test_the_page_names_all_modules_that_it_loads_so_that_none_waits_for_another() -> None:
    named = set(re.findall(r'rel="modulepreload" href="assets/[0-9a-f]{16}/([^"]+)"', text(PAGE)))
    assert named == initial() - {"app.js"}


@pytest.mark.parametrize("name", scripts())
def test_modules_import_each_other_by_relative_paths_that_exist(name: str) -> None:
    for found in [*IMPORT.findall(text(name)), *LAZY_IMPORT.findall(text(name))]:
        assert found.startswith("./"), found
        assert ASSETS.find(resolved(name, found)) is not None, found


def test_the_page_has_no_script_and_no_style_in_it() -> None:
    page = text(PAGE)
    assert re.findall(r"<script[^>]*>", page) == [f'<script type="module" src="assets/{ASSETS.version}/app.js">']
    assert "<style" not in page
    assert not re.search(r"\s(style|on\w+)=", page)


@pytest.mark.parametrize("name", ["index.html", "style.css", *(n for n in scripts() if not n.startswith("vendor/"))])
def test_nothing_is_named_that_is_elsewhere(name: str) -> None:
    assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}[^\"'`\s]*", text(name)) == []


def test_each_library_is_the_one_that_was_pinned() -> None:
    assert list(differences()) == []


def test_each_package_has_its_licence_here() -> None:
    licences = text(f"vendor/{LICENSES}")
    assert [entry["package"] for entry in entries() if f"{entry['package']}@{entry['version']}" not in licences] == []


def test_a_file_that_changes_gives_all_of_them_another_address(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("assets/{{version}}/app.js")
    (tmp_path / "app.js").write_text("1")
    before = Assets(tmp_path).version
    (tmp_path / "app.js").write_text("2")
    assert Assets(tmp_path).version != before


def test_a_path_that_climbs_out_finds_nothing() -> None:
    assert ASSETS.find("../vendored.toml") is None
