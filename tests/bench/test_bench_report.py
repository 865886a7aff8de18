"""The command line, the environments, the report and its pictures."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from .__main__ import Options, measure, parse
from .environments import Interpreter, prepare
from .errors import BenchError, UnsupportedError
from .peers import PEERS, Peer, Server
from .pictures import Bar, Chart, svg
from .report import Result, best, from_json, markdown, merged, ratio, summary, table, to_json
from .workload import BEST, Goal, Metric, Settings, Table, Workload
from .workloads import FILES, HTTP, HTTP2, LATENCY, TABLE, TLS, WEBSOCKET, WORKLOADS

pytestmark = pytest.mark.once

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


SVG = "{http://www.w3.org/2000/svg}"

# -- the report -------------------------------------------------------------------------------------------------


# A server that answers everything alike.
PLAIN = Peer(
    "fake",
    lambda launch: ["-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1", str(launch.port)],
)


def three_servers() -> dict[str, Result]:
    return {
        "uvicorn": Result([{"cpu": 20.0, "rate": 1.0}, {"cpu": 30.0, "rate": 3.0}, {"cpu": 22.0, "rate": 2.0}]),
        "daphne-ng": Result([{"cpu": 10.0, "rate": 4.0, "foreign": 0.5}, {"cpu": 12.0, "rate": math.nan}], ["crashed"]),
        "broken": Result([], ["does not start", "does not start"]),
    }


CPU_AND_RATE = Table("hello", "a summary", (Metric("cpu", "CPU", 1), Metric("rate", "rate", 0)))


def workload(name: str = "hello") -> Workload:
    return Workload(name, "a summary", CPU_AND_RATE.metrics, lambda _server: None, lambda _server, _settings: {})


def test_the_median_leaves_out_what_was_not_measured() -> None:
    results = three_servers()
    assert results["uvicorn"].median("cpu") == 22.0
    assert results["daphne-ng"].median("cpu") == 11.0
    assert results["daphne-ng"].median("rate") == 4.0
    assert results["broken"].median("cpu") is None


def test_a_ratio_needs_both_sides() -> None:
    results = three_servers()
    assert ratio(results, "daphne-ng", "cpu", "uvicorn") == 0.5
    assert ratio(results, "broken", "cpu", "uvicorn") is None
    assert ratio(results, "daphne-ng", "cpu", "absent") is None


def test_the_table_shows_medians_spread_ratios_and_what_went_wrong() -> None:
    results = three_servers() | {"old": Result(unsupported="cannot")}
    assert table(CPU_AND_RATE, results, {"uvicorn": "1.2.3"}) == (
        "### hello: a summary\n"
        "\n"
        "| server    | version |     CPU |   min–max | × uvicorn | × h2corn |    rate |\n"
        "|-----------|--------:|--------:|----------:|----------:|---------:|--------:|\n"
        "| uvicorn   |   1.2.3 |    22.0 | 20.0–30.0 |      1.00 |          |       2 |\n"
        "| daphne-ng |       – |    11.0 | 10.0–12.0 |      0.50 |          |       4 |\n"
        "| broken    |       – |   fails |           |           |          |   fails |\n"
        "| old       |       – | skipped |           |           |          | skipped |\n"
        "\n"
        "- daphne-ng: crashed\n"
        "- daphne-ng: other processes took up to 50% of the server's core\n"
        "- broken: does not start\n"
        "- old: cannot\n"
    )


def test_the_summary_has_a_row_for_each_workload() -> None:
    results = {"hello": three_servers(), "echo": {"uvicorn": Result([{"cpu": 1.0}])}}
    assert summary([workload("hello"), workload("echo")], results) == (
        "| workload | what | uvicorn | daphne-ng | broken |\n"
        "|----------|-----:|--------:|----------:|-------:|\n"
        "| hello    |  CPU |    22.0 |      11.0 |  fails |\n"
        "| echo     |  CPU |     1.0 |           |        |\n"
    )


def test_the_best_peer_is_the_lowest_of_those_of_others() -> None:
    results = three_servers() | {"slow": Result([{"cpu": 44.0}])}
    assert best(results, "cpu") == 22.0
    assert ratio(results, "slow", "cpu", BEST) == 2.0
    assert best({"daphne-ng": results["daphne-ng"]}, "cpu") is None


@pytest.mark.parametrize(
    ("goal", "note"),
    [
        (Goal(0.85, 0.5, of=BEST), "- goal of daphne-ng: at most 0.85 × best peer; here 0.50\n"),
        (Goal(13.0, 1.0, of=None), "- goal of daphne-ng: at most 13 CPU; here 11.0\n"),
        (Goal(0.27, 1.0, of="uvicorn"), "- goal of daphne-ng: at most 0.27 × uvicorn; here 0.50\n"),
        (Goal(0.5, 1.0, of="uvicorn", at_least=True), "- goal of daphne-ng: at least 0.50 × uvicorn; here 0.50\n"),
        (Goal(1.0, 1.0), "- goal of daphne-ng: at most 1.00 × h2corn; here n/a\n"),
    ],
)
def test_each_build_has_its_goal(goal: Goal, note: str) -> None:
    shown = Table("hello", "", CPU_AND_RATE.metrics, (goal,))
    assert note in table(shown, three_servers(), {})
    assert "goal" not in table(shown, three_servers(), {}, goals=False)
    both = {"daphne-ng": Result([{"cpu": 3.0}]), "daphne-ng-compiled": Result([{"cpu": 2.0}])}
    text = table(Table("", "", CPU_AND_RATE.metrics, (Goal(4.0, 1.0, of=None),)), both, {})
    assert "- goal of daphne-ng: at most 4 CPU; here 3.0\n" in text
    assert "- goal of daphne-ng-compiled: at most 1 CPU; here 2.0\n" in text


@linux_only
def test_a_server_without_support_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def check(server: Server) -> None:
        asked.append(server.peer.name)
        raise UnsupportedError("cannot")

    one = Workload("ws", "", (), check, lambda _server, _settings: {})
    monkeypatch.setitem(PEERS, "fake", PLAIN)
    options = options_for(["fake"], rounds=3)
    results = {"fake": Result()}
    measure(options, one, {"fake": Interpreter(sys.executable)}, results)
    assert (asked, results["fake"].failures, results["fake"].unsupported) == (["fake"], [], "cannot")


def test_a_server_that_is_not_installed_is_not_asked() -> None:
    results = {"fake": Result()}
    measure(options_for(["fake"], rounds=3), workload(), {"fake": Interpreter("", "not installed: no")}, results)
    assert (results["fake"].samples, results["fake"].unsupported) == ([], "not installed: no")


@linux_only
def test_what_hardly_varies_is_not_measured_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = (Metric("cpu", "CPU", 1),)
    one = Workload("idle", "", metrics, lambda _server: None, lambda _server, _settings: {"cpu": 1.0}, rounds=2)
    monkeypatch.setitem(PEERS, "fake", PLAIN)
    results = {"fake": Result()}
    measure(options_for(["fake"], rounds=3), one, {"fake": Interpreter(sys.executable)}, results)
    assert results["fake"].samples == [{"cpu": 1.0}] * 2


def options_for(peers: list[str], rounds: int) -> Options:
    core = min(os.sched_getaffinity(0))
    return Options(
        peers=peers,
        workloads=[],
        rounds=rounds,
        settings=Settings(1, 1),
        python=sys.executable,
        ready={},
        environments=Path(),
        json=None,
        page=False,
        server_core=core,
        client_core=core,
    )


def test_a_table_without_rows_is_still_a_table() -> None:
    assert markdown(["a", "bc"], []) == "| a | bc |\n|---|---:|"


def test_the_results_are_written_and_read_back_without_nan() -> None:
    data = to_json({"hello": three_servers()}, {"rounds": 3})
    again = from_json(json.loads(json.dumps(data, allow_nan=False)))["hello"]
    assert again["uvicorn"] == three_servers()["uvicorn"]
    assert again["daphne-ng"].failures == ["crashed"]
    assert again["daphne-ng"].values("rate") == [4.0]
    assert to_json({"x": {"y": Result([{"z": 123.456789}])}}, {})["workloads"]["x"]["servers"]["y"]["samples"] == [
        {"z": 123.46}
    ]


def test_a_later_run_replaces_what_it_measured_again() -> None:
    old = to_json({name: {"uvicorn": Result([{"cpu": 1.0}])} for name in ("hello", "echo")}, {"date": "old"})
    new = to_json({"hello": {"uvicorn": Result([{"cpu": 2.0}])}}, {"date": "new"})
    both = merged(old, new)
    assert {name: both["runs"][entry["run"]]["date"] for name, entry in both["workloads"].items()} == {
        "hello": "new",
        "echo": "old",
    }
    assert from_json(both)["hello"]["uvicorn"].median("cpu") == 2.0
    everything = to_json({name: {"uvicorn": Result([])} for name in ("hello", "echo")}, {"date": "last"})
    assert merged(both, everything)["runs"] == [{"date": "last"}]


# -- environments -----------------------------------------------------------------------------------------------


def test_a_server_that_cannot_be_installed_is_left_out_with_the_reason(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n[ $1 = -VV ] || { echo noise; echo ERROR: no wheel >&2; exit 1; }\n")
    python.chmod(0o700)
    found = prepare(tmp_path / "environments", str(python), ["uvicorn"])
    assert found["uvicorn"].missing == "not installed: no wheel"
    with pytest.raises(BenchError, match="no interpreter"):
        prepare(tmp_path, str(tmp_path / "absent"), ["uvicorn"])


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    # Instead of an interpreter: it writes down how it is called, and makes environments that hold a copy of itself.
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
        '[ "$2" != venv ] || { mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; }\n'
        '[ "$1" != -P ] || echo 0\n'
    )
    python.chmod(0o700)
    root = tmp_path / "environments"
    for _ in range(2):
        found = prepare(root, str(python), ["gunicorn", "daphne-ng-compiled"])
        assert found["gunicorn"] == Interpreter(str(root / "gunicorn" / "bin" / "python"))
        assert found["daphne-ng-compiled"].missing == "not measured: the build made no compiled modules"
    calls = (tmp_path / "calls").read_text()
    assert calls.count("-m pip install") == calls.count("-m venv --clear") == 2
    assert "--only-binary :all: gunicorn[fast,http2] uvloop --no-binary gunicorn_h1c\n" in calls


# -- the command line -------------------------------------------------------------------------------------------


@linux_only
def test_the_command_line_chooses_servers_workloads_and_interpreters() -> None:
    options = parse(
        ["--peers", "uvicorn,daphne-ng", "--workloads", "hello", "--python", "/a", "--python", "daphne-ng=/b"]
    )
    assert (options.peers, options.workloads) == (["uvicorn", "daphne-ng"], ["hello"])
    assert (options.python, options.ready) == ("/a", {"daphne-ng": "/b"})


@linux_only
def test_a_name_stands_for_all_workloads_of_a_kind() -> None:
    assert parse(["--workloads", "ws,hello,ws64"]).workloads == [*WEBSOCKET, "hello"]
    assert parse(["--workloads", "h2,tls"]).workloads == [*HTTP2, *TLS]
    assert parse(["--workloads", "http"]).workloads == [*HTTP]
    assert parse(["--workloads", "files"]).workloads == [*FILES]
    everything = parse(["--workloads", "all"]).workloads
    assert everything == [*HTTP, *WEBSOCKET, *HTTP2, *TLS, "workers", *FILES, *LATENCY] == [*WORKLOADS]
    assert parse([]).workloads == [*TABLE]
    assert {*TABLE} <= {*everything}


@linux_only
def test_a_server_by_name_only_is_not_among_all() -> None:
    assert parse([]).peers == [name for name in PEERS if name != "uvicorn-zttp"]
    assert parse(["--peers", "uvicorn-zttp"]).peers == ["uvicorn-zttp"]


@linux_only
@pytest.mark.parametrize(
    "arguments",
    [["--peers", "apache"], ["--workloads", "x"], ["--rounds", "0"], ["--seconds", "61"], ["--python", "x=y"]],
)
def test_a_wrong_command_line_exits_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


# -- pictures ---------------------------------------------------------------------------------------------------


def test_a_picture_is_xml_and_cuts_what_is_far_above_the_others() -> None:
    bars = [Bar(name, value, value, value, f"{value:g}", name == "b") for name, value in (("a&", 10.0), ("b", 5.0))]
    slow = Bar("c", 1000.0, 900.0, 1100.0, "1000", False)
    root = ET.fromstring(svg([Chart("one < two", [*bars, slow]), Chart("empty", [])], "describes"))
    widths = {rect.attrib["class"]: float(rect.attrib["width"]) for rect in root.iter(f"{SVG}rect")}
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts == ["one < two", "a&", "10", "b", "5", "c", "1000 ▸", "empty"]
    assert widths["ours"] == pytest.approx(500 * 5 / 40)
    assert widths["bar"] == 500.0
