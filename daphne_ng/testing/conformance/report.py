"""Results as a table on the terminal, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from daphne_ng.testing.conformance.core import FAILED, LEVELS, PASSED, REGISTRY, SKIPPED, Result, Statement

SPECIFICATION = {"ASGI": "3.0", "HTTP and WebSocket": "2.5", "Lifespan": "2.0", "TLS": "0.2"}
"""The versions of the texts that the sentences are from."""


def level_of(statement: Statement) -> str:
    """Return a level as it is shown."""
    return f"{statement.level} (proposed)" if statement.proposed else statement.level


def passes(results: Sequence[Result]) -> bool:
    """Return whether every statement that must hold does; proposals do not count."""
    return not any(
        result.outcome == FAILED and REGISTRY[result.statement].level == "must" and not _proposed(result)
        for result in results
    )


def _proposed(result: Result) -> bool:
    return REGISTRY[result.statement].proposed


def counts(results: Sequence[Result]) -> dict[str, dict[str, int]]:
    """Return how many results of each level have each outcome."""
    found = {level: dict.fromkeys((PASSED, FAILED, SKIPPED), 0) for level in LEVELS}
    for result in results:
        found[REGISTRY[result.statement].level][result.outcome] += 1
    return found


def as_json(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Return everything: what is known of the run, the statements, and the results."""
    names = dict.fromkeys(result.statement for result in results)
    described = [
        {
            "name": statement.name,
            "level": statement.level,
            "proposed": statement.proposed,
            "section": statement.section,
            "sentence": statement.sentence,
        }
        for statement in map(REGISTRY.__getitem__, names)
    ]
    content = {
        **about,
        "specification": SPECIFICATION,
        "counts": counts(results),
        "statements": described,
        "results": [dataclasses.asdict(result) for result in results],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_text(results: Sequence[Result], *, failures: bool = False) -> str:
    """Return a table for the terminal: a line for each result, or for failures only, and a summary of all."""
    wide = max((len(result.statement) for result in results), default=0)
    lines = []
    for result in results:
        if failures and result.outcome != FAILED:
            continue
        place = f"{result.carrier} over {result.site}"
        line = f"{result.statement:{wide}}  {level_of(REGISTRY[result.statement]):8}  {place:30}  {result.outcome:7}"
        lines.append(f"{line}  {result.reason}".rstrip())
    lines.append("")
    for level, found in counts(results).items():
        lines.append(f"{level:8}  " + ", ".join(f"{number} {outcome}" for outcome, number in found.items()))
    return "\n".join(lines) + "\n"


def as_markdown(results: Sequence[Result], title: str) -> str:
    """Return a page: the summary, what failed, and a row for each statement."""
    lines = [f"# {title}", "", "| Level | Passed | Failed | Skipped |", "|---|---|---|---|"]
    for level, found in counts(results).items():
        lines.append(f"| {level} | {found[PASSED]} | {found[FAILED]} | {found[SKIPPED]} |")
    lines += ["", "| Statement | Level | Sentence | Result |", "|---|---|---|---|"]
    for name in dict.fromkeys(result.statement for result in results):
        statement = REGISTRY[name]
        mine = [result for result in results if result.statement == name]
        sentence = f"{statement.section}: {statement.sentence}"
        lines.append(f"| {name} | {level_of(statement)} | {escaped(sentence)} | {escaped(in_short(mine))} |")
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return a text as it may stand in a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def in_short(results: Sequence[Result]) -> str:
    """Return what came of one statement on every carrier."""
    failed = [result for result in results if result.outcome == FAILED]
    if failed:
        return "; ".join(f"{result.carrier} over {result.site}: {result.reason}" for result in failed)
    if all(result.outcome == SKIPPED for result in results):
        return f"skipped: {results[0].reason}"
    return PASSED
