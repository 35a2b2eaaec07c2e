"""The image and the compose file: what can be checked without a Docker engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ai_router.config_docs import documented_settings
from ai_router.config_loading import load_settings
from scripts.try_versions import PACKAGE
from tests.fakes.proxies import is_installed
from tests.fakes.router import clean_environment

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
ROUTERS = ["router", "router-embedded", "router-scaled"]
SETTINGS = {setting.env for setting in documented_settings()}


def flags(service: str) -> dict[str, str]:
    pairs = (flag.removeprefix("--").partition("=") for flag in SERVICES[service]["command"])
    return {name: value for name, _, value in pairs}


def test_the_base_image_is_pinned_by_digest() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


def test_the_image_runs_as_a_user_and_checks_its_health() -> None:
    last_stage = DOCKERFILE.rpartition("FROM ")[2]
    assert "USER ai-router" in last_stage
    assert "HEALTHCHECK" in last_stage
    assert "/health/live" in last_stage


def test_the_image_installs_hashed_packages_only() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert installs == ["--require-hashes --no-deps -r requirements.txt", "--no-deps --no-build-isolation ."]


def test_the_image_and_the_trial_of_versions_are_built_from_all_folders_that_the_package_takes_files_from() -> None:
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    copied = dict(re.findall(r"^COPY (\S+) \./(\S+)$", DOCKERFILE, re.MULTILINE))
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for folder in folders:
        assert any(copied.get(place) == place and place in allowed for place in (folder, folder.split("/")[0])), folder
        assert any(place in PACKAGE for place in (folder, folder.split("/")[0])), "scripts/try_versions.py"
    assert "datasets" not in copied, "datasets/test is not part of the package"


@pytest.mark.parametrize("service", ROUTERS)
def test_a_router_is_read_only_without_privileges_and_asks_for_a_key(service: str) -> None:
    router = SERVICES[service]
    assert router["read_only"] is True
    assert router["cap_drop"] == ["ALL"]
    assert router["environment"]["AI_ROUTER_API_KEYS"].startswith("${AI_ROUTER_API_KEYS:?set AI_ROUTER_API_KEYS")


@pytest.mark.parametrize("service", ROUTERS)
def test_the_variables_of_a_router_are_settings(service: str) -> None:
    assert set(SERVICES[service]["environment"]) - {"TZ"} <= SETTINGS


OF_THE_SERVICE = {"ROUTER_URL", "ROUTER_MODEL", "PRIMARY_URL", "PRIMARY_MODEL"}
"""Settings that say what stands beside the router: the compose file knows that."""


@pytest.mark.parametrize("service", ROUTERS)
def test_every_setting_reaches_the_router_in_its_container(service: str) -> None:
    offered = set(re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert offered - OF_THE_SERVICE <= set(SERVICES[service]["environment"])
    assert SERVICES[service]["environment"]["DATA_DIR"] == "/data"


@pytest.mark.parametrize("service", ROUTERS)
def test_a_router_cannot_take_the_whole_machine(service: str) -> None:
    assert SERVICES[service]["mem_limit"]
    assert SERVICES[service]["pids_limit"] >= 512


@pytest.mark.parametrize(("service", "share"), [("classifier", "0.14"), ("primary", "0.65")])
def test_both_models_share_one_gpu(service: str, share: str) -> None:
    assert flags(service)["gpu-memory-utilization"] == share
    assert flags(service)["max-num-seqs"] == "8"
    assert SERVICES[service]["ipc"] == "host"
    health = SERVICES[service]["healthcheck"]
    assert health["test"] == ["CMD", "curl", "-f", "http://localhost:8000/health"]
    assert health["start_period"] == "600s"


def test_the_primary_s_parsers_are_those_of_its_model() -> None:
    assert flags("primary")["reasoning-parser"] == "nemotron_v3"
    assert flags("primary")["tool-call-parser"] == "qwen3_coder"


def test_the_embedded_profile_needs_no_gpu() -> None:
    assert SERVICES["router-embedded"]["profiles"] == ["embedded"]
    assert "deploy" not in SERVICES["router-embedded"]
    assert "PRIMARY_URL" not in SERVICES["router-embedded"]["environment"]


def test_the_scaled_routers_share_their_state_and_stand_behind_one_door() -> None:
    router, front = SERVICES["router-scaled"], SERVICES["nginx"]
    assert router["ports"] == []
    assert router["environment"]["REDIS_URL"] == "redis://valkey:6379/0"
    assert set(router["depends_on"]) == {"valkey", "postgres"}
    assert {SERVICES[name]["profiles"][0] for name in ("router-scaled", "nginx", "valkey", "postgres")} == {"scale"}
    assert front["ports"] == ["${PORT:-8080}:8080"]


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    """With what Debian's nginx does not know yet, and Docker's name server, put aside."""
    if not is_installed("nginx"):
        pytest.skip("NGINX WAS NOT TRIED: it is not installed (a Debian package of that name)")
    written = (ROOT / "deploy/nginx/ai-router.conf").read_text()
    assert "proxy_buffering off;" in written
    known = (
        written.replace(" resolve ", " ").replace("router-scaled:", "127.0.0.1:").replace("resolver ", "# resolver ")
    )
    (tmp_path / "router.conf").write_text(known.replace("listen 8080", "listen 127.0.0.1:8080"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {tmp_path}/router.conf; }}"
    )
    command = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    tried = subprocess.run(command, env=clean_environment(PATH="/usr/sbin:/usr/bin"), capture_output=True, check=False)
    assert tried.returncode == 0, tried.stderr


MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/ai-router.yaml").read_text()))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: str(manifest["kind"]))
def test_kubernetes_knows_what_the_manifests_say(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.34", strict=True)


def manifest_of(kind: str) -> Any:
    return next(manifest for manifest in MANIFESTS if manifest["kind"] == kind)


def test_the_pods_settings_are_settings_and_their_stop_is_long_enough() -> None:
    config, secret = manifest_of("ConfigMap")["data"], manifest_of("Secret")["stringData"]
    assert set(config) | set(secret) <= SETTINGS
    settings = load_settings({name: value for name, value in {**config, **secret}.items() if value}, dotenv=None)
    pod = manifest_of("Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > settings.drain_s + settings.request_timeout_s
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    probes = {name: pod["containers"][0][f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")}
    assert probes == {"readiness": "/health/ready", "liveness": "/health/live"}
    # Out of the endpoints before it refuses.
    readiness = pod["containers"][0]["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < settings.drain_s


def test_the_unit_of_systemd_gives_streams_the_time_to_end() -> None:
    unit = (ROOT / "deploy/systemd/ai-router.service").read_text()
    settings = load_settings({}, dotenv=None)
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert found
    assert int(found[1]) > settings.drain_s + settings.request_timeout_s
    assert "ExecReload=/opt/ai-router/.venv/bin/ai-router reload" in unit


def compose_client() -> list[str] | None:
    """``docker compose`` or ``docker-compose``, whichever is there."""
    if docker := shutil.which("docker"):
        answer = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
        if answer.returncode == 0:
            return [docker, "compose"]
    found = shutil.which("docker-compose")
    return [found] if found else None


def compose_config(**environment: str) -> subprocess.CompletedProcess[str]:
    client = compose_client()
    if client is None:
        pytest.skip("no compose client on this machine; the file's content is checked by the tests above")
    return subprocess.run(
        [*client, "config"], cwd=ROOT, env=clean_environment(**environment), capture_output=True, text=True, check=False
    )


def test_a_compose_client_accepts_the_file() -> None:
    answer = compose_config(AI_ROUTER_API_KEYS="k")
    assert answer.returncode == 0, answer.stderr


def test_without_a_key_compose_says_which_one_it_wants() -> None:
    answer = compose_config()
    assert answer.returncode != 0
    assert "set AI_ROUTER_API_KEYS to one or more keys" in answer.stderr
