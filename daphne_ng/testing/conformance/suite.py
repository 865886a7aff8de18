"""Runs the statements against servers, and keeps what came of each."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from daphne_ng.testing.conformance import checks
from daphne_ng.testing.conformance.case import Case, Limits
from daphne_ng.testing.conformance.core import (
    CARRIERS,
    FAILED,
    HTTP1,
    HTTP2,
    PASSED,
    PROCESS,
    REGISTRY,
    SKIPPED,
    WEBSOCKET,
    WEBSOCKET2,
    Failed,
    Result,
    Skipped,
    Statement,
)
from daphne_ng.testing.conformance.exchange import Broken
from daphne_ng.testing.conformance.servers import Launcher, Running

__all__ = ["checks", "run", "run_check", "select", "statements"]


def statements() -> list[Statement]:
    """Return every statement, in the order of the specification's documents."""
    return list(REGISTRY.values())


def select(only: Collection[str] = (), levels: Collection[str] = ()) -> list[Statement]:
    """Return some statements.

    Args:
        only: Names, or beginnings of names that end in a dot or are a whole part; empty for all.
        levels: Of `daphne_ng.testing.conformance.core.LEVELS`; empty for all.

    Raises:
        ValueError: A name stands for no statement.
    """
    for name in only:
        if not any(_named(statement, name) for statement in statements()):
            raise ValueError(f"no statement is called {name!r}")
    return [
        statement
        for statement in statements()
        if (not only or any(_named(statement, name) for name in only)) and (not levels or statement.level in levels)
    ]


def _named(statement: Statement, name: str) -> bool:
    return statement.name == name or statement.name.startswith(name.rstrip(".") + ".")


def run_check(statement: Statement, case: Case) -> Result:
    """Run one check and close its connections."""
    begun = time.monotonic()
    outcome, reason = PASSED, ""
    try:
        statement.check(case)
    except Skipped as error:
        outcome, reason = SKIPPED, str(error)
    except Failed as error:
        outcome, reason = FAILED, str(error)
    except TimeoutError:
        outcome, reason = FAILED, "no answer in time"
    except (Broken, OSError) as error:
        outcome, reason = FAILED, f"the connection ended: {error}"
    except Exception as error:  # what a server sends may be of any shape, and one check must not end the others
        outcome, reason = FAILED, f"{type(error).__name__}: {error}"
    finally:
        case.close()
    return Result(statement.name, case.address.site, case.carrier, outcome, reason, round(time.monotonic() - begun, 3))


class _Site:
    # A server that is there for every check, and started again when one has ended it.
    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self._lock = threading.Lock()
        self._running: Running | None = None

    def running(self) -> Running:
        with self._lock:
            running = self._running
            if running is None or running.process.poll() is not None:
                self.end()
                running = self._running = self.launcher.launch()
                running.wait_ready(self.launcher.start_seconds)
            return running

    def end(self) -> None:
        if self._running is not None:
            self._running.end(self.launcher.stop_seconds)
            self._running = None


def run(
    launchers: Mapping[str, Launcher],
    chosen: Iterable[Statement] | None = None,
    *,
    limits: Limits | None = None,
    carriers: Collection[str] = CARRIERS,
    jobs: int = 4,
    progress: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Check the statements against the servers that these launchers start.

    Args:
        launchers: By site; the first one also starts the servers of the process carrier.
        chosen: The statements; None for all.
        limits: How long to wait.
        carriers: Those to check, as far as the server speaks them.
        jobs: How many checks run at the same time.
        progress: Called with each result, from any thread.

    Raises:
        NotStarted: A server does not answer.
    """
    limits = limits or Limits()
    wanted = statements() if chosen is None else list(chosen)
    results: list[Result] = []
    for number, (name, launcher) in enumerate(launchers.items()):
        site = _Site(launcher)
        with contextlib.ExitStack() as stack:
            stack.callback(site.end)
            speaks = _spoken(site, limits, carriers)
            if number == 0 and PROCESS in carriers:
                speaks.append(PROCESS)
            jobs_of = [
                (statement, carrier)
                for statement in wanted
                if name in statement.sites
                for carrier in speaks
                if carrier in statement.carriers
            ]
            results += _all(site, jobs_of, limits, jobs, progress)
    order = {statement.name: number for number, statement in enumerate(statements())}
    return sorted(results, key=lambda result: (order[result.statement], CARRIERS.index(result.carrier)))


def _all(
    site: _Site,
    pairs: list[tuple[Statement, str]],
    limits: Limits,
    jobs: int,
    progress: Callable[[Result], None],
) -> Iterator[Result]:
    def one(pair: tuple[Statement, str]) -> Result:
        statement, carrier = pair
        running = site.running()
        case = Case(running.address, running.directory, carrier, limits, site.launcher, running)
        result = run_check(statement, case)
        progress(result)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, [pair for pair in pairs if not pair[0].alone])
    yield from map(one, [pair for pair in pairs if pair[0].alone])


def _spoken(site: _Site, limits: Limits, carriers: Collection[str]) -> list[str]:
    # HTTP/1.1 and WebSockets are taken for granted; what HTTP/2 there is shows.
    found = [carrier for carrier in (HTTP1, WEBSOCKET) if carrier in carriers]
    if HTTP2 not in carriers and WEBSOCKET2 not in carriers:
        return found
    running = site.running()
    case = Case(running.address, running.directory, HTTP2, limits)
    try:
        connection = case.http2()
    except (Skipped, TimeoutError, OSError):
        return found
    finally:
        case.close()
    if HTTP2 in carriers:
        found.append(HTTP2)
    if WEBSOCKET2 in carriers and connection.tunnels:
        found.append(WEBSOCKET2)
    return found
