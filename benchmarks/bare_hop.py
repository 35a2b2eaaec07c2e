"""The least that Flask, gunicorn and requests can do: pass a plain request on. The floor for what the router adds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests
from flask import Flask, Response, request

app = Flask(__name__)
session = requests.Session()


@app.post("/v1/chat/completions")
def pass_on() -> Response:
    """The backend's answer, as it is."""
    answer = session.post(
        f"{os.environ['BARE_HOP_TO']}/v1/chat/completions",
        data=request.get_data(),
        headers={"Content-Type": "application/json"},
    )
    return Response(answer.content, status=answer.status_code, content_type="application/json")


@contextmanager
def bare_hop(url: str) -> Iterator[str]:
    """The application above, served as the router is, in front of ``url``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "72", "--keep-alive", "75"]
    process = subprocess.Popen(
        [*command, "-b", f"127.0.0.1:{port}", "benchmarks.bare_hop:app"],
        env={**os.environ, "BARE_HOP_TO": url},
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
