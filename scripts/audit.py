"""Look up known vulnerabilities of what is installed, and write what that is: ``python -m scripts.audit``.

pip-audit asks the package index for advisories about every package of requirements.txt. One that has any fails the
audit. Where the index does not answer that question, the audit says so, and has found nothing out.

build/sbom.cdx.json gets the bill of materials (CycloneDX): every package with version, address and hashes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.txt"
TOOLS = ROOT / ".venv-tools/bin"
SBOM = ROOT / "build/sbom.cdx.json"


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found out. ``vulnerable``: a line for each advisory. ``unknown``: packages nobody could say anything
    of."""

    vulnerable: Sequence[str]
    audited: int
    unknown: Sequence[str]

    def __str__(self) -> str:
        if not self.audited:
            return "NOT AUDITED: the package index has no advisories, or does not answer"
        unknown = f"; of {len(self.unknown)} nothing is known: {', '.join(self.unknown)}" if self.unknown else ""
        return "\n".join([*self.vulnerable, f"{self.audited} packages audited{unknown}"])


def read_audit(report: Mapping[str, Any]) -> Audit:
    """What pip-audit says in its JSON form."""
    packages = report.get("dependencies", [])
    known = [package for package in packages if "skip_reason" not in package]
    return Audit(
        [
            f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed_in(advisory)}"
            for package in known
            for advisory in package["vulns"]
        ],
        len(known),
        [package["name"] for package in packages if "skip_reason" in package],
    )


def fixed_in(advisory: Mapping[str, Any]) -> str:
    """The versions that do not have it."""
    return ", ".join(advisory.get("fix_versions") or ()) or "no version"


def audit(lock: Path = LOCK) -> Audit:
    """Ask about every package of a lock file."""
    command = [TOOLS / "pip-audit", "-r", lock, "--disable-pip", "--require-hashes", "-f", "json"]
    done = subprocess.run(
        [*command, "--progress-spinner", "off", "--timeout", "10"], capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        # It ends without a report where it reaches nobody.
        sys.stderr.write(done.stderr)
        return Audit((), 0, ())
    return read_audit(orjson.loads(done.stdout))


def write_sbom(path: Path = SBOM) -> None:
    """Write the bill of materials. Raises CalledProcessError if it is not valid."""
    path.parent.mkdir(exist_ok=True)
    options = ["--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--validate", "-o", path]
    subprocess.run(
        [TOOLS / "python", "-W", "ignore", TOOLS / "cyclonedx-py", "requirements", LOCK, *options], check=True
    )


if __name__ == "__main__":
    write_sbom()
    found = audit()
    sys.stdout.write(f"{found}\n{SBOM.relative_to(ROOT)} has been written\n")
    sys.exit(1 if found.vulnerable else 0)
