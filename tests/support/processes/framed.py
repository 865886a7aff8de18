"""One server process that speaks HTTP/2 over TLS and in cleartext, for the clients of `tests.support.h2_peer`."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tests.support import h2
from tests.support.h2_peer import Peer
from tests.support.processes.serving import HOST, Running, serve, wait_for

APPLICATION = "conformance:application"


@lru_cache
def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


class Site:
    """The server, and how it is reached in one of the two ways.

    Args:
        running: The process.
        kind: "tls" or "clear".
        port: Where it listens for that kind.
    """

    def __init__(self, running: Running, kind: str, port: int) -> None:
        self.running = running
        self.kind = kind
        self.port = port
        # How long the log was when each client came: ports are used again.
        self._log_at: WeakKeyDictionary[Peer, int] = WeakKeyDictionary()

    def socket(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a connected socket; over TLS, one that has agreed on h2."""
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.settimeout(20)
        raw.connect((HOST, self.port))
        if self.kind == "clear":
            return raw
        wrapped = _client_context().wrap_socket(raw, server_hostname="localhost")
        assert wrapped.selected_alpn_protocol() == "h2"
        return wrapped

    def connect(
        self,
        settings: Iterable[tuple[int, int]] = (),
        *,
        begin: bool = True,
        acknowledge: bool = True,
        receive_buffer: int | None = None,
    ) -> Peer:
        """Return a client that has sent its preface, unless told otherwise."""
        log_at = self.running.log_path.stat().st_size
        peer = Peer(self.socket(receive_buffer), settings, begin, acknowledge)
        self._log_at[peer] = log_at
        return peer

    def log_of(self, peer: Peer) -> list[str]:
        """Return the lines of the log about a client, without those of the access log."""
        with self.running.log_path.open("rb") as log:
            log.seek(self._log_at[peer])
            lines = log.read().decode(errors="replace").splitlines()
        address = f" from {HOST}:{peer.address[1]}: "
        return [line for line in lines if address in line]

    def endings(self, peer: Peer) -> list[int]:
        """Return the error codes of those lines that say that a connection was ended."""
        pattern = re.compile(r"Ended an HTTP/2 connection .* \((\d+)\)$")
        return [int(match[1]) for match in map(pattern.search, self.log_of(peer)) if match]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return what the application counts."""
        with self.connect() as peer:
            counts: dict[str, dict[str, int]] = json.loads(peer.get(b"/counts").body)
        return counts

    def wait_for_rest(self, path: str = "/wait") -> None:
        """Wait until no task of that path runs any more."""
        wait_for(lambda: not self.counts()["running"].get(path), f"the tasks of {path} to end")


@contextlib.contextmanager
def serve_both(pem: Path, directory: Path, *options: str, **more: Any) -> Iterator[dict[str, Site]]:
    """Run one server that listens for both kinds."""
    listen = ("-e", f"ssl:0:interface={HOST}:privateKey={pem}:certKey={pem}", "-b", HOST, "-p", "0")
    options = ("--client-lines-burst", "1000000", *options)  # `Site.endings` looks for a line for each
    with serve(APPLICATION, directory, *options, listen=listen, **more) as running:
        # In development mode: Twisted hands its endpoints' certificates on as pyOpenSSL's objects.
        running.expect("Passing pyOpenSSL", "DeprecationWarning")
        pattern = re.compile(r"Listening on TCP address \S+:(\d+)$", re.MULTILINE)
        ports = wait_for(lambda: len(found := pattern.findall(running.log)) == 2 and found, "both ports")
        assert ports
        yield {kind: Site(running, kind, int(port)) for kind, port in zip(("tls", "clear"), ports, strict=True)}


class Bystander(threading.Thread):
    """A client that does nothing wrong, on a connection of its own, and takes the time of each of its requests."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._peer = site.connect()
        self._peer.send(h2.window_update(0, 2**31 - 1 - 65535))  # enough for a long time
        self._over = threading.Event()
        self.slowest = 0.0
        self.requests = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._over.is_set():
                begun = time.monotonic()
                assert self._peer.get().body == b"Hello, World!\n"
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.requests += 1
                self._peer.answers.clear()
                self._peer.frames[1:] = []
                self._over.wait(0.005)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Bystander:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self.join(30)
        self._peer.socket.close()
        if self.error is not None:
            raise AssertionError("the bystander noticed") from self.error
        if exception == (None, None, None):
            assert not self._peer.goaways
            assert self.requests
