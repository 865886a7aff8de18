"""The pages that show the numbers: their tables and pictures are made from a file beside the page about performance.

``python -m tests.bench.page`` makes them again from that file, after a change of what is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .environments import CHECKOUT
from .peers import OURS
from .pictures import Bar, Chart, svg
from .report import Results, from_json, merged, summary, table
from .workload import Table
from .workloads import FILES, HTTP, HTTP2, LATENCY, TABLE, TLS, WEBSOCKET, WORKERS, WORKLOADS

PAGE = CHECKOUT / "docs" / "explanation" / "performance.md"
DATA = PAGE.with_suffix(".json")
README = CHECKOUT / "README.md"

_BLOCKS: Mapping[str, Sequence[str]] = {
    "http": HTTP,
    "workers": WORKERS,
    "websocket": WEBSOCKET,
    "tls": TLS,
    "http2": HTTP2,
    "files": FILES,
    "latency": LATENCY,
}
_NOTHING = "Not measured yet.\n"
_README = ("hello", "echo", "hellolog", "tlshello", "h2hello", "ws64", "wsconnect", "idle", "wsidle")
_CHARTS = ("hello", "echo", "tlshello", "h2hello", "ws64", "ws64k", "wsconnect", "wsidle")
_LATENCY_CHARTS = tuple(f"{name} {level}" for level in ("half", "bulk") for name in LATENCY)


def page(text: str, data: Mapping[str, Any]) -> str:
    """Return the page about performance with its blocks new; the errors are those of `replaced`."""
    results = from_json(data)
    measured = [WORKLOADS[name] for name in TABLE if name in results]
    blocks = {"about": _about(data), "summary": summary(measured, results) if measured else _NOTHING}
    for name, workloads in _BLOCKS.items():
        tables = [
            table(shown, results[workload], _versions(data, workload), goals=False)
            for workload in workloads
            if workload in results
            for shown in WORKLOADS[workload].shown
        ]
        blocks[name] = "\n".join(tables) or _NOTHING
    return replaced(text, blocks)


def readme(text: str, data: Mapping[str, Any]) -> str:
    """Return the README with its block new; the errors are those of `replaced`."""
    results = from_json(data)
    measured = [WORKLOADS[name] for name in _README if name in results]
    return replaced(text, {"speed": summary(measured, results, described=True) if measured else _NOTHING})


def replaced(text: str, blocks: Mapping[str, str]) -> str:
    """Return the text with what is between markers, ``<!-- bench NAME -->`` and ``<!-- /bench NAME -->``, replaced.

    Raises:
        ValueError: A pair of markers is missing.
    """
    for name, block in blocks.items():
        found = re.findall(rf"<!-- bench {name} -->\n.*?<!-- /bench {name} -->", text, re.DOTALL)
        if len(found) != 1:
            raise ValueError(f"{len(found)} pairs of markers for {name!r}")
        text = text.replace(found[0], f"<!-- bench {name} -->\n\n{block}\n<!-- /bench {name} -->")
    return text


def pictures(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the SVG files beside the page, by name."""
    results = from_json(data)
    shown = {one.name: (one, results[name]) for name in results for one in WORKLOADS[name].shown}
    named = {
        "performance-cost.svg": (_CHARTS, "Cost of each server in several workloads; less is better"),
        "performance-latency.svg": (_LATENCY_CHARTS, "99th percentile of the latency; less is better"),
    }
    return {
        file: svg([_chart(*shown[name]) for name in names if name in shown], describes)
        for file, (names, describes) in named.items()
    }


def write(data: Mapping[str, Any]) -> None:
    """Write the pages and the pictures."""
    PAGE.write_text(page(PAGE.read_text(), data))
    README.write_text(readme(README.read_text(), data))
    for name, text in pictures(data).items():
        (PAGE.parent / name).write_text(text)


def update(data: Mapping[str, Any]) -> None:
    """Add a run to the file beside the page, and write all that is made of it."""
    if DATA.exists():
        data = merged(json.loads(DATA.read_text()), data)
    DATA.write_text(json.dumps(data, indent=1) + "\n")
    write(data)


def _versions(data: Mapping[str, Any], workload: str) -> Mapping[str, str | None]:
    versions: Mapping[str, str | None] = data["runs"][data["workloads"][workload]["run"]]["versions"]
    return versions


def _about(data: Mapping[str, Any]) -> str:
    lines = []
    for index, run in enumerate(data["runs"]):
        machine = run["machine"]
        commit = f", commit {run['commit']}" if run.get("commit") else ""
        names = [f"`{name}`" for name, entry in data["workloads"].items() if entry["run"] == index]
        lines.append(
            f"- {run['date'][:10]}{commit}, CPython {run['python']}, {machine['cpu']}, {machine['cores']} cores, Linux "
            f"{machine['kernel'].split('-')[0]}; {run['rounds']} rounds of {run['seconds']:g} s: {', '.join(names)}"
        )
    return "\n".join(lines) + "\n" if lines else _NOTHING


def _chart(shown: Table, results: Results) -> Chart:
    metric = shown.metrics[0]
    bars = []
    for peer, result in results.items():
        values, median = result.values(metric.key), result.median(metric.key)
        if median is not None:
            text = f"{median:.{metric.digits}f}"
            bars.append(Bar(peer, median, min(values), max(values), text, peer in OURS))
    return Chart(f"{shown.summary} ({metric.title})", bars)


if __name__ == "__main__":
    write(json.loads(DATA.read_text()))
