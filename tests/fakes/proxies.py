"""A real nginx or HAProxy in front of several routers; Debian's packages."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.router import eventually, free_port

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream routers {{
{servers}
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://routers;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 600s
    timeout server 600s
frontend front
    bind 127.0.0.1:{port}
    default_backend routers
backend routers
    option httpchk GET /health/ready
    default-server inter 200ms fall 1 rise 1
{servers}
"""


@contextmanager
def running_proxy(kind: str, folder: Path, ports: Sequence[int]) -> Iterator[int]:
    """The port of ``nginx`` or ``haproxy``, which passes requests on to these."""
    folder.mkdir(parents=True)
    port, config = free_port(), folder / "proxy.conf"
    if kind == "nginx":
        servers = "\n".join(f"        server 127.0.0.1:{one} max_fails=0;" for one in ports)
        config.write_text(NGINX.format(folder=folder, port=port, servers=servers))
        command = ["nginx", "-c", str(config), "-p", str(folder)]
    else:
        servers = "\n".join(f"    server router{one} 127.0.0.1:{one} check" for one in ports)
        config.write_text(HAPROXY.format(port=port, servers=servers))
        command = ["haproxy", "-f", str(config)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        assert eventually(lambda: _listens(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "output").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def is_installed(kind: str) -> bool:
    """Whether this proxy is on this machine."""
    return shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is not None


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
