"""Medians, ratios, and the two forms of the report: Markdown tables and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .workloads import BEST, Goal, Metric, Sample, Workload

# Above this share of the server's core the rates say little; CPU time per request stays usable.
_FOREIGN_LIMIT = 0.10
# Above this share of its own core the load generator may be what bounds the rate.
_CLIENT_LIMIT = 0.90


@dataclass(slots=True)
class Result:
    """What one server gave in one workload, over all rounds."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unsupported: str | None = None
    """Why the server was left out."""

    def median(self, key: str) -> float | None:
        """Return the median over the good rounds, or ``None`` if there is none."""
        values = [sample[key] for sample in self.samples if key in sample and not math.isnan(sample[key])]
        return statistics.median(values) if values else None


Results = Mapping[str, Result]


def ratio(results: Results, peer: str, key: str, baseline: str) -> float | None:
    """Return a server's median divided by the baseline's, or ``None`` if either is missing or zero."""
    value = results[peer].median(key)
    base = results[baseline].median(key) if baseline in results else None
    return value / base if value is not None and base else None


def best(results: Results, key: str, ours: str) -> float | None:
    """Return the lowest median among the servers other than `ours`, or ``None`` if there is none."""
    medians = (result.median(key) for peer, result in results.items() if peer != ours)
    return min((value for value in medians if value), default=None)


def versus_best(results: Results, peer: str, key: str, ours: str) -> float | None:
    """Return a server's median divided by `best`, or ``None`` if either is missing."""
    value, base = results[peer].median(key), best(results, key, ours)
    return value / base if value is not None and base else None


def table(workload: Workload, results: Results, versions: Mapping[str, str | None], ours: str) -> str:
    """Render one workload: title, Markdown table, and notes on what failed or disturbed it.

    The first metric is shown with its range over the rounds. A server without a good round shows ``n/a``, one that
    does not support what the workload needs ``skipped``. The best peer is chosen among all servers but `ours`.
    """
    baseline = workload.baseline
    header = ["server", "version"]
    for index, metric in enumerate(workload.metrics):
        header.append(metric.title)
        header += ["min–max"] if index == 0 else []
        header += [f"× {baseline}"] if metric.ratio else []
        header += ["× best peer"] if metric.versus_best else []
    rows = [_row(workload.metrics, results, peer, versions.get(peer), baseline, ours) for peer in results]
    notes = [_goal(goal, workload.metrics[0], results, ours) for goal in workload.goals] if ours in results else []
    for peer, result in results.items():
        notes += [f"- {peer}: {reason}" for reason in dict.fromkeys(result.failures)]
        notes += [f"- {peer}: {result.unsupported}"] if result.unsupported else []
        errors = sum(sample.get("socket_errors", 0) for sample in result.samples)
        notes += [f"- {peer}: {errors:.0f} socket errors seen by wrk"] if errors else []
        foreign = max((sample.get("foreign", 0.0) for sample in result.samples), default=0.0)
        if foreign > _FOREIGN_LIMIT:
            notes.append(f"- {peer}: other processes took up to {foreign:.0%} of the server's core")
        client = max((sample.get("client", 0.0) for sample in result.samples), default=0.0)
        if client > _CLIENT_LIMIT:
            notes.append(
                f"- {peer}: the load generator used up to {client:.0%} of its core, so the rate may be its own"
            )
    text = f"### {workload.name}: {workload.summary}\n\n{markdown(header, rows)}\n"
    return text + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _goal(goal: Goal, metric: Metric, results: Results, ours: str) -> str:
    if goal.of is None:
        limit, digits = f"{goal.limit:g} {metric.title}", metric.digits
        value = results[ours].median(metric.key)
    else:
        limit, digits = f"{goal.limit:.2f} × {goal.of}", 2
        if goal.of == BEST:
            value = versus_best(results, ours, metric.key, ours)
        else:
            value = ratio(results, ours, metric.key, goal.of)
    bound = "at least" if goal.at_least else "at most"
    return f"- goal of {ours}: {bound} {limit}; here {'n/a' if value is None else f'{value:.{digits}f}'}"


def _row(
    metrics: Sequence[Metric], results: Results, peer: str, version: str | None, baseline: str, ours: str
) -> list[str]:
    result = results[peer]
    row = [peer, version or "–"]
    for index, metric in enumerate(metrics):
        value = result.median(metric.key)
        missing = "skipped" if result.unsupported else "n/a"
        row.append(missing if value is None else f"{value:.{metric.digits}f}")
        if index == 0:
            values = [sample[metric.key] for sample in result.samples]
            row.append(f"{min(values):.{metric.digits}f}–{max(values):.{metric.digits}f}" if values else "")
        if metric.ratio:
            share = ratio(results, peer, metric.key, baseline)
            row.append("" if share is None else f"{share:.2f}")
        if metric.versus_best:
            share = versus_best(results, peer, metric.key, ours)
            row.append("" if share is None else f"{share:.2f}")
    return row


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


def as_json(
    workloads: Mapping[str, Workload],
    results: Mapping[str, Results],
    ours: str,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the whole run as plain data: `about`, and by workload and server the samples, medians and ratios."""
    rendered: dict[str, Any] = {}
    for name, by_peer in results.items():
        keys = [metric.key for metric in workloads[name].metrics]
        compared = [metric.key for metric in workloads[name].metrics if metric.versus_best]
        baseline = workloads[name].baseline
        rendered[name] = {
            "summary": workloads[name].summary,
            "baseline": baseline,
            "servers": {
                peer: {
                    "median": {key: result.median(key) for key in keys},
                    "ratio": {key: ratio(by_peer, peer, key, baseline) for key in keys},
                    "versus_best": {key: versus_best(by_peer, peer, key, ours) for key in compared},
                    "samples": [_finite(sample) for sample in result.samples],
                    "failures": result.failures,
                    "unsupported": result.unsupported,
                }
                for peer, result in by_peer.items()
            },
        }
    return {**about, "workloads": rendered}


def _finite(sample: Sample) -> dict[str, float | None]:
    # JSON has no NaN.
    return {key: None if math.isnan(value) else value for key, value in sample.items()}
