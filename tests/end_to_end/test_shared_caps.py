"""BACKEND_CAP is of a backend, not of a process: two routers with two workers each keep to it together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fakes.personas import CHAT, says
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import Recorded, Reply, fake_upstream
from tests.fakes.valkey import running_valkey

CAP = 3


class Counting:
    """A backend that notes how many calls it has at a time, and takes a moment for each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, request: Recorded) -> Reply:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)  # what an answer takes
        with self._lock:
            self.now -= 1
        return says("hello")(request)


def test_two_routers_with_two_workers_ask_a_backend_no_more_than_it_may_be_asked(tmp_path: Path) -> None:
    counting = Counting()
    (tmp_path / "valkey").mkdir()
    with fake_upstream() as primary, running_valkey(tmp_path / "valkey") as valkey:
        primary.on(CHAT, counting)
        settings = {
            "PRIMARY_URL": primary.url,
            "REDIS_URL": valkey.url,
            "WORKERS": "2",
            "BACKEND_CAP": str(CAP),
            "SPECULATION": "off",
            "QUEUE_BUDGET_S": "60",
        }
        with running_router(tmp_path / "one", **settings) as one, running_router(tmp_path / "two", **settings) as two:
            assert eventually(lambda: valkey.client().hlen("ai-router:cap:primary") == 4)
            with ThreadPoolExecutor(24) as pool:
                asked = [pool.submit(router.chat, "hi", model="primary") for router in (one, two) for _ in range(60)]
                assert [one_answer.result()[0] for one_answer in asked] == [200] * 120
    assert counting.most == CAP
