"""What in a text keeps a request in the local network: PRIVATE_PATTERNS, and the patterns of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_router.config import Settings, SettingsError
from ai_router.providers.catalogue import Catalogue

if TYPE_CHECKING:
    from ai_router.routing.private_text import PrivateText


@dataclass(slots=True)
class Privacy:
    """``finder``: finds what is private; None: nothing is looked for. Another one is set when settings change."""

    finder: PrivateText | None = None


def build_finder(settings: Settings, catalogue: Catalogue) -> PrivateText | None:
    """What finds what these settings look for; None: they look for nothing. Raises SettingsError."""
    kinds = settings.private_patterns or ()
    if not kinds and not catalogue.private:
        return None
    from ai_router.routing.private_text import BadPattern, PrivateText  # noqa: PLC0415 - few need its library

    try:
        return PrivateText(kinds, catalogue.private)
    except BadPattern as problem:
        raise SettingsError(f"CATALOGUE_FILE {settings.catalogue_file}: private.{problem}") from None
