"""The benchmark's own instruments: a load generator and models whose timing is known."""

from __future__ import annotations

import html
import math
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from ai_router.storage.session_reader import SessionFiles, SessionFilter
from ai_router.storage.usage import UsageStore
from benchmarks.backend import Timing
from benchmarks.compare import Entrant, compared, measure_cancelling, measure_streams
from benchmarks.conditions import (
    Round,
    Shared,
    at_best,
    emptied,
    fill,
    history,
    history_section,
    hours_section,
    of_router,
    parse_and_serialise_ms,
    telemetry_section,
    two_section,
)
from benchmarks.extras import model_of
from benchmarks.load import BUSY_NOTE, Result, Spec, Turn, body, generator_cell, percentile, run
from benchmarks.loads import Crowd, figures, over_connections, over_streams, those_that_stream
from benchmarks.peers import NotHere, peers
from benchmarks.report import (
    COLOURS_DARK,
    COLOURS_LIGHT,
    Colours,
    Line,
    Plot,
    Report,
    Section,
    drawn,
    flagged,
    latencies,
    shown,
    ticks_around,
)
from benchmarks.rig import Server, backend, free_port, in_turn, set_timing
from tests.fakes.router import eventually

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


def test_streams_begin_one_after_the_other_and_are_counted_while_they_are_together(tmp_path: Path) -> None:
    with backend(Timing(tokens_per_s=10, tokens=8), tmp_path) as model:
        result = run(Spec(model.url, body(stream=True), connections=5, once=True, begin_per_s=20))
    assert (result.answered, result.at_once) == (5, 5)
    # The last one begins 0.2 s after the first and takes 0.7 s.
    assert result.seconds >= 0.9


def test_streams_end_when_their_model_is_given_another_timing(tmp_path: Path) -> None:
    with backend(Timing(tokens_per_s=10, tokens=1000), tmp_path) as model, ThreadPoolExecutor(1) as pool:
        ending = pool.submit(run, Spec(model.url, body(stream=True), connections=3, once=True))
        assert eventually(lambda: _seen(model.url) == 3)
        set_timing(model, Timing())
        result = ending.result(10)
        assert _seen(model.url) == 0
    assert (result.answered, result.incomplete) == (3, 0)
    assert result.seconds < 10


def test_an_open_loop_does_not_wait_for_answers(tmp_path: Path) -> None:
    with backend(Timing(ttft_s=(0.5, 0.5)), tmp_path) as model:
        result = run(Spec(model.url, body(stream=False), seconds=1.0, rate=40))
    # One connection alone could have had two answers in that time.
    assert result.answered >= 15


def test_connections_are_spread_over_several_servers(tmp_path: Path) -> None:
    with backend(Timing(), tmp_path / "a") as one, backend(Timing(), tmp_path / "b") as other:
        result = run(Spec(one.url, body(stream=False), connections=6, once=True, more_urls=[other.url]))
        seen = [_seen(server.url) for server in (one, other)]
    assert (result.answered, seen) == (6, [3, 3])


def _seen(url: str) -> int:
    with urllib.request.urlopen(f"{url}/_seen") as answer:
        return orjson.loads(answer.read())["seen"]


def test_a_body_of_a_megabyte_goes_through_whole(tmp_path: Path) -> None:
    with backend(Timing(), tmp_path) as model:
        result = run(Spec(model.url, history(), once=True))
    assert (result.answered, result.incomplete) == (1, 0)


def test_chunks_are_events_however_they_arrive(tmp_path: Path) -> None:
    # Without a pace the model says all in one write: six words, the end, the usage and [DONE].
    with backend(Timing(tokens=6), tmp_path) as model:
        assert run(Spec(model.url, body(stream=True), once=True)).chunks == 9


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


def turn(answered: int = 100, seconds: float = 1.0, busy: float = 0.1, cpu_s: float = 0.2, ms: float = 5.0) -> Turn:
    """A turn whose requests all took the same time."""
    return Turn(Result(answered, seconds=seconds, busy=busy, whole_ms=[ms] * answered, chunks=answered), cpu_s)


def test_a_row_that_shows_the_generator_says_so() -> None:
    assert generator_cell([turn(busy=0.5).result, turn(busy=0.79).result]) == "79%"
    calm = Section("Load", ("", "generator"), [("router", "79%")], note="Note.")
    assert flagged(calm).note == "Note."
    marked = generator_cell([turn(busy=0.5).result, turn(busy=0.95).result])
    assert marked == "95% !"
    assert flagged(Section("Load", ("", "generator"), [("nginx", marked)], note="Note.")).note == f"Note. {BUSY_NOTE}"


def test_a_server_that_is_gone_is_left_out_of_its_turns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with backend(Timing(), tmp_path) as model:
        servers = {"model": model, "gone": Server(f"http://127.0.0.1:{free_port()}", model.pid)}
        found = in_turn(servers, 1, lambda url: Spec(url, body(stream=False), once=True))
    assert {name: len(series) for name, series in found.items()} == {"model": 1}
    assert "gone is left out" in capfd.readouterr().err


def test_a_server_that_does_not_stream_is_left_out_of_streams(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = Server(f"http://127.0.0.1:{free_port()}", 0)
    with backend(Timing(tokens=3), tmp_path) as model:
        assert list(those_that_stream({"model": model, "gone": gone})) == ["model"]
    assert "gone is left out: ConnectionRefusedError" in capsys.readouterr().err


def test_peers_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(*_: object) -> None:
        raise NotHere("no such program\nat all")

    monkeypatch.setattr("benchmarks.peers.PEERS", {"nobody": nowhere})
    with peers("http://127.0.0.1:1", tmp_path, tmp_path, ["nobody"]) as found:
        assert found == {}
    assert capsys.readouterr().err == "  nobody is left out: no such program\n"


def test_a_history_is_a_megabyte_of_valid_chat_and_the_same_each_time() -> None:
    text = history()
    told = orjson.loads(text)
    assert 1_000_000 <= len(text.encode()) < 1_020_000
    assert len(told["messages"]) > 100
    assert {message["role"] for message in told["messages"]} == {"system", "user", "assistant"}
    assert text == history()
    assert parse_and_serialise_ms(text.encode(), 3) > 0


def test_the_long_body_is_compared_with_its_json_within_a_round() -> None:
    taken = Round(short=turn(cpu_s=0.2), long=turn(cpu_s=1.1), json_ms=3.0)
    assert (taken.added_ms, taken.ratio) == (pytest.approx(9.0), pytest.approx(3.0))
    rows = {row[0]: row for row in history_section({"router": [taken, taken]}, 1_000_000).rows}
    assert rows["router, long"][1:4] == (pytest.approx(11.0), pytest.approx(9.0), pytest.approx(3.0))
    assert rows["orjson loads + dumps"][1] == 3.0


def test_hours_of_use_leave_what_the_router_itself_reads(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, 30)
    page = SessionFiles(of_router(data).session_path).page(SessionFilter(), 50)
    assert [session["route"] for session in page.sessions] == ["primary"] * 30
    store = UsageStore(of_router(data).usage_database)
    assert len(store.since(0, 100)) == 30
    emptied(data)
    assert store.since(0, 100) == []
    store.close()
    assert list(of_router(data).session_path.iterdir()) == []


def test_hours_are_compared_within_a_turn() -> None:
    section = hours_section({"nothing": [turn(ms=10), turn(ms=20)], "8 hours": [turn(ms=11), turn(ms=22)]}, "3 files")
    assert section.rows[1][3:5] == (pytest.approx(1.1), pytest.approx(1.1))
    assert section.rows[0][3:5] == (None, None)


def test_two_processes_are_told_with_what_the_machine_allows() -> None:
    one = Shared(turn(answered=200, busy=0.1).result, routers_s=0.8, model_s=0.1)
    both = Shared(turn(answered=350, busy=0.2).result, routers_s=1.4, model_s=0.2)
    # A request takes 5 ms of a core in all: 400 a second are what two cores can do.
    assert at_best([one], 2) == pytest.approx(400)
    section = two_section({"one process": [one], "two processes": [both]}, 2)
    assert section.rows[1][1:3] == (pytest.approx(350), pytest.approx(1.75))
    assert "no more than 2.00 times" in section.note


def test_telemetry_is_compared_with_none_within_a_turn() -> None:
    section = telemetry_section({"off": [turn(), turn(answered=200)], "on": [turn(answered=90), turn(answered=190)]})
    assert section.rows[1][1:5] == (140, pytest.approx(0.925), pytest.approx(0.9), pytest.approx(0.95))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(30, 400, [20, 50, 100, 200, 500]), (0.3, 900, [0.2, 1, 10, 100, 1000]), (5, 5, [5, 10])],
)
def test_an_axis_has_round_numbers_around_all_values(low: float, high: float, ticks: list[float]) -> None:
    assert ticks_around(low, high) == pytest.approx(ticks)


def test_a_latency_curve_goes_as_far_as_there_are_requests() -> None:
    lines = latencies("", {"few": [1.0] * 50, "many": [float(n) for n in range(2000)], "none": []}).lines
    assert [line.points[-1][0] if line.points else None for line in lines] == [0.98, 0.999, None]
    assert dict(lines[1].points)[0.5] == 999


def test_a_plot_is_drawn_with_a_colour_for_each_name_and_what_is_too_small_at_the_bottom() -> None:
    lines = [
        Line("a<b", [(1, 0.001), (32, 50.0)]),
        Line("short", [(1, 2.0)]),
        Line("busy", [(1, 5), (32, 9)], (1,)),
    ]
    colours = Colours()
    text = drawn(Plot("T & t", "count", "connections", "ms", lines, least=1.0), colours)
    assert "T &amp; t" in text
    assert "a&lt;b" in text
    assert "short" not in text, "one point is no line"
    assert ">or less: 1<" in text
    assert text.count('class="mark hollow"') == 1
    assert "the generator's limit" in html.unescape(text)
    assert (colours.of_bar("a<b"), colours.of_bar("unknown")) == ("var(--c0)", "var(--bar)")
    assert drawn(Plot("", "count", "", "", lines[1:2]), colours) == ""
    assert len(set(COLOURS_LIGHT)) == len(set(COLOURS_DARK)) == len(COLOURS_LIGHT)


def test_rates_over_connections_mark_where_the_generator_was_the_limit() -> None:
    section = over_connections({1: {"nginx": [turn()]}, 32: {"nginx": [turn(answered=900, busy=0.9)]}})
    assert section.rows == [("nginx", 100.0, 900.0)]
    assert section.plots[0].lines == [Line("nginx", [(1, 100.0), (32, 900.0)], [1])]


def test_costs_over_streams_are_lines_of_each_contender() -> None:
    direct = Result(first_ms=[100.0])
    late = Turn(Result(8, first_ms=[130.0], chunks=100), 0.05)
    cpu, first = over_streams([Crowd("router", count, late, direct, 90.0) for count in (8, 128)])
    assert cpu.lines == [Line("router", [(8, 500.0), (128, 500.0)], [])]
    assert first.lines == [Line("router", [(8, 30.0), (128, 30.0)], [])]


def test_streams_that_are_refused_are_counted_in_their_row_and_not_drawn() -> None:
    direct, refused = Result(1000, first_ms=[500.0]), Turn(Result(refused=1000), 0.5)
    some = Turn(Result(63, refused=937, at_once=63, first_ms=[510.0], chunks=6300), 0.63)
    crowds = [Crowd("none", 1000, refused, direct, 90.0), Crowd("some", 1000, some, direct, 90.0)]
    assert [crowd.row()[1:5] for crowd in crowds] == [(0, 0, 1000, 0), (63, 0, 937, 63)]
    assert [[line.points for line in plot.lines] for plot in over_streams(crowds)] == [
        [[], [(1000, pytest.approx(100.0))]],
        [[], [(1000, pytest.approx(10.0))]],
    ]


def test_a_server_without_an_embedded_model_is_told_from_one_with_it(tmp_path: Path) -> None:
    with backend(Timing(), tmp_path) as model, pytest.raises(LookupError, match="no embedded model"):
        model_of(model)


def test_two_checkouts_are_compared_by_medians_and_ratios_within_a_round() -> None:
    found = {
        "other": [{"p50 (ms)": 2.0, "lost": 0}, {"p50 (ms)": 4.0, "lost": 0}, {"p50 (ms)": 10.0, "lost": 0}],
        "this": [{"p50 (ms)": 1.0, "lost": 3}, {"p50 (ms)": 3.0, "lost": 3}, {"p50 (ms)": 4.0, "lost": 3}],
    }
    section = compared(found, "note")
    assert section.columns[:4] == ("figure", "other", "this", "ratio")
    # 1/2, 3/4 and 4/10 within the rounds; of the medians it would be 3/4.
    assert section.rows[0][:4] == ("p50 (ms)", 4.0, 3.0, 0.5)
    assert section.rows[0][4:] == ("2.00 to 10.0", "1.00 to 4.00", "0.40 to 0.75")
    assert shown(section.rows[1][3]) == "-", "nothing can be divided by 0"
    assert section.note == "note"


def test_a_figure_that_one_checkout_lacks_in_a_round_is_left_out_of_that_round() -> None:
    found: dict[str, list[dict[str, float]]] = {
        "other": [{"CPU (us)": math.nan}, {"CPU (us)": 4.0}, {}],
        "this": [{"CPU (us)": value} for value in (5.0, 6.0, 7.0)],
    }
    assert compared(found, "").rows == [("CPU (us)", 4.0, 6.0, 1.5, "4.00 to 4.00", "5.00 to 7.00", "1.50 to 1.50")]


def test_streams_are_compared_while_all_are_under_way(tmp_path: Path) -> None:
    with backend(Timing(), tmp_path) as model:
        entrant = Entrant(model, model)
        measure_streams(entrant, 4, 0.5)
        measure_cancelling(entrant)
    assert entrant.figures["4 streams: under way"] == 4
    # 800 chunks a second, each of which takes the model some microseconds.
    assert 1 < entrant.figures["4 streams: CPU of a chunk (us)"] < 1000
    assert 0 < entrant.figures["cancelling a stream: p50 (ms)"] < 1000
    assert entrant.lost == 0


def test_a_checkout_without_an_installed_router_cannot_be_compared(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "Benchmark"), "--compare", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "run `make setup` in that checkout" in ended.stderr


def test_the_command_lists_its_parts() -> None:
    command = [sys.executable, str(ROOT / "Benchmark"), "--list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    parts = ("six", "strategies", "deciding", "apis", "extras", "load", "streams", "history", "hours", "two", "shared")
    assert [line.split()[0] for line in listed.splitlines()[: len(parts)]] == list(parts)


def test_the_command_measures_the_simulated_home_lab(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "Benchmark"), "--only", "six", "-n", "2", "--time-scale", "0.02"]
    ended = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    told = orjson.loads(next(tmp_path.glob("*.json")).read_bytes())
    assert [section["title"][:2] for section in told["sections"]] == ["1.", "2.", "3.", "4.", "5.", "6."]
    rows = {row[0]: row for row in told["sections"][0]["rows"]}
    assert rows["ENRICH, streamed"][4] is not None, "enrichment_ms is read from the log"
    assert rows["COMPLEX, plain"][-1].startswith("xai, ")


def test_ab_s_figures_are_read_and_what_it_leaves_out_did_not_happen() -> None:
    said = """Complete requests:      250
Failed requests:        0
Requests per second:    311.04 [#/sec] (mean)
Percentage of the requests served within a certain time (ms)
  50%     70
  99%    140
"""
    assert figures(said) == [250, 0, 0, 311.04, 70, 140]
