"""The server under test: a command line with placeholders, started as a process and ended by its id.

| Placeholder | Stands for |
|---|---|
| `{app}` | the application, as `module:name` |
| `{port}`, `{host}` | where to listen: a free port, 127.0.0.1 |
| `{socket}` | path of a UNIX socket, which does not exist yet |
| `{cert}`, `{key}` | PEM files for TLS |
| `{ca}` | PEM file of the authority whose client certificates are to be asked for |
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from daphne_ng.testing.conformance import probe
from daphne_ng.testing.conformance.certificates import Certificates
from daphne_ng.testing.conformance.core import TLS, UNIX

HOST = "127.0.0.1"
MODULE = "asgi_conformance_probe"
APPLICATION = f"{MODULE}:app"
LEGACY_APPLICATION = f"{MODULE}:legacy"


class NotStarted(Exception):
    """The server did not answer; has the end of what it said."""


class Address:
    """Where a server listens, and how to get there.

    Args:
        site: One of `daphne_ng.testing.conformance.core.SITES`.
        port: For TCP and TLS.
        path: For a UNIX socket.
        certificates: For TLS.
    """

    def __init__(self, site: str, port: int, path: str, certificates: Certificates | None) -> None:
        self.site = site
        self.port = port
        self.path = path
        self.certificates = certificates

    @property
    def authority(self) -> bytes:
        """The value of Host."""
        return b"localhost" if self.site == UNIX else b"%s:%d" % (HOST.encode(), self.port)

    def connect(self, seconds: float, protocols: tuple[str, ...] = ("http/1.1",), *, known: bool = False) -> Any:
        """Return a connected socket, with TLS where there is some.

        Args:
            seconds: For the connection and the handshake.
            protocols: For ALPN.
            known: Whether to present a client certificate.

        Raises:
            OSError: Nobody listens, or the handshake failed.
        """
        if self.site == UNIX:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(seconds)
            try:
                connection.connect(self.path)
            except OSError:
                connection.close()
                raise
            return connection
        connection = socket.create_connection((HOST, self.port), seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.site != TLS:
            return connection
        assert self.certificates is not None
        context = self.certificates.client(protocols, known=known)
        try:
            return context.wrap_socket(connection, server_hostname="localhost")
        except OSError:
            connection.close()
            raise


class Running:
    """A server as a process.

    Args:
        process: It leads a session of its own.
        address: Where it listens.
        directory: Scripts, notes and output are in it; removed by `end`.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: Address, directory: Path) -> None:
        self.process = process
        self.address = address
        self.directory = directory

    def output(self) -> str:
        """Return what it has printed."""
        return (self.directory / "output").read_text("utf-8", "replace")

    def wait_ready(self, seconds: float) -> None:
        """Wait until it answers.

        Raises:
            NotStarted: It ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not self.answers(min(2.0, seconds)):
            if self.process.poll() is not None:
                raise NotStarted(f"exit code {self.process.returncode}: {self.output()[-2000:]}")
            if time.monotonic() > deadline:
                raise NotStarted(f"no answer within {seconds:g} s: {self.output()[-2000:]}")
            time.sleep(0.02)

    def answers(self, seconds: float) -> bool:
        """Return whether it sends anything to a client that asks."""
        try:
            connection = self.address.connect(seconds, ("http/1.1", "h2"))
        except OSError:
            return False
        with contextlib.closing(connection):
            try:
                if isinstance(connection, ssl.SSLSocket) and connection.selected_alpn_protocol() == "h2":
                    return True
                connection.sendall(b"GET / HTTP/1.1\r\nhost: %s\r\n\r\n" % self.address.authority)
                return bool(connection.recv(1))
            except OSError:
                return False

    def accepts(self, seconds: float) -> bool:
        """Return whether a connection is accepted at all; by the kernel is enough."""
        try:
            self.address.connect(seconds).close()
        except OSError:
            return False
        return True

    def terminate(self) -> None:
        """Send SIGTERM to the process that was started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """Return its exit code; None if it goes on."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self, seconds: float) -> None:
        """End it, by force if need be, and what it has started; remove its files."""
        self.terminate()
        self.wait(seconds)
        # The session is ours alone: nothing else can be in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Launcher:
    """Starts servers from one command line.

    Args:
        site: Where its servers listen.
        command: With placeholders.
        environment: Variables beside those of this process.
        start_seconds: Until it must have answered.
        stop_seconds: Until it is ended by force.
    """

    def __init__(
        self,
        site: str,
        command: str,
        *,
        environment: dict[str, str] | None = None,
        start_seconds: float = 30.0,
        stop_seconds: float = 15.0,
    ) -> None:
        self.site = site
        self.command = command
        self.environment = environment or {}
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds

    @property
    def asks_for_certificates(self) -> bool:
        """Whether the server is to verify clients."""
        return "{ca}" in self.command

    def launch(self, script: list[Any] | None = None, application: str = APPLICATION) -> Running:
        """Start a server and do not wait for it.

        Args:
            script: Of its lifespan; None for one that works.
            application: As `module:name`.
        """
        directory = Path(tempfile.mkdtemp(prefix="asgi-conformance-"))
        shutil.copy(probe.__file__, directory / f"{MODULE}.py")
        if script is not None:
            (directory / "lifespan.script").write_text(probe.dump(script), "utf-8")
        certificates = Certificates(directory) if self.site == TLS else None
        address = Address(self.site, _free_port(), str(directory / "socket"), certificates)
        values = {
            "app": application,
            "host": HOST,
            "port": str(address.port),
            "socket": address.path,
            "cert": str(directory / "cert.pem"),
            "key": str(directory / "key.pem"),
            "ca": str(directory / "ca.pem"),
        }
        environment = {
            **os.environ,
            **self.environment,
            probe.DIRECTORY: str(directory),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")])),
        }
        with (directory / "output").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 (what the user asks for)
                [part.format(**values) for part in shlex.split(self.command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return Running(process, address, directory)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port
