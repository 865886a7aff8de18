"""The keeper, with a clock that does what it is told and an authority in memory."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from daphne_ng.acme.challenges import HttpChallenges, Prover
from daphne_ng.acme.failure import Cancelled, Failure
from daphne_ng.acme.keeper import CHECK_SECONDS, LOCK_SECONDS, Keeper, Pause
from daphne_ng.acme.proofs import Proofs
from daphne_ng.acme.schedule import ORDERS_IN_A_ROW, Schedule
from daphne_ng.acme.storage import AccountKey, Storage
from tests.support.acme import NOW, chain_for

A, B = "a.example.org", "b.example.org"
DAY = 86400.0
ORIGIN = "https://acme.example/dir"


class Authority:
    """Issues, unless told otherwise; notes what it is asked."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.sessions = 0
        self.closed = 0
        self.down: Failure | Exception | None = None
        self.refused: dict[str, Failure] = {}
        self.suggested: float | None = None
        self.asked: list[bytes] = []
        self.now: Callable[[], float] = lambda: 0.0
        self.before_issue: Callable[[], object] = lambda: None

    def connect(self, key: AccountKey, pause: Pause) -> Authority:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return self

    def open(self) -> str:
        self.sessions += 1
        if self.down is not None:
            raise self.down
        return ""

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey, prover: Prover) -> bytes:
        self.orders.append(name)
        self.before_issue()
        if name in self.refused:
            raise self.refused[name]
        import datetime as dt

        return chain_for(name, key, dt.datetime.fromtimestamp(self.now(), dt.UTC))

    def suggested_renewal(self, certificate: bytes) -> float | None:
        self.asked.append(certificate)
        return self.suggested

    def close(self) -> None:
        self.closed += 1


class World:
    """A directory with its keeper."""

    def __init__(self, path: Path, *names: str, run: str = "") -> None:
        self.path = path
        for name in names:
            (path / f"{name}.pem").touch()
        self.now = NOW.timestamp()
        self.authority = Authority()
        self.authority.now = lambda: self.now
        self.reloads = 0
        self.storage = Storage(str(path), ORIGIN, run)
        self.keeper = self.keep()

    def keep(self) -> Keeper:
        proofs = Proofs(str(self.path))
        return Keeper(
            self.storage,
            self.authority.connect,
            HttpChallenges(proofs),
            proofs,
            self.reload,
            ORIGIN,
            Schedule(lambda: 0.0),
            lambda: self.now,
        )

    def reload(self) -> None:
        self.reloads += 1

    def turns(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now <= end:
            self.now += max(self.keeper.turn(), seconds / 500, 0.001)  # years of minutes take long

    def file(self, name: str) -> bytes:
        return (self.path / f"{name}.pem").read_bytes()


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "daphne_ng.acme")
    return lambda: [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def test_what_is_missing_is_asked_for_at_the_start(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path, A, B)
    assert world.keeper.turn() == CHECK_SECONDS
    assert world.authority.orders == [A, B]
    assert world.reloads == 2
    assert world.authority.sessions == world.authority.closed == 1
    assert b"BEGIN CERTIFICATE" in world.file(A)
    assert logs() == [
        f"INFO Asking {ORIGIN} for a certificate of {A}",
        f"INFO Got a certificate of {A}, which ends on 2027-04-15 08:00 UTC",
        f"INFO Asking {ORIGIN} for a certificate of {B}",
        f"INFO Got a certificate of {B}, which ends on 2027-04-15 08:00 UTC",
    ]


def test_nothing_is_asked_for_again_after_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    world.keeper.turn()
    world.keeper = world.keep()
    world.turns(600)
    assert world.authority.orders == [A]
    assert world.authority.sessions == 1


def test_a_certificate_is_renewed_in_its_last_third(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    world.turns(59 * DAY)
    assert world.authority.orders == [A]
    first = world.file(A)
    world.turns(5 * DAY)
    assert world.authority.orders == [A, A]
    assert world.file(A) != first
    assert world.reloads == 2


def test_the_key_is_a_new_one_each_time(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    world.keeper.turn()
    first = world.file(A).partition(b"BEGIN CERTIFICATE")[0]
    world.turns(65 * DAY)
    assert world.file(A).partition(b"BEGIN CERTIFICATE")[0] != first


def test_a_name_added_later_is_found(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    world.keeper.turn()
    (tmp_path / f"{B}.pem").touch()
    world.turns(CHECK_SECONDS)
    assert world.authority.orders == [A, B]


def test_a_name_that_is_refused_does_not_hold_up_the_others(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path, A, B)
    world.authority.refused[A] = Failure("unauthorized: wrong\ncertificate")
    world.turns(3600)
    assert world.authority.orders == [A, B, A, A, A, A]
    assert world.reloads == 1
    warnings = [line for line in logs() if line.startswith("WARNING")]
    assert warnings[0] == (
        f"WARNING No certificate of {A} from {ORIGIN}: unauthorized: wrong certificate; trying again in 60 seconds"
    )
    assert warnings[3].endswith("trying again in 27 minutes")


def test_an_authority_that_is_down_is_asked_ever_more_seldom(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path, A, B)
    world.authority.down = Failure("cannot be reached", everyone=True)
    world.turns(3600)
    assert world.authority.sessions == world.authority.closed == 5
    assert world.authority.orders == []
    assert logs()[0] == (
        f"WARNING No certificate of any name from {ORIGIN}: cannot be reached; trying again in 60 seconds"
    )
    world.authority.down = None
    world.turns(4000)
    assert world.authority.orders == [A, B]


def test_an_authority_that_breaks_in_the_middle_is_left_alone(tmp_path: Path) -> None:
    world = World(tmp_path, A, B)
    world.authority.refused[A] = Failure("broken", everyone=True)
    world.keeper.turn()
    assert world.authority.orders == [A]


def test_a_rate_limit_is_respected(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    world.authority.refused[A] = Failure("rateLimited: too many", rate_limited=True, retry_after=2 * 3600)
    world.turns(2 * 3600 - 100)
    assert world.authority.orders == [A]
    world.turns(200)
    assert world.authority.orders == [A, A]


def test_many_names_are_asked_for_a_few_at_a_time(tmp_path: Path) -> None:
    world = World(tmp_path, *(f"n{number:02}.example.org" for number in range(12)))
    for count in (ORDERS_IN_A_ROW, 2 * ORDERS_IN_A_ROW, 12):
        wait = world.keeper.turn()
        assert len(world.authority.orders) == count
        assert wait == 60
        world.now += wait


def test_failing_to_renew_is_an_error_once_the_end_is_near(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path, A)
    world.keeper.turn()
    world.authority.refused[A] = Failure("no")
    world.turns(75 * DAY)
    assert {line.partition(" ")[0] for line in logs()} == {"INFO", "WARNING"}
    world.turns(14 * DAY)
    assert "ERROR" in logs()[-1]
    assert "no, and the old one ends on 2027-04-15 08:00 UTC; trying again in 6 hours" in logs()[-1]
    assert b"BEGIN CERTIFICATE" in world.file(A)  # the old one stays
    world.turns(2 * DAY)
    assert "and the old one ended on 2027-04-15" in logs()[-1]


def test_an_error_of_our_own_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path, A)
    world.authority.down = ZeroDivisionError("oops")
    assert 0 < world.keeper.turn() <= 60
    assert "ZeroDivisionError: oops" in caplog.text
    world.authority.down = None
    world.turns(61)
    assert world.authority.orders == [A]


def test_a_directory_that_vanishes_ends_nothing(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path, A)
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    world.turns(100)
    assert ".acme.lock cannot be opened: No such file or directory" in logs()[0]
    moved.rename(tmp_path)
    world.turns(1000)
    assert world.authority.orders == [A]


def test_only_one_process_asks_and_the_other_says_so_once(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world, other = World(tmp_path, A), Storage(str(tmp_path), ORIGIN)
    assert other.lock.take()
    assert world.keeper.turn() == LOCK_SECONDS
    world.turns(600)
    assert world.authority.orders == []
    assert logs() == [f"INFO Another process asks for the certificates in {tmp_path}"]
    assert world.reloads > 10  # for what the other gets
    key = ec.generate_private_key(ec.SECP256R1())
    world.storage.write(A, key, chain_for(A, key))
    other.lock.release()
    world.turns(600)
    assert world.authority.orders == []  # the other one has done it
    assert not other.lock.take()


def test_a_worker_that_takes_over_goes_on_with_the_waits_of_the_one_before(tmp_path: Path) -> None:
    first, second, stranger = World(tmp_path, A, run="1"), World(tmp_path, A, run="1"), World(tmp_path, A, run="2")
    for world in (first, second, stranger):
        world.authority.refused[A] = Failure("unauthorized")
    first.turns(300)
    assert first.authority.orders == [A] * 3
    first.storage.lock.release()
    second.now = first.now
    second.turns(300)
    assert second.authority.orders == []
    second.turns(200)
    assert second.authority.orders == [A]
    second.storage.lock.release()
    stranger.now = second.now
    stranger.turns(1)
    assert stranger.authority.orders == [A]  # a restart begins anew


def test_orders_that_do_not_end_are_counted_over_all_workers(tmp_path: Path) -> None:
    orders: list[str] = []
    for _ in range(2 * ORDERS_IN_A_ROW):
        world = World(tmp_path, A, run="1")
        world.authority.orders = orders
        world.authority.before_issue = world.keeper.stop
        world.authority.refused[A] = Failure("killed")
        world.keeper.turn()
        world.storage.lock.release()
    assert len(orders) == ORDERS_IN_A_ROW


def test_what_a_process_left_that_was_killed_is_removed_when_it_is_old(tmp_path: Path) -> None:
    proofs = Proofs(str(tmp_path))
    for label in ("old", "new"):
        proofs.put("http-01", label, "text")
    os.utime(proofs._file("http-01", "old"), (1, 1))
    World(tmp_path, A).keeper.turn()
    assert [proofs.get("http-01", label) for label in ("old", "new")] == [None, "text"]


def test_problems_of_files_are_told_once(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path)
    world.turns(600)
    assert logs() == [f"WARNING {tmp_path} has no NAME.pem file: no certificate to ask for"]
    (tmp_path / f"{A}.pem").write_text("garbage")
    world.turns(600)
    assert len(logs()) == 2
    assert f"{A}.pem holds no certificate" in logs()[1]
    assert world.authority.sessions == 0


def test_the_authority_may_ask_for_an_early_renewal(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    world.turns(600)
    assert world.authority.asked == []
    world.turns(DAY)
    assert 2 <= len(world.authority.asked) <= 3
    world.authority.suggested = world.now + DAY
    world.turns(0.9 * DAY)
    assert world.authority.orders == [A]
    world.authority.suggested = world.now - 1
    world.turns(DAY)
    assert world.authority.orders[:2] == [A, A]


def test_an_authority_that_says_nothing_of_renewals_is_no_failure(
    tmp_path: Path, logs: Callable[[], list[str]]
) -> None:
    world = World(tmp_path, A)
    world.keeper.turn()
    world.authority.down = Failure("down", everyone=True)
    world.turns(3 * DAY)
    assert [line for line in logs() if not line.startswith("INFO")] == []


def test_stop_is_noticed_between_orders(tmp_path: Path) -> None:
    world = World(tmp_path, A, B)
    world.authority.before_issue = world.keeper.stop
    with pytest.raises(Cancelled):
        world.keeper.turn()
    assert world.authority.orders == [A]
    assert world.authority.closed == 1


def test_a_failure_of_the_stop_is_not_told(tmp_path: Path, logs: Callable[[], list[str]]) -> None:
    world = World(tmp_path, A)
    world.authority.before_issue = world.keeper.stop
    world.authority.refused[A] = Failure("the port is closed")
    world.keeper.turn()
    assert [line for line in logs() if "closed" in line] == []


def test_the_thread_ends_when_told_and_wakes_when_told(tmp_path: Path) -> None:
    world = World(tmp_path, A)
    issued = threading.Event()
    world.authority.before_issue = issued.set
    world.keeper.start()
    assert issued.wait(5)
    issued.clear()
    assert not issued.wait(0.05)
    (tmp_path / f"{B}.pem").touch()
    world.keeper.check()
    assert issued.wait(5)
    world.keeper.stop()
    assert world.keeper.join(5)
    assert Storage(str(tmp_path), ORIGIN).lock.take()
