"""The benchmark's own instruments: a load generator and models whose timing is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from benchmarks.backend import Timing
from benchmarks.load import Spec, percentile, run
from benchmarks.loads import body
from benchmarks.report import Report, Section, shown
from benchmarks.rig import backend

ROOT = Path(__file__).parents[1]


def test_a_closed_loop_asks_as_often_as_it_is_answered(tmp_path: Path) -> None:
    with backend(Timing(), tmp_path) as model:
        result = run(Spec(model.url, body(stream=False), connections=4, seconds=0.5))
    assert result.answered > 50
    assert (result.incomplete, result.refused) == (0, 0)
    assert len(result.whole_ms) == result.answered
    assert 0 < result.busy < 1.5


def test_a_stream_is_timed_chunk_by_chunk_and_takes_what_the_model_takes(tmp_path: Path) -> None:
    with backend(Timing(ttft_s=(0.1, 0.1), tokens_per_s=20, tokens=5), tmp_path) as model:
        result = run(Spec(model.url, body(stream=True), connections=3, once=True))
    assert result.answered == 3
    assert percentile(result.first_ms, 0.0) >= 100
    assert percentile(result.gaps_ms, 0.5) >= 45


def test_an_open_loop_does_not_wait_for_answers(tmp_path: Path) -> None:
    with backend(Timing(ttft_s=(0.5, 0.5)), tmp_path) as model:
        result = run(Spec(model.url, body(stream=False), seconds=1.0, rate=40))
    # One connection alone could have had two answers in that time.
    assert result.answered >= 15


def test_a_stream_that_ends_early_and_a_refusal_are_no_answers(tmp_path: Path) -> None:
    server = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        "head = b'HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n9\\r\\ndata: {}\\n\\r\\n'\n"
        "for answer in (head, head + b'0\\r\\n\\r\\n', b'HTTP/1.1 503 No\\r\\nContent-Length: 0\\r\\n\\r\\n'):\n"
        "    c, _ = s.accept(); c.recv(65536); c.sendall(answer); c.close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        results = [run(Spec(url, body(stream=True), once=True)) for _ in range(3)]
        assert [(r.answered, r.incomplete, r.refused) for r in results] == [(0, 1, 0), (0, 1, 0), (0, 0, 1)]
        assert process.wait(10) == 0


def test_a_report_is_a_table_a_file_and_a_page_that_stands_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(command="bench", when="now", machine="here")
    report.add(
        Section(
            "Speed <1>", ("", "req/s", "p50"), [("a & b", 123.4, 1.234), ("none", None, float("nan"))], bars="req/s"
        )
    )
    as_json, page = report.write(tmp_path)
    assert "  a & b    123  1.23" in capsys.readouterr().out
    assert orjson.loads(as_json.read_bytes())["sections"][0]["rows"][0] == ["a & b", 123.4, 1.234]
    text = page.read_text()
    assert "Speed &lt;1&gt;" in text
    assert "<rect" in text
    assert "http" not in text.replace("<!doctype html>", "")


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1234"), (None, "-"), ("x", "x")]
)
def test_figures_have_as_many_digits_as_say_something(value: float | str | None, text: str) -> None:
    assert shown(value) == text


def test_the_command_measures_the_simulated_home_lab(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "Benchmark"), "--only", "six", "-n", "2", "--time-scale", "0.02"]
    ended = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    told = orjson.loads(next(tmp_path.glob("*.json")).read_bytes())
    assert [section["title"][:2] for section in told["sections"]] == ["1.", "2.", "3.", "4.", "5.", "6."]
    rows = {row[0]: row for row in told["sections"][0]["rows"]}
    assert rows["ENRICH, streamed"][4] is not None, "enrichment_ms is read from the log"
    assert rows["COMPLEX, plain"][-1].startswith("xai, ")
