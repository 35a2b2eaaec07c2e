"""Try a list of package versions: install the router with them, send it requests, stop it.

The router gets a virtual environment of its own, in a temporary folder, with the given Python and exactly the given
packages. This script itself, its fake backends and its PostgreSQL server run in the environment for development:

    .venv/bin/python -m scripts.try_versions python3 requirements-lowest.txt

The exit status is 0 if all went well. What went wrong is raised as an error.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import orjson

from tests.fakes.personas import CHAT, DONE, says
from tests.fakes.postgres import running_postgres
from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import Plain, fake_upstream

ROOT = Path(__file__).parents[1]
PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "src", "datasets/train", "datasets/calibration")
"""What the package is built from; as in the Dockerfile."""
WORDS = ("one ", "two ", "three")
TRACES = "/v1/traces"


class Failure(Exception):
    """The router does not work with these versions."""


def main() -> None:
    """Read the command line, and try."""
    parser = argparse.ArgumentParser(prog="try_versions", description="Try the router with a list of package versions.")
    parser.add_argument("python", help="a command such as python3.13")
    parser.add_argument("requirements", type=Path, help="a complete list of packages with hashes")
    parser.add_argument("--skip-if-missing", action="store_true", help="succeed where there is no such Python")
    arguments = parser.parse_args()
    started = time.monotonic()
    what = f"{arguments.requirements} on {arguments.python}"
    python = find_python(arguments.python)
    if python is None:
        if not arguments.skip_if_missing:
            sys.exit(f"try_versions: there is no {arguments.python} that runs")
        say(f"skipped {what}: there is no {arguments.python} that runs")
        return
    with tempfile.TemporaryDirectory(prefix="ai-router-versions-") as folder:
        command = install(python, arguments.requirements, Path(folder))
        installed = time.monotonic()
        try:
            try_router(command, Path(folder))
        except (Failure, AssertionError) as failure:  # the second one is what running_router and wait_for raise
            logs = "\n".join(path.read_text() for path in Path(folder).glob("*/stderr.txt"))
            sys.exit(f"try_versions: {what}: {failure}\nThe router's log:\n{logs}")
    say(f"{what}: ok, {installed - started:.0f} s to install, {time.monotonic() - installed:.0f} s to try")


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"try_versions: {line}\n")


def find_python(name: str) -> str | None:
    """The command of a Python that runs: from PATH, or one that pyenv has installed but not activated."""
    on_path = shutil.which(name)
    if on_path and runs(on_path):
        return on_path
    pyenv, version = shutil.which("pyenv"), name.removeprefix("python")
    if not pyenv or not version:
        return None
    answer = subprocess.run([pyenv, "prefix", version], capture_output=True, text=True, check=False)
    installed = f"{answer.stdout.strip()}/bin/{name}"
    return installed if answer.returncode == 0 and runs(installed) else None


def runs(path: str) -> bool:
    """Whether it is a Python that can make virtual environments.

    pyenv leaves commands on PATH that only say that their version is not active, and Debian has packages without venv.
    """
    try:
        return subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install(python: str, requirements: Path, folder: Path) -> Path:
    """Make a virtual environment of these packages and the router; its ``ai-router`` command."""
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    pip: list[str | Path] = [
        folder / "venv/bin/pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-compile",
        "--no-deps",
    ]
    subprocess.run([*pip, "--require-hashes", "-r", requirements], check=True)
    # From a copy: setuptools would take up what an earlier build has left in the checkout.
    copy = folder / "package"
    copy.mkdir()
    for name in PACKAGE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, copy / name)
    subprocess.run([*pip, "--no-build-isolation", copy], check=True)
    return folder / "venv/bin/ai-router"


def try_router(command: Path, folder: Path) -> None:
    """Start it as it comes, and then with the extras that take part in a request."""
    with fake_upstream() as upstream:
        upstream.on(CHAT, says(*WORDS))
        upstream.on(TRACES, Plain({}))
        backends = {"PRIMARY_URL": upstream.url}
        exchange(command, folder / "plain", backends)
        with running_postgres(folder / "postgres") as database:
            traced = {"TRACING": "on", "OTEL_EXPORTER_OTLP_ENDPOINT": upstream.url}
            exchange(command, folder / "extras", {**backends, **traced, "DATABASE_URL": database})
        upstream.wait_for(TRACES)


def exchange(command: Path, folder: Path, settings: dict[str, str]) -> None:
    """A plain request, a streamed one, a look at the usage, and a stop while an idle client is still connected."""
    with running_router(folder, command=[command, "serve"], **settings) as router, closing(router.connection()) as idle:
        idle.request("GET", "/health/live")
        idle.getresponse().read()
        expect_plain_answer(router)
        expect_stream(router)
        expect_usage(router)
        expect_clean_stop(router)
    if "Traceback" in (folder / "stderr.txt").read_text():
        raise Failure("the router wrote a traceback")


def expect_plain_answer(router: RunningRouter) -> None:
    """The backend's text, whole."""
    status, _, body = router.chat("hello")
    if status != 200 or orjson.loads(body)["choices"][0]["message"]["content"] != "".join(WORDS):
        raise Failure(f"a plain request was answered with {status} {body!r}")


def expect_stream(router: RunningRouter) -> None:
    """Each portion of the backend's text, and the end mark."""
    status, _, body = router.chat("hello", stream=True)
    if status != 200 or not body.endswith(DONE) or any(word.encode() not in body for word in WORDS):
        raise Failure(f"a streamed request was answered with {status} {body!r}")


def expect_usage(router: RunningRouter) -> None:
    """Both requests are in the database."""

    def both_are_there() -> bool:
        status, _, body = router.get("/api/usage")
        return status == 200 and orjson.loads(body)["total"]["requests"] == 2

    # The database is opened in the background, and until then the answer is 503.
    if not eventually(both_are_there, 30.0):
        raise Failure(f"/api/usage does not show two requests: {router.get('/api/usage')}")


def expect_clean_stop(router: RunningRouter) -> None:
    """SIGTERM, and exit status 0 in time."""
    try:
        status = router.stop(signal.SIGTERM)
    except subprocess.TimeoutExpired as hangs:
        router.process.kill()
        raise Failure("the router does not stop on SIGTERM") from hangs
    if status != 0:
        raise Failure(f"the router stopped with exit status {status}")


if __name__ == "__main__":
    main()
