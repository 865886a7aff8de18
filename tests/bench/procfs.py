"""CPU time and memory of a process tree, from the kernel's CPU clocks and from Linux ``/proc``.

A server may be several processes (a supervisor and its worker), so every question is asked of a root process and
all its descendants, and the answers are summed.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of ``/proc/PID/stat`` that are used here."""

    pid: int
    parent: int
    session: int
    state: str
    """One letter; ``Z`` and ``X`` are dead but not yet waited for."""
    reaped: float
    """CPU seconds of children already waited for."""
    started: int
    """Start time in ticks since boot; with the pid it names a process for good, whatever the pid is reused for."""


def parse_stat(text: str) -> Stat:
    """Read one ``/proc/PID/stat`` line.

    The second field is the command in parentheses and may itself hold spaces and parentheses, so the fields are
    counted from the last closing one.

    Raises:
        ValueError: The line is not of that format.
    """
    head, closed, tail = text.rpartition(")")
    if not closed:
        raise ValueError(f"not a stat line: {text!r}")
    fields = tail.split()
    # proc(5) numbers from 1 and `tail` begins at field 3: state 3, ppid 4, session 6, cutime 16, cstime 17,
    # starttime 22.
    ticks = sum(int(field) for field in fields[13:15])
    return Stat(
        pid=int(head.split("(", 1)[0]),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0],
        reaped=ticks / _TICK,
        started=int(fields[19]),
    )


def read_stat(pid: int) -> Stat | None:
    """Return the process's `Stat`, or ``None`` if there is no such process."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(known: Stat) -> bool:
    """Return whether that very process still runs: not another one that got its pid, and not a zombie."""
    now = read_stat(known.pid)
    return now is not None and now.started == known.started and now.state not in "ZX"


def processes() -> list[Stat]:
    """Return the `Stat` of every process."""
    stats = (read_stat(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [stat for stat in stats if stat is not None]


def tree(root: int) -> list[Stat]:
    """Return the `Stat` of `root` and all its descendants, `root` first; empty if it is gone."""
    everything = processes()
    found = [stat for stat in everything if stat.pid == root]
    for parent in found:  # grows while it is walked
        found.extend(stat for stat in everything if stat.parent == parent.pid)
    return found


def process_seconds(pid: int) -> float:
    """Return the user and system time of all threads of one process, those that have ended included; 0 if it is gone.

    The process's own CPU clock counts nanoseconds. ``/proc/PID/stat`` has the same sum, cut to ticks of 10 ms.
    """
    clock = ctypes.c_int()  # clockid_t
    if _libc.clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock)):
        return 0.0
    try:
        return time.clock_gettime(clock.value)
    except OSError:
        return 0.0


def cpu_seconds(root: int) -> float:
    """Return the CPU time of the tree: living processes with all their threads, and children already waited for.

    The latter are known to 10 ms only. None of the servers ends a process within a measurement.
    """
    return sum(process_seconds(stat.pid) + stat.reaped for stat in tree(root))


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a tree in bytes."""

    resident: int
    peak: int
    """The highest ``resident`` of each process since `reset_peak` (since its start where that is not permitted)."""


def parse_status(text: str) -> Memory:
    """Read ``VmRSS`` and ``VmHWM`` of one ``/proc/PID/status``; zero where absent, as for a zombie."""
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}
    resident, peak = (int(fields.get(name, ["0"])[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Memory(resident, peak)


def memory(root: int) -> Memory:
    """Return the summed memory of the tree. Pages that the processes share are counted in each."""
    resident = peak = 0
    for stat in tree(root):
        try:
            one = parse_status((_PROC / str(stat.pid) / "status").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident += one.resident
        peak += one.peak
    return Memory(resident, peak)


def reset_peak(root: int) -> bool:
    """Set each process's ``VmHWM`` back to its ``VmRSS``; return whether the kernel allowed that everywhere."""
    allowed = True
    for stat in tree(root):
        try:
            (_PROC / str(stat.pid) / "clear_refs").write_text("5")
        except OSError:
            allowed = False
    return allowed


def core_busy_seconds(core: int) -> float:
    """Return the time since boot that one core was not idle, time stolen by the hypervisor included."""
    for line in (_PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            return (user + nice + system + irq + softirq + steal) / _TICK
    return 0.0


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between the start and the end of one measurement."""

    wall: float
    """Seconds."""
    cpu: float
    """CPU seconds of the tree."""
    foreign: float
    """Share (0 to 1) of the server's core that something else used: how far to trust the rates."""


class Meter:
    """Measures one window of a process tree: construct it at the start, call `stop` at the end."""

    def __init__(self, root: int, core: int) -> None:
        self._root = root
        self._core = core
        self._busy = core_busy_seconds(core)
        self._cpu = cpu_seconds(root)
        self._wall = time.perf_counter()

    def stop(self) -> Window:
        """Return what happened since construction."""
        wall = time.perf_counter() - self._wall
        cpu = cpu_seconds(self._root) - self._cpu
        busy = core_busy_seconds(self._core) - self._busy
        return Window(wall=wall, cpu=cpu, foreign=min(1.0, max(0.0, (busy - cpu) / wall)))
