"""What a run gave: medians, spread and ratios, as Markdown tables and as plain data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .peers import BASELINES, COMPILED, OURS
from .workload import BEST, Goal, Metric, Sample, Table, Workload

# Above this share of the server's core the rates say little; CPU time per request stays usable.
_FOREIGN_LIMIT = 0.10
# Above this share of its own core the load generator may be what bounds the rate.
_CLIENT_LIMIT = 0.90
# Of what is written to a file: the rest is noise.
_SIGNIFICANT_DIGITS = 5


@dataclass(slots=True)
class Result:
    """What one server gave in one workload, over all rounds."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unsupported: str | None = None
    """Why the server was left out."""

    def values(self, key: str) -> list[float]:
        """Return the number of each good round."""
        return [sample[key] for sample in self.samples if key in sample and not math.isnan(sample[key])]

    def median(self, key: str) -> float | None:
        """Return the median over the good rounds, or ``None`` if there is none."""
        values = self.values(key)
        return statistics.median(values) if values else None

    def largest(self, key: str) -> float:
        """Return the largest number of any round, 0 if there is none."""
        return max(self.values(key), default=0.0)


Results = Mapping[str, Result]


def best(results: Results, key: str) -> float | None:
    """Return the lowest median among the servers of others, or ``None`` if there is none."""
    medians = (result.median(key) for peer, result in results.items() if peer not in OURS)
    return min((value for value in medians if value), default=None)


def ratio(results: Results, peer: str, key: str, base: str) -> float | None:
    """Return a server's median divided by that of `base`, or by `best` if that is `BEST`.

    ``None`` if either is missing or zero.
    """
    value = results[peer].median(key)
    other = best(results, key) if base == BEST else results[base].median(key) if base in results else None
    return value / other if value is not None and other else None


def table(shown: Table, results: Results, versions: Mapping[str, str | None], *, goals: bool = True) -> str:
    """Render one table: title, Markdown, and notes on what failed or disturbed it.

    The first metric is shown with its range over the rounds and its ratios to `BASELINES`. A server that failed in every
    round shows ``fails``, one that lacks what the workload needs ``skipped``. Goals are shown on demand.
    """
    header = ["server", "version"]
    for index, metric in enumerate(shown.metrics):
        header.append(metric.title)
        header += ["min–max", *(f"× {base}" for base in BASELINES)] if index == 0 else []
    rows = [_row(shown.metrics, results, peer, versions.get(peer)) for peer in results]
    text = f"### {shown.name}: {shown.summary}\n\n{markdown(header, rows)}\n"
    notes = _goals(shown, results) if goals else []
    notes += _notes(results)
    return text + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _goals(shown: Table, results: Results) -> list[str]:
    ours = [peer for peer in OURS if peer in results]
    return [_goal(goal, shown.metrics[0], results, peer) for goal in shown.goals for peer in ours]


def _notes(results: Results) -> list[str]:
    notes: list[str] = []
    for peer, result in results.items():
        notes += [f"- {peer}: {reason}" for reason in dict.fromkeys(result.failures)]
        notes += [f"- {peer}: {result.unsupported}"] if result.unsupported else []
        errors = sum(result.values("socket_errors"))
        notes += [f"- {peer}: {errors:.0f} socket errors seen by wrk"] if errors else []
        if (foreign := result.largest("foreign")) > _FOREIGN_LIMIT:
            notes.append(f"- {peer}: other processes took up to {foreign:.0%} of the server's core")
        if (client := result.largest("client")) > _CLIENT_LIMIT:
            notes.append(
                f"- {peer}: the load generator used up to {client:.0%} of its core, so the rate may be its own"
            )
    return notes


def _goal(goal: Goal, metric: Metric, results: Results, peer: str) -> str:
    wanted = goal.compiled if peer == COMPILED else goal.pure
    if goal.of is None:
        limit, digits, value = f"{wanted:g} {metric.title}", metric.digits, results[peer].median(metric.key)
    else:
        limit, digits, value = f"{wanted:.2f} × {goal.of}", 2, ratio(results, peer, metric.key, goal.of)
    bound = "at least" if goal.at_least else "at most"
    return f"- goal of {peer}: {bound} {limit}; here {'n/a' if value is None else f'{value:.{digits}f}'}"


def _row(metrics: Sequence[Metric], results: Results, peer: str, version: str | None) -> list[str]:
    result = results[peer]
    row = [peer, version or "–"]
    for index, metric in enumerate(metrics):
        row.append(cell(result, metric))
        if index == 0:
            values = result.values(metric.key)
            row.append(f"{min(values):.{metric.digits}f}–{max(values):.{metric.digits}f}" if values else "")
            shares = (ratio(results, peer, metric.key, base) for base in BASELINES)
            row += ["" if share is None else f"{share:.2f}" for share in shares]
    return row


def cell(result: Result, metric: Metric) -> str:
    """Render a server's median, or why there is none in one word."""
    value = result.median(metric.key)
    if value is not None:
        return f"{value:.{metric.digits}f}"
    return "skipped" if result.unsupported else "fails" if result.failures else "n/a"


def summary(workloads: Sequence[Workload], results: Mapping[str, Results], *, described: bool = False) -> str:
    """Render one table for all: a row for each workload, a column for each server, medians of the first metric.

    A workload stands there by its name, or `described`.
    """
    peers = list(dict.fromkeys(peer for workload in workloads for peer in results[workload.name]))
    rows = []
    for workload in workloads:
        metric, by_peer = workload.metrics[0], results[workload.name]
        row = [workload.summary if described else workload.name, metric.title]
        rows.append(row + [cell(by_peer[peer], metric) if peer in by_peer else "" for peer in peers])
    return markdown(["workload", "what", *peers], rows) + "\n"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table, columns padded so that it also reads well as plain text."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(header), rule, *(line(row) for row in rows)])


# -- as plain data ----------------------------------------------------------------------------------------------


def to_json(results: Mapping[str, Results], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole run as plain data, of which `from_json` and `merged` know the form."""
    workloads = {
        name: {
            "run": 0,
            "servers": {
                peer: {
                    "samples": [_rounded(sample) for sample in result.samples],
                    "failures": result.failures,
                    "unsupported": result.unsupported,
                }
                for peer, result in by_peer.items()
            },
        }
        for name, by_peer in results.items()
    }
    return {"runs": [dict(about)], "workloads": workloads}


def _rounded(sample: Sample) -> dict[str, float | None]:
    # JSON has no NaN.
    return {
        key: None if math.isnan(value) else float(f"{value:.{_SIGNIFICANT_DIGITS}g}") for key, value in sample.items()
    }


def from_json(data: Mapping[str, Any]) -> dict[str, dict[str, Result]]:
    """Return the results by workload and server."""
    return {
        name: {
            peer: Result(
                [{key: math.nan if value is None else value for key, value in one.items()} for one in found["samples"]],
                found["failures"],
                found["unsupported"],
            )
            for peer, found in entry["servers"].items()
        }
        for name, entry in data["workloads"].items()
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of both runs: of a workload that is in both, the new one. Runs that nothing is left of go."""
    runs: list[Any] = []
    workloads: dict[str, Any] = {}
    for data in (old, new):
        for name, entry in data["workloads"].items():
            if data is old and name in new["workloads"]:
                continue
            about = data["runs"][entry["run"]]
            if about not in runs:
                runs.append(about)
            workloads[name] = entry | {"run": runs.index(about)}
    return {"runs": runs, "workloads": workloads}
