"""The command ``ai-router``, which notes the files of ours that each request enters on its own thread.

``python -m tests.fakes.profiled_router OUT serve``: OUT gets a line of JSON a request, its files by name.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import ai_router
from ai_router.cli.main import main

_OURS = str(Path(ai_router.__file__).parent) + "/"
_files = threading.local()


def _profile(out: Path) -> Any:
    def note(frame: FrameType, event: str, _arg: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS):
            return
        answers = code.co_name == "_answer" and code.co_filename.endswith("server/worker.py")
        if event == "call":
            if answers:
                _files.entered = set()
            if (entered := getattr(_files, "entered", None)) is not None:
                entered.add(code.co_filename.removeprefix(_OURS))
        elif event == "return" and answers:
            with out.open("a") as lines:
                lines.write(json.dumps(sorted(_files.entered)) + "\n")

    return note


if __name__ == "__main__":
    threading.setprofile(_profile(Path(sys.argv[1])))
    main(sys.argv[2:])
