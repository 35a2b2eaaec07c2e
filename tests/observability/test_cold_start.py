"""From the start of the process to its first answer."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

from ai_router.observability.cold_start import ColdStart, process_started
from ai_router.types import Status
from tests.outcomes import FREE, outcome


def test_the_first_answer_counts_and_no_later_one() -> None:
    cold = ColdStart(born=100.0, now=lambda: 102.0)
    assert math.isnan(cold.seconds())
    cold.finished(outcome(status=Status.ERROR), FREE)
    cold.finished(outcome(timings={"total_ms": 500.0}), FREE)
    cold.finished(outcome(timings={"total_ms": 9.0}), FREE)
    assert cold.seconds() == 2.5
    assert cold.described() == {"ready_ms": 2000.0, "first_answer_ms": 500.0, "start_to_first_answer_ms": 2500.0}


def test_a_process_knows_when_it_began() -> None:
    before = time.time()
    code = "from ai_router.observability.cold_start import process_started; print(process_started())"
    told = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    # The kernel counts in hundredths.
    assert before - 0.05 <= told <= time.time()
    assert process_started() < before, os.getpid()
