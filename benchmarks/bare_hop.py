"""The least that Flask, gunicorn and requests can do: pass a request on, plain or streamed. The router's floor."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from flask import Flask, Response, request

from benchmarks.rig import ROOT, Server, free_port, process

app = Flask(__name__)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1024))


@app.post("/v1/chat/completions")
def pass_on() -> Response:
    """The backend's answer, as it is."""
    body = request.get_data()
    stream = b'"stream":true' in body
    answer = session.post(
        f"{os.environ['BARE_HOP_TO']}/v1/chat/completions",
        data=body,
        headers={"Content-Type": "application/json"},
        stream=stream,
    )
    content = answer.iter_content(chunk_size=None) if stream else answer.content
    return Response(content, status=answer.status_code, content_type=answer.headers["Content-Type"])


@contextmanager
def bare_hop(url: str, folder: Path, threads: int = 72, workers: int = 1) -> Iterator[Server]:
    """The application above, served as the router is, in front of ``url``."""
    port = free_port()
    gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", str(threads), "--keep-alive", "75"]
    more = ["-w", str(workers), "--worker-connections", "4096", "--backlog", "4096"]
    command = [*gunicorn, *more, "-b", f"127.0.0.1:{port}", "benchmarks.bare_hop:app"]
    environment = {**os.environ, "BARE_HOP_TO": url, "PYTHONPATH": str(ROOT)}
    with process(command, port, environment, folder) as server:
        yield server
