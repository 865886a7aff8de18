"""What a workload is: how a server's answer is checked, what is measured, and what is shown of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .errors import BenchError
from .peers import Peer, Protocol, Server

MIB = 1024 * 1024
IDLE_CONNECTIONS = 5_000


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a workload."""

    key: str
    title: str
    digits: int


BEST = "best peer"


@dataclass(frozen=True, slots=True)
class Goal:
    """What daphne-ng shall reach in the first metric of a table. Shown beside what it reached, never a gate."""

    pure: float
    compiled: float
    """The limit for each of the two builds."""
    of: str | None = "h2corn"
    """What it is a multiple of, in the same run: the server of that name, or `BEST`, the lowest of the other servers.
    ``None``: the limits are in the metric's own unit."""
    at_least: bool = False
    """Whether it shall reach the limit; otherwise it shall not exceed it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line decides for one measurement, and what tests make smaller."""

    seconds: float
    connections: int
    """Of wrk, and of the latency workloads."""
    warmup: float = 0.5
    """Seconds."""
    settle: float = 1.0
    """Seconds after which memory no longer changes."""
    idle_connections: int = IDLE_CONNECTIONS
    upload_bytes: int = 256 * MIB


Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """Some numbers of a workload that has many."""

    name: str
    summary: str
    metrics: tuple[Metric, ...]
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of measurement."""

    name: str
    summary: str
    metrics: tuple[Metric, ...]
    check: Callable[[Server], None]
    """Raises `BenchError` if the server's answer is wrong."""
    measure: Callable[[Server, Settings], Sample]
    """Returns a number for each metric, and ``foreign`` (see `procfs.Window`) where rates are measured."""
    access_log: bool = False
    afterwards: Callable[[Server, Sample], None] | None = None
    """A check that is possible only when the server has stopped."""
    goals: tuple[Goal, ...] = ()
    rounds: int | None = None
    """The most rounds that are worth their time: memory hardly varies."""
    tables: tuple[Table, ...] = ()
    """More tables, for a workload that measures several things at once."""
    protocol: Protocol = "http"
    """What the client speaks."""
    static: bool = False
    """Whether files are served without the application."""

    def is_for(self, peer: Peer) -> bool:
        """Return whether a server can take part."""
        return peer.static if self.static else peer.program is None

    @property
    def shown(self) -> tuple[Table, ...]:
        """All that is reported, each in a table of its own."""
        return (Table(self.name, self.summary, self.metrics, self.goals), *self.tables)


def expect(what: str, got: object, wanted: object) -> None:
    """Compare what a server gave.

    Raises:
        BenchError: It is not what was wanted.
    """
    if got != wanted:
        raise BenchError(f"wrong {what}: {str(got)[:80]!r} instead of {str(wanted)[:80]!r}")
