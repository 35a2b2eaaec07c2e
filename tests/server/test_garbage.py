"""What the start has made is not looked at by the collector again."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc
from ai_router.http.timers import TimerThread
from ai_router.server.garbage import settle
timers = TimerThread()
made = [[number] for number in range(50_000)]
settle(timers)
print(gc.get_freeze_count() > 50_000, len(gc.get_objects()) < 1_000)
timers.close()
"""


def test_a_full_collection_finds_next_to_nothing_after_the_start() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert done.stdout == "True True\n"
