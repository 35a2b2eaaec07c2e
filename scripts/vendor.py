"""Write the console's libraries from their npm packages, or check those that are there.

    python -m scripts.vendor            fetch, compare with the digests in vendored.toml, write static/vendor/
    python -m scripts.vendor --check    compare the files with their digests, and with the packages where there is npm
    python -m scripts.vendor --digests  write, whatever they are, and print the digests for vendored.toml

Files are kept compressed, as they are sent. Their digests are those of what comes out.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CONSOLE = Path(__file__).parents[1] / "src" / "ai_router" / "console"
LIST = CONSOLE / "vendored.toml"
VENDOR = CONSOLE / "static" / "vendor"
LICENSES = "LICENSES.txt"
_LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt")

Entry = Mapping[str, Any]


class Mismatch(Exception):
    """Something is not what vendored.toml says."""


def entries() -> list[Entry]:
    """The files of vendored.toml."""
    return list(tomllib.loads(LIST.read_text())["file"])


def differences() -> Iterator[str]:
    """What is in static/vendor/ and should not be, or is missing, or is another file than was meant."""
    wanted = {f"{entry['to']}.gz": entry["sha256"] for entry in entries()}
    there = {path.name for path in VENDOR.iterdir()}
    for name in sorted(there - wanted.keys() - {f"{LICENSES}.gz"}):
        yield f"{name}: nobody asked for it"
    for name, digest in wanted.items():
        if name not in there:
            yield f"{name}: missing"
        elif hashlib.sha256(gzip.decompress((VENDOR / name).read_bytes())).hexdigest() != digest:
            yield f"{name}: another digest than in vendored.toml"


def made_from_packages() -> Mapping[str, bytes]:
    """Each file by its name, made from the packages, and LICENSES.txt. Raises Mismatch."""
    made: dict[str, bytes] = {}
    licenses: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        unpacked: dict[str, Path] = {}
        for entry in entries():
            name = f"{entry['package']}@{entry['version']}"
            if name not in unpacked:
                unpacked[name] = _unpack(name, entry["integrity"], Path(folder))
                licenses[name] = _license(unpacked[name])
            made[entry["to"]] = _edited(entry, (unpacked[name] / entry["from"]).read_text())
    made[LICENSES] = "\n\n".join(f"{name}\n\n{text}" for name, text in licenses.items()).encode()
    return made


def _unpack(name: str, integrity: str, folder: Path) -> Path:
    """Fetch a package and unpack it. Raises Mismatch if it is another one than was pinned."""
    target = folder / name.replace("/", "-")
    target.mkdir()
    npm = shutil.which("npm") or sys.exit("npm is missing")
    subprocess.run([npm, "pack", "--silent", "--pack-destination", str(target), name], check=True, capture_output=True)
    (archive,) = target.glob("*.tgz")
    algorithm, _, digest = integrity.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != digest:
        raise Mismatch(f"{name} has the digest {algorithm}-{found}, not {integrity}")
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    return target / "package"


def _license(package: Path) -> str:
    return next((package / name).read_text().strip() for name in _LICENSE_FILES if (package / name).exists())


def _edited(entry: Entry, text: str) -> bytes:
    for old, new in entry.get("edits", ()):
        if old not in text:
            raise Mismatch(f"{entry['to']}: {old} is not in it")
        text = text.replace(old, new, 1)
    # The packages' maps of sources are not here.
    lines = [line for line in text.splitlines() if not line.startswith("//# sourceMappingURL=")]
    return ("\n".join([*lines, *filter(None, [entry.get("append")])]) + "\n").encode()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--digests", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        found = list(differences())
        if shutil.which("npm"):
            found += [
                f"{name}: not what its package has"
                for name, made in made_from_packages().items()
                if gzip.decompress((VENDOR / f"{name}.gz").read_bytes()) != made
            ]
        else:
            print("vendor: there is no npm, so that the packages were not fetched", file=sys.stderr)  # noqa: T201
        sys.stderr.writelines(f"{line}\n" for line in found)
        return 1 if found else 0
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, made in made_from_packages().items():
        (VENDOR / f"{name}.gz").write_bytes(gzip.compress(made, 9, mtime=0))
        if arguments.digests:
            sys.stdout.write(f"{name} {hashlib.sha256(made).hexdigest()}\n")
    return 0 if arguments.digests or not list(differences()) else 1


if __name__ == "__main__":
    sys.exit(main())
