"""The values that settings have, and how each is read from a variable's text.

A reader takes the text as it stands in the environment or in .env, without white space around it, and returns the
value. Its ValueError has the rest of a sentence that begins with the variable's name: "must be on or off, not 'x'".
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import PlainValidator, SkipValidation

_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})")

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
"""Also those of extensions and desktop programs: chrome-extension://..., app://obsidian.md."""


class SettingsError(ValueError):
    """A setting that cannot work. The message is one line and starts with the setting's name."""


class ClassifierMode(StrEnum):
    """How the classifier model is asked."""

    CONSTRAINED = "constrained"
    REASONING = "reasoning"
    DECISION = "decision"
    OFF = "off"


class SpeculationMode(StrEnum):
    """When the primary is called while the classifier still thinks."""

    AUTO = "auto"
    ALWAYS = "always"
    OFF = "off"


class LogFormat(StrEnum):
    """What a line of the log is."""

    PLAIN = "plain"
    JSON = "json"


class UnknownModel(StrEnum):
    """What becomes of a request for a model that nobody knows."""

    NOT_FOUND = "404"
    AUTO = "auto"


class SessionBodies(StrEnum):
    """What session files keep of what was said."""

    FULL = "full"
    REDACTED = "redacted"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class MaxTokensPolicy:
    """What happens to a client's max_tokens on its way to the primary: ``strip``, ``pass`` or ``add`` extra tokens.

    ``auto`` adds for a model that thinks, or may do so: it would spend a small limit on that and answer nothing.
    """

    kind: str
    extra: int = 0


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The reader of a whole number from ``low`` to ``high``, both included."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ValueError(f"must be a whole number, not {text!r}") from None
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}, not {number}")
        return number

    return read


def seconds(text: str) -> float:
    """More than 0, at most a day."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"must be a number of seconds, not {text!r}") from None
    if not 0 < number <= 86_400:
        raise ValueError(f"must be more than 0 and at most 86400 seconds, not {text}")
    return number


def pause(text: str) -> float:
    """From 0 seconds to an hour."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"must be a number of seconds, not {text!r}") from None
    if not 0 <= number <= 3600:
        raise ValueError(f"must be from 0 to 3600 seconds, not {text}")
    return number


def workers(text: str) -> int:
    """A whole number from 1 to 64, or ``auto``: as many as this process has processors, at most 64."""
    if text.lower() == "auto":
        return min(_processors(), 64)
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise ValueError(f"must be auto, or a whole number from 1 to 64, not {text!r}")
    return int(text)


def _processors() -> int:
    """How many this process may use; where the system does not tell that, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(text: str) -> float:
    """From 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"must be a number from 0 to 1, not {text!r}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"must be from 0 to 1, not {text}")
    return number


def amount(text: str) -> float:
    """From 0 to a million: dollars, watts."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"must be a number, not {text!r}") from None
    if not 0 <= number <= 1_000_000:
        raise ValueError(f"must be from 0 to 1000000, not {text}")
    return number


def switch(text: str) -> bool:
    """on, true, yes, 1 or off, false, no, 0; capitals do not matter."""
    lowered = text.lower()
    if lowered in ("on", "true", "yes", "1"):
        return True
    if lowered in ("off", "false", "no", "0"):
        return False
    raise ValueError(f"must be on or off, not {text!r}")


E = TypeVar("E", bound=StrEnum)


def one_of(kind: type[E]) -> Callable[[str], E]:
    """The reader of a member of ``kind``; capitals do not matter."""

    def read(text: str) -> E:
        try:
            return kind(text.lower())
        except ValueError:
            raise ValueError(f"must be one of {', '.join(kind)}, not {text!r}") from None

    return read


def base_url(text: str) -> str:
    """``http(s)://host[:port][/path]`` without /v1 and without a trailing slash."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as problem:
        raise ValueError(f"is not a URL: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[^!-~]", text):
        raise ValueError("must look like http://host:port")
    if parts.username or parts.password:
        raise ValueError("must not carry credentials; keys have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("must not carry a query or a fragment")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def secret(text: str) -> str:
    """A key as it will stand in a header. The message never repeats the value."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces (the value is not shown here)")
    return text


def secrets(text: str) -> tuple[str, ...]:
    """Keys between commas, at least one. The message never repeats the value."""
    keys = tuple(secret(part.strip()) for part in text.split(",") if part.strip())
    if not keys:
        raise ValueError("must hold at least one key, separated by commas (the value is not shown here)")
    return keys


def file_text(path: Path) -> str:
    """The text of a .env file: UTF-8, or UTF-16 with its byte order mark, as some editors of Windows write it.

    Raises SettingsError that names the line where it is neither.
    """
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise SettingsError(
            f"{path} is no UTF-8 text: line {line} has a byte that is none of it; save it as UTF-8"
        ) from None


def texts(environ: Mapping[str, str], dotenv: Path | None) -> Mapping[str, str]:
    """The text of each variable that is set. An empty one in the environment hides the file's."""
    texts = {**read_file(dotenv), **environ}
    return {name: text.strip() for name, text in texts.items() if text and text.strip()}


def read_file(dotenv: Path | None) -> Mapping[str, str | None]:
    """The variables of a .env file; none without one. Raises SettingsError for a file that is no text."""
    return dotenv_values(stream=StringIO(file_text(dotenv))) if dotenv and dotenv.is_file() else {}


def host_names(text: str) -> tuple[str, ...]:
    """Names of hosts between commas, without scheme and port; none where the text is empty."""
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if wrong := [name for name in names if not _HOST_NAME.fullmatch(name)]:
        raise ValueError(f"must hold names of hosts, separated by commas, without scheme and port, not {wrong[0]!r}")
    return names


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages between commas, as browsers name them, or ``*``; in lower case."""
    found = tuple(part.strip().lower().rstrip("/") for part in text.split(",") if part.strip())
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"must hold origins, such as https://chat.example:3000, between commas, not {origin!r}")
    return found


PRIVATE_KINDS = ("card", "iban", "secret", "email")
"""What can be looked for in texts (routing/private_text.py)."""


def private_kinds(text: str) -> tuple[str, ...]:
    """Some of PRIVATE_KINDS between commas; capitals do not matter."""
    found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for kind in found:
        if kind not in PRIVATE_KINDS:
            raise ValueError(f"must hold some of {', '.join(PRIVATE_KINDS)} between commas, not {kind!r}")
    return found


def path(text: str) -> Path:
    """A file or a folder; ``~`` is the home directory."""
    return Path(text).expanduser()


def database_url(text: str) -> str:
    """``sqlite:///file`` or ``postgresql://user:password@host/name``. The message never repeats the value."""
    scheme, found, rest = text.partition("://")
    try:
        _ = urlsplit(text).port
    except ValueError:
        raise ValueError("has a port that is no number (it is not shown here)") from None
    if not found or scheme.partition("+")[0] not in ("sqlite", "postgresql", "postgres") or not rest:
        raise ValueError("must look like sqlite:///file or postgresql://user:password@host/name (it is not shown here)")
    if scheme.partition("+")[0] == "sqlite":
        return f"sqlite://{rest}"
    return f"postgresql://{rest}"


def redis_url(text: str) -> str:
    """``redis://``, ``rediss://`` (TLS) or ``unix://``. The message never repeats the value: it may hold a password."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL (it is not shown here)") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not (
        parts.hostname or (parts.scheme == "unix" and parts.path)
    ):
        raise ValueError("must look like redis://host:6379/0 or unix:///path/to/socket (it is not shown here)")
    return text


def max_tokens_policy(text: str) -> MaxTokensPolicy:
    """``auto``, ``strip``, ``pass`` or ``add:N``; capitals do not matter."""
    kind, _, extra = text.lower().partition(":")
    if kind in ("auto", "strip", "pass") and not extra:
        return MaxTokensPolicy(kind)
    if kind == "add" and extra.isdigit() and 0 < int(extra) <= 1_000_000:
        return MaxTokensPolicy("add", int(extra))
    raise ValueError(f"must be auto, strip, pass or add:N with N from 1 to 1000000, not {text!r}")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# The type of a setting, and what reads it from the variable's text.
Text = Annotated[str, SkipValidation]
Switch = Annotated[bool, PlainValidator(switch)]
Seconds = Annotated[float, PlainValidator(seconds)]
Pause = Annotated[float, PlainValidator(pause)]
Share = Annotated[float, PlainValidator(share)]
Amount = Annotated[float, PlainValidator(amount)]
UserPath = Annotated[Path, PlainValidator(path)]
Url = Annotated[str, PlainValidator(base_url)]
DatabaseUrl = Annotated[str, PlainValidator(database_url)]
PrivateKinds = Annotated[tuple[str, ...], PlainValidator(private_kinds)]
RedisUrl = Annotated[str, PlainValidator(redis_url)]
Workers = Annotated[int, PlainValidator(workers)]
Secret = Annotated[str, PlainValidator(secret)]
Secrets = Annotated[tuple[str, ...], PlainValidator(secrets)]
Names = Annotated[tuple[str, ...], PlainValidator(host_names)]
Origins = Annotated[tuple[str, ...], PlainValidator(origins)]
MaxTokens = Annotated[MaxTokensPolicy, PlainValidator(max_tokens_policy)]


def between(low: int, high: int) -> PlainValidator:
    """What reads a whole number from ``low`` to ``high``."""
    return PlainValidator(whole_number(low, high))


def one_of_kind(kind: type[StrEnum]) -> PlainValidator:
    """What reads one of the words of ``kind``."""
    return PlainValidator(one_of(kind))
