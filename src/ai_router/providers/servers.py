"""Servers of models, found by asking the ports where they listen by default.

Facts: Ollama (docs/api.md, /api/version, /api/tags, /api/ps), LM Studio (REST API v0, /api/v0/models), llama-swap
(/running), llama.cpp (tools/server, meta of /v1/models); the ports are each one's default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson

from ai_router.errors import Source, UpstreamError
from ai_router.http.calls import Timeouts, UpstreamRequest
from ai_router.http.session import BackendSession

PORTS = (8000, 8001, 8002, 8080, 8081, 8082, 11434, 1234, 30000)
"""Where vLLM, llama.cpp and llama-swap listen and the next two, Ollama, LM Studio and SGLang."""
_CONNECT_S = 1.0
_TOTAL_S = 3.0
_MAX_BODY_BYTES = 4 << 20
_REFUSED = (401, 403)

OLLAMA, LM_STUDIO, LLAMA_SWAP, LLAMA_CPP = "Ollama", "LM Studio", "llama-swap", "llama.cpp"
UNKNOWN = "a server with OpenAI's API"
LOCKED = "a server that asks for a key"
_OWNERS = {"vllm": "vLLM", "llamacpp": LLAMA_CPP, "llama-swap": LLAMA_SWAP, "sglang": "SGLang"}
"""What ``owned_by`` of a model says of the server."""
_OURS = "ai-router"
_LOADS_ON_DEMAND = frozenset({OLLAMA, LM_STUDIO, LLAMA_SWAP})

_NO_CHAT = re.compile(
    r"embed|rerank|colbert|minilm|labse|nomic|mxbai|sentence-transformers|\b(?:bge|e5|gte|jina)\b"  # vectors
    r"|whisper|parakeet|kokoro|\btts\b"  # speech
    r"|diffusion|sdxl|\bflux\b|\bclip\b"  # pictures
    r"|guard|moderation",
    re.IGNORECASE,
)
_SIZE = re.compile(r"(?<![a-z\d.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z\d])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FoundModel:
    """``billions``: of parameters; None: not known. ``loaded``: whether it is in memory; None: not known."""

    name: str
    billions: float | None
    loaded: bool | None


@dataclass(frozen=True, slots=True)
class FoundServer:
    """``url`` is without /v1. ``models``: those that chat and run there, by name; none where a key is asked for."""

    url: str
    kind: str
    models: Sequence[FoundModel]

    @property
    def loads_on_demand(self) -> bool:
        """A call may load its model, and put another out of memory for it."""
        return self.kind in _LOADS_ON_DEMAND


def find_servers(urls: Sequence[str]) -> Sequence[FoundServer]:
    """Ask all of ``urls`` at once, and return the servers of models among them, in the order of ``urls``."""
    with BackendSession() as session, ThreadPoolExecutor(max_workers=len(urls) or 1) as threads:
        found = threads.map(lambda url: _Probe(session, url).server(), urls)
        return [server for server in found if server is not None]


def server_at(session: BackendSession, url: str) -> FoundServer | None:
    """The server of models at one address; None: there is none, or it does not answer."""
    return _Probe(session, url).server()


def size_in(name: str) -> float | None:
    """How many billions of parameters a model's name says: 30 for qwen3-30b-a3b, 56 for 8x7b; None: it does not.

    >>> size_in("qwen3:1.7b"), size_in("smollm2-135m"), size_in("gpt-oss")
    (1.7, 0.135, None)
    """
    if (found := _SIZE.search(name)) is None:
        return None
    times, number, unit = found.groups()
    return round(int(times or 1) * float(number) / (1 if unit in "bB" else 1000), 6)


class _Probe:
    """Asks one address what it is."""

    def __init__(self, session: BackendSession, url: str) -> None:
        self._session = session
        self._url = url

    def server(self) -> FoundServer | None:
        status, answer = self._get("/v1/models")
        if status in _REFUSED:
            return FoundServer(self._url, LOCKED, ())
        entries = _entries(answer, "data")
        owners = _texts(entries, "owned_by")
        if status != 200 or not isinstance(answer, dict) or "data" not in answer or _OURS in owners:
            return None
        kind = next((_OWNERS[owner] for owner in owners if owner in _OWNERS), None)
        if kind == LLAMA_CPP and self._get("/props")[0] in _REFUSED:
            # It lists its models for everybody, and answers only those who have its key.
            return FoundServer(self._url, LOCKED, ())
        if kind is None and (told := self._ollama() or self._lm_studio()) is not None:
            return told
        return FoundServer(self._url, kind or UNKNOWN, _sorted(_plain_models(entries, self._loaded(kind, entries))))

    def _ollama(self) -> FoundServer | None:
        if "version" not in self._object("/api/version") or "models" not in (tags := self._object("/api/tags")):
            return None
        loaded = self._named("/api/ps", "models", "name")
        return FoundServer(self._url, OLLAMA, _sorted(_ollama_models(_entries(tags, "models"), loaded)))

    def _lm_studio(self) -> FoundServer | None:
        answer = self._object("/api/v0/models")
        if "data" not in answer:
            return None
        chats = [entry for entry in _entries(answer, "data") if entry.get("type") in ("llm", "vlm")]
        loaded = _texts([entry for entry in chats if entry.get("state") == "loaded"], "id")
        return FoundServer(self._url, LM_STUDIO, _sorted(_plain_models(chats, loaded)))

    def _loaded(self, kind: str | None, entries: Sequence[dict[str, Any]]) -> set[str] | None:
        """The models in memory; None: it is not known."""
        if kind == LLAMA_SWAP:
            return self._named("/running", "running", "model")
        # vLLM, SGLang and llama.cpp hold what they list; but a llama.cpp with several models loads them on demand.
        return None if kind is None or (kind == LLAMA_CPP and len(entries) > 1) else _texts(entries, "id")

    def _named(self, path: str, entries: str, name: str) -> set[str] | None:
        """The names in a list of models; None where the server does not give it."""
        status, answer = self._get(path)
        return _texts(_entries(answer, entries), name) if status == 200 and isinstance(answer, dict) else None

    def _object(self, path: str) -> Mapping[str, Any]:
        _, answer = self._get(path)
        return answer if isinstance(answer, dict) else {}

    def _get(self, path: str) -> tuple[int, Any]:
        """The status and the JSON value of the answer; 0 and None without one."""
        limits = Timeouts(connect=_CONNECT_S, total=_TOTAL_S, idle=_TOTAL_S)
        asked = UpstreamRequest(Source(self._url, ""), "GET", self._url + path, limits)
        try:
            response = self._session.fetch(asked, _MAX_BODY_BYTES)
            return response.status, orjson.loads(response.body)
        except UpstreamError:
            return 0, None
        except orjson.JSONDecodeError:
            return response.status, None


def _entries(answer: Any, name: str) -> list[dict[str, Any]]:
    entries = answer.get(name) if isinstance(answer, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _texts(entries: Sequence[dict[str, Any]], name: str) -> set[str]:
    """The values of a field that are texts."""
    return {value for entry in entries if isinstance(value := entry.get(name), str)}


def _plain_models(entries: Sequence[dict[str, Any]], loaded: set[str] | None) -> Iterator[FoundModel]:
    for entry in entries:
        name, meta = entry.get("id"), entry.get("meta")
        parameters = meta.get("n_params") if isinstance(meta, dict) else None
        if isinstance(name, str) and not _NO_CHAT.search(name):
            known = parameters / 1e9 if isinstance(parameters, int) and parameters > 0 else size_in(name)
            yield FoundModel(name, known, None if loaded is None else name in loaded)


def _ollama_models(entries: Sequence[dict[str, Any]], loaded: set[str] | None) -> Iterator[FoundModel]:
    for entry in entries:
        name, details = entry.get("name"), entry.get("details")
        details = details if isinstance(details, dict) else {}
        # A model with remote_host runs in Ollama's cloud, whatever the address that is asked.
        if not isinstance(name, str) or entry.get("remote_host") or _NO_CHAT.search(name):
            continue
        if "bert" not in str(details.get("family")):
            size = size_in(str(details.get("parameter_size"))) or size_in(name)
            yield FoundModel(name, size, None if loaded is None else name in loaded)


def _sorted(models: Iterable[FoundModel]) -> Sequence[FoundModel]:
    return sorted(models, key=lambda model: model.name)
