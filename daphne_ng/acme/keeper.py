"""Keeps the certificates of one directory fresh, in a thread of its own.

Of all processes that share the directory, one does so: the keeper that holds the lock. The others try to take it now
and then. When the one ends, another goes on.

The thread reads the directory every minute, and at once when told to. So names may be added while the server runs,
and a clock that was set, or a machine that slept, is noticed. Nothing here waits for anything without an end, and
nothing that goes wrong here ends the thread, let alone the server: a certificate stays in use until another is there.

The thread is a daemon. A server that stops does not wait for an authority that does not answer, and files are put into
place in one step.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from daphne_ng.acme.challenges import Prover
from daphne_ng.acme.failure import Cancelled, Failure, one_line
from daphne_ng.acme.proofs import Proofs
from daphne_ng.acme.schedule import Schedule
from daphne_ng.acme.storage import AccountKey, FileState, Storage

__all__ = ["Connect", "Issuer", "Keeper", "Pause"]

logger = logging.getLogger("daphne_ng.acme.keeper")

CHECK_SECONDS = 60.0
"""How often the directory is looked at."""
LOCK_SECONDS = 10.0
"""How often the lock is tried: so long no process may ask after the one that held the lock has ended."""
INFORMATION_SECONDS = 12 * 3600.0
"""How often the authority is asked whether it would have a certificate renewed early (RFC 9773)."""
_URGENT_PART = 0.1
"""The part of a certificate's lifetime in which failing to renew it is an error, not a warning."""

Pause = Callable[[float], None]


class Issuer(Protocol):
    """`daphne_ng.acme.client.Session`, as seen from here."""

    def open(self) -> str:
        """Return the URL of the terms of service that are agreed to now."""

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey, prover: Prover) -> bytes:
        """Return a certificate and its chain."""

    def suggested_renewal(self, certificate: bytes) -> float | None:
        """Return when the authority would have a certificate renewed."""

    def close(self) -> None:
        """End the session."""


Connect = Callable[[AccountKey, Pause], Issuer]


class Keeper:
    """The keeper of one directory.

    Args:
        storage: The directory.
        connect: Makes a session with the authority.
        prover: Answers its challenges.
        proofs: Where the prover puts its answers.
        reload: Called in the keeper's thread when a certificate is in place, or may be.
        authority: For the log.
        schedule: Says when.
        clock: The time of day, in seconds since the epoch.
    """

    def __init__(
        self,
        storage: Storage,
        connect: Connect,
        prover: Prover,
        proofs: Proofs,
        reload: Callable[[], object],
        authority: str,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._connect = connect
        self._prover = prover
        self._proofs = proofs
        self._reload = reload
        self._authority = authority
        self._schedule = schedule or Schedule()
        self._clock = clock
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._files: dict[str, FileState] = {}
        self._reported: dict[str, str] = {}
        self._information_at: float | None = None

    # -- from the server's thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. What is missing is asked for at once."""
        self._thread = threading.Thread(target=self._run, name="acme", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Read the directory now."""
        self._wake.set()

    def stop(self) -> None:
        """End soon, and say nothing more. Returns at once."""
        self._stopping.set()
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    # -- in the keeper's thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with contextlib.suppress(Cancelled):
                while not self._stopping.is_set():
                    self._wake.clear()
                    seconds = self.turn()
                    self._wake.wait(seconds)
        finally:
            self._storage.lock.release()

    def turn(self) -> float:
        """Read the directory, and ask for what is due, unless another process does.

        Returns:
            Seconds until the next turn.

        Raises:
            Cancelled: `stop` was called.
        """
        try:
            if not self._take_lock():
                self._reload()  # for what the other has got
                return LOCK_SECONDS
            self._proofs.tidy()
            self._read_directory()
            self._order_due()
        except Failure as failure:
            self._failed(None, failure)
        except Cancelled:
            raise
        except Exception as error:
            logger.exception("Automatic certificates failed")
            self._failed(None, Failure(f"{type(error).__name__}: {error}"))
        return self._schedule.wait(self._clock(), CHECK_SECONDS)

    # The lock is taken, or kept: the result is whether this process asks for certificates.
    def _take_lock(self) -> bool:
        before = self._storage.lock.held
        if not self._storage.lock.take():
            self._report("lock", f"Another process asks for the certificates in {self._storage.path}", logging.INFO)
            return False
        if not before:
            self._report("lock", "")
            waits = self._storage.waits()
            if waits is not None:
                self._schedule.resume(waits)
        return True

    def _read_directory(self) -> None:
        names = self._storage.names()
        files = {name: self._storage.inspect(name) for name in names}
        for name, file in files.items():
            self._report(name, file.problem)
        self._files = {name: file for name, file in files.items() if not file.kept}
        self._schedule.replace(self._files)
        for name, file in self._files.items():
            self._schedule.certificate(name, file.validity)
        self._report("empty", "" if names else f"{self._storage.path} has no NAME.pem file: no certificate to ask for")

    def _order_due(self) -> None:
        now = self._clock()
        due = self._schedule.due(now)
        ask_information = self._information_due()
        if ask_information:
            self._information_at = now + INFORMATION_SECONDS
        if not due and not ask_information:
            return
        session = self._connect(self._storage.account_key(), self._pause)
        try:
            terms = session.open()
            if terms:
                logger.info("Made an account with %s, and agreed to its terms of service, %s", self._authority, terms)
            for name in due:
                if not self._issue(session, name):
                    return
            if ask_information:
                self._ask_renewal_times(session)
        except Failure:
            if due:
                raise
        finally:
            session.close()

    # The result is whether to go on with the next name.
    def _issue(self, session: Issuer, name: str) -> bool:
        self._pause(0)
        logger.info("Asking %s for a certificate of %s", self._authority, name)
        self._schedule.ordered(self._clock())
        self._keep_waits()
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            chain = session.issue(name.lower(), key, self._prover)
            validity = self._storage.write(name, key, chain)
        except Failure as failure:
            self._failed(name, failure)
            return not failure.everyone
        self._schedule.succeeded(name, validity, self._clock())
        self._keep_waits()
        logger.info("Got a certificate of %s, which ends on %s", name, _date(validity.not_after))
        self._reload()
        return True

    # -- early renewals (RFC 9773)

    def _information_due(self) -> bool:
        now = self._clock()
        if self._information_at is None:
            self._information_at = now + INFORMATION_SECONDS / 12  # not at the start, which may come often
        return now >= self._information_at and any(file.pem for file in self._files.values())

    def _ask_renewal_times(self, session: Issuer) -> None:
        for name, file in self._files.items():
            self._pause(0)
            if file.pem:
                when = session.suggested_renewal(file.pem)
                if when is not None:
                    self._schedule.suggest(name, when)

    # -- waiting and telling

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Cancelled

    def _failed(self, name: str | None, failure: Failure) -> None:
        now = self._clock()
        if self._stopping.is_set():
            return  # perhaps it failed because the server stops
        wait = self._schedule.failed(name, failure, now)
        self._keep_waits()
        level, remark = logging.WARNING, ""
        end = self._schedule.ends(name) if name is not None else self._first_end()
        if end is not None and end <= now:
            level, remark = logging.ERROR, f", and the old one ended on {_date(end)}"
        elif end is not None and self._ends_soon(end, now):
            level, remark = logging.ERROR, f", and the old one ends on {_date(end)}"
        logger.log(
            level,
            "No certificate of %s from %s: %s%s; trying again in %s",
            name or "any name",
            self._authority,
            failure,
            remark,
            _duration(wait),
        )

    def _first_end(self) -> float | None:
        return min((file.validity.not_after for file in self._files.values() if file.validity), default=None)

    def _ends_soon(self, end: float, now: float) -> bool:
        for file in self._files.values():
            validity = file.validity
            if validity is not None and validity.not_after == end:
                return end - now < (validity.not_after - validity.not_before) * _URGENT_PART
        return False

    # A worker that takes over reads the waits. A full disk has been reported elsewhere.
    def _keep_waits(self) -> None:
        if self._storage.lock.held:
            with contextlib.suppress(Failure):
                self._storage.keep_waits(self._schedule.waits())

    # A line is logged when its topic changes, not every minute.
    def _report(self, topic: str, text: str, level: int = logging.WARNING) -> None:
        if text and self._reported.get(topic) != text:
            logger.log(level, "%s", one_line(text))
        self._reported[topic] = text


def _date(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"
