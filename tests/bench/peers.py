"""The servers: how each is started, and one running instance of one.

All of them run one worker on one loop thread, with the fastest loop and parser that their own documentation
offers, and otherwise with their defaults. Only bounds that would end a measurement (keep-alive time, requests per
connection, connections at once) are widened.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from . import app, procfs
from .client import HOST, Client
from .errors import BenchError, UnsupportedError
from .handshake import client_context
from .http2 import Http2Connection

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_TARGET = "app:application"
STATIC = "/static"
"""The prefix that servers answer files under."""

Protocol = Literal["http", "https", "h2", "h2c"]
"""HTTP/1.1 in cleartext, HTTP/1.1 over TLS, HTTP/2 over TLS, or HTTP/2 in cleartext with prior knowledge."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What a command line is made from."""

    port: int
    directory: Path
    """Holds ``app.py`` and what the properties name; the server's working directory."""
    access_log: bool
    workers: int = 1
    static: bool = False
    """Whether the server itself answers the files of `files` under `STATIC`."""
    protocol: Protocol = "http"
    """What clients will speak. With TLS, the files are `certificate` and `key`."""

    @property
    def tls(self) -> bool:
        """Whether it is over TLS."""
        return self.protocol in ("https", "h2")

    @property
    def files(self) -> Path:
        """The directory of files."""
        return self.directory / app.FILES_DIRECTORY

    @property
    def certificate(self) -> Path:
        """The server's own certificate in PEM, signed by itself."""
        return self.directory / "certificate.pem"

    @property
    def key(self) -> Path:
        """Its key: PEM, PKCS #8, not encrypted. All servers read that."""
        return self.directory / "key.pem"

    @property
    def endpoint(self) -> str:
        """The TLS port as Twisted describes it."""
        return f"ssl:{self.port}:interface={HOST}:privateKey={self.key}:certKey={self.certificate}"

    @property
    def output(self) -> Path:
        """Where the server's stdout and stderr go."""
        return self.directory / "output.txt"

    @property
    def log(self) -> Path:
        """Where the access log goes, for servers that take a file name."""
        return self.directory / "access.log"

    def write(self, name: str, text: str) -> str:
        """Write a configuration file and return its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of server."""

    name: str
    arguments: Callable[[Launch], list[str]]
    """Arguments of the interpreter."""
    distribution: str | None = None
    """Whose version is shown, if not that of `name`."""
    needs: tuple[str, ...] = ()
    """What pip is to install: requirements, with what the fastest and the fullest variant wants."""
    built: tuple[str, ...] = ()
    """Distributions among them that have no wheels and may be built from source."""
    by_name_only: bool = False
    """Whether it takes part only if it is asked for."""
    logs_to_output: bool = False
    """Its access log can only go to stdout or stderr, which the harness sends to a file."""
    scales: bool = True
    """Whether it can run several workers."""
    http2_needs: str | None = None
    """Distribution without which it does not start with HTTP/2."""
    static: bool = False
    """Whether it can serve files without the application."""
    program: str | None = None
    """What is started in place of an interpreter. Such a server takes part where files are served, and only there."""


def _uvicorn(launch: Launch, parser: str = "httptools") -> list[str]:
    arguments = ["-m", "uvicorn", "--host", HOST, "--port", str(launch.port), "--loop", "uvloop"]
    if launch.protocol in ("h2", "h2c"):  # zttp is the only one of its parsers that reads HTTP/2
        arguments += ["--http", "zttp", "--http2"]
    else:
        arguments += ["--http", parser]
    arguments += ["--ssl-keyfile", str(launch.key), "--ssl-certfile", str(launch.certificate)] if launch.tls else []
    # The cheapest of its three WebSocket implementations.
    arguments += ["--timeout-keep-alive", "120", "--ws", "websockets-sansio", "--workers", str(launch.workers)]
    if launch.access_log:
        # Its default configuration with the access handler's stream replaced by a file.
        formatter = {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
            "use_colors": False,
        }
        handler = {"class": "logging.FileHandler", "formatter": "access", "filename": str(launch.log)}
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"access": formatter},
            "handlers": {"access": handler},
            "loggers": {"uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False}},
        }
        arguments += ["--log-config", launch.write("logging.json", json.dumps(config))]
    else:
        arguments += ["--no-access-log", "--log-level", "warning"]
    return [*arguments, _TARGET]


def _uvicorn_zttp(launch: Launch) -> list[str]:
    return _uvicorn(launch, "zttp")


def _hypercorn(launch: Launch) -> list[str]:
    # By default it closes a connection after 1 000 requests, which would measure reconnecting.
    config = launch.write("hypercorn.toml", "keep_alive_max_requests = 1000000000\n")
    arguments = ["-m", "hypercorn", "-c", config, "--bind", f"{HOST}:{launch.port}", "--worker-class", "uvloop"]
    arguments += ["--workers", str(launch.workers)]
    arguments += ["--keep-alive", "120"]
    arguments += ["--keyfile", str(launch.key), "--certfile", str(launch.certificate)] if launch.tls else []
    arguments += ["--access-logfile", str(launch.log)] if launch.access_log else ["--log-level", "warning"]
    return [*arguments, _TARGET]


def _granian(launch: Launch) -> list[str]:
    arguments = ["-m", "granian", "--interface", "asgi", "--host", HOST, "--port", str(launch.port)]
    arguments += ["--workers", str(launch.workers)]
    # The header timeout also ends idle keep-alive connections; 60 s is the most that it allows. The back-pressure
    # bound counts connections.
    arguments += ["--loop", "uvloop", "--http1-header-read-timeout", "60000", "--backpressure", "16384"]
    arguments += ["--ssl-keyfile", str(launch.key), "--ssl-certificate", str(launch.certificate)] if launch.tls else []
    arguments += ["--access-log"] if launch.access_log else ["--no-access-log", "--log-level", "warning"]
    if launch.static:
        arguments += ["--static-path-route", STATIC, "--static-path-mount", str(launch.files)]
    return [*arguments, _TARGET]


def _daphne(launch: Launch) -> list[str]:
    return ["-m", "daphne", *_daphne_flags(launch)]


def _h2corn(launch: Launch) -> list[str]:
    arguments = ["-m", "h2corn", "--bind", f"{HOST}:{launch.port}", "--loop", "uvloop"]
    arguments += ["--workers", str(launch.workers)]
    arguments += ["--keyfile", str(launch.key), "--certfile", str(launch.certificate)] if launch.tls else []
    return [*arguments, "--access-log" if launch.access_log else "--no-access-log", _TARGET]


def _peregrine(launch: Launch) -> list[str]:
    arguments = ["-m", "peregrine", "--host", HOST, "--port", str(launch.port), "--workers", str(launch.workers)]
    # Its bounds of a request body (16 MiB), of connections (4096) and of their idle time (5 s) would end measurements.
    arguments += ["--max-body", str(1 << 30), "--max-connections", "16384", "--keep-alive", "120000"]
    arguments += ["--tls-cert", str(launch.certificate), "--tls-key", str(launch.key)] if launch.tls else []
    arguments += ["--ws-compress"]
    arguments += ["--static-dir", f"{STATIC}={launch.files}"] if launch.static else []
    return [*arguments, *(["--access-log"] if launch.access_log else ["--log-level", "warning"]), _TARGET]


def _gunicorn(launch: Launch) -> list[str]:
    arguments = ["-m", "gunicorn", "--worker-class", "asgi", "--asgi-loop", "uvloop", "--http-parser", "fast"]
    arguments += ["--bind", f"{HOST}:{launch.port}", "--workers", str(launch.workers), "--no-control-socket"]
    arguments += ["--keep-alive", "120", "--worker-connections", "16384", "--log-level", "warning"]
    arguments += ["--keyfile", str(launch.key), "--certfile", str(launch.certificate)] if launch.tls else []
    if launch.protocol == "h2":
        arguments += ["--http-protocols", "h2,h1"]
    elif launch.protocol == "h2c":
        arguments += ["--http2-cleartext", "prior-knowledge", "--http-protocols", "h2,h1"]
    arguments += ["--access-logfile", str(launch.log)] if launch.access_log else []
    return [*arguments, _TARGET]


def _daphne_ng(launch: Launch) -> list[str]:
    static = ["--static", f"{STATIC}={launch.files}"] if launch.static else []
    return ["-m", "daphne_ng", "--workers", str(launch.workers), *static, *_daphne_flags(launch)]


def _nginx(launch: Launch) -> list[str]:
    # The settings of the package's own nginx.conf, without the access log and the bound of requests per connection. The
    # directory is for this user alone, and nginx's workers leave root for another one.
    user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};" if os.getuid() == 0 else ""
    tls = f"ssl_certificate {launch.certificate}; ssl_certificate_key {launch.key};" if launch.tls else ""
    tls += " ssl_protocols TLSv1.2 TLSv1.3;" if launch.tls else ""
    listen = " ssl" if launch.tls else ""
    listen += " http2" if launch.protocol == "h2" else ""
    config = f"""\
daemon off;
{user}
worker_processes {launch.workers};
pid {launch.directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
  sendfile on;
  tcp_nopush on;
  types_hash_max_size 2048;
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 120;
  client_body_temp_path {launch.directory}/body;
  proxy_temp_path {launch.directory}/proxy;
  fastcgi_temp_path {launch.directory}/fastcgi;
  uwsgi_temp_path {launch.directory}/uwsgi;
  scgi_temp_path {launch.directory}/scgi;
  server {{
    listen {HOST}:{launch.port}{listen};
    {tls}
    location {STATIC}/ {{ alias {launch.files}/; }}
  }}
}}
"""
    return ["-p", str(launch.directory), "-e", "stderr", "-c", launch.write("nginx.conf", config)]


def _daphne_flags(launch: Launch) -> list[str]:
    flags = ["-e", launch.endpoint] if launch.tls else ["-b", HOST, "-p", str(launch.port)]
    flags += ["-v", "0"]
    flags += ["--access-log", str(launch.log)] if launch.access_log else []
    return [*flags, _TARGET]


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("uvicorn", _uvicorn, needs=("uvicorn[standard]", "zttp"), http2_needs="zttp"),
        Peer(
            "uvicorn-zttp",
            _uvicorn_zttp,
            distribution="uvicorn",
            needs=("uvicorn[standard]", "zttp"),
            by_name_only=True,
            http2_needs="zttp",
        ),
        Peer("hypercorn", _hypercorn, needs=("hypercorn", "uvloop")),
        Peer("granian", _granian, needs=("granian", "uvloop"), logs_to_output=True, static=True),
        Peer("daphne", _daphne, needs=("daphne", "twisted[http2,tls]"), scales=False),
        Peer("gunicorn", _gunicorn, needs=("gunicorn[fast,http2]", "uvloop"), built=("gunicorn_h1c",)),
        Peer("h2corn", _h2corn, needs=("h2corn", "uvloop"), logs_to_output=True),
        Peer(
            "peregrine",
            _peregrine,
            distribution="peregrine-server",
            needs=("peregrine-server", "uvloop"),
            logs_to_output=True,
            static=True,
        ),
        Peer("nginx", _nginx, static=True, program="nginx"),
        Peer("daphne-ng", _daphne_ng, static=True),
        Peer("daphne-ng-compiled", _daphne_ng, distribution="daphne-ng", static=True),
    )
}
PURE, COMPILED = "daphne-ng", "daphne-ng-compiled"
OURS = (PURE, COMPILED)
"""The two builds of the checkout."""
BASELINES = ("uvicorn", "h2corn")
"""The servers that the ratios are to: the one in widest use, and the fastest that does almost everything right."""


def version(peer: Peer, python: str) -> str | None:
    """Return the installed version for that interpreter, or ``None`` if it is not installed."""
    if peer.program is not None:
        return _program_version(peer.program)
    return _distribution_version(peer.distribution or peer.name, python)


def _program_version(program: str) -> str | None:
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stderr or done.stdout).strip().rpartition("/")[2] or None


def _distribution_version(name: str, python: str) -> str | None:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    try:
        # -P: the working directory may hold egg-info of another build.
        command = [python, "-P", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Run the block, and every process started in it, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """One running server. A context manager: the process and all its children are gone after the block."""

    def __init__(
        self,
        peer: Peer,
        *,
        python: str = sys.executable,
        core: int,
        directory: Path,
        access_log: bool,
        protocol: Protocol = "http",
        workers: int = 1,
        more_cores: Sequence[int] = (),
        static: bool = False,
    ) -> None:
        """Prepare; entering the context starts the process.

        Args:
            peer: What to start.
            python: Interpreter that has it installed.
            core: CPU to pin it to.
            directory: Existing, empty, used by nobody else.
            access_log: Whether to log each request to a file.
            protocol: What clients will speak; with TLS, a certificate is made for this one.
            workers: How many.
            more_cores: More CPUs that it may use.
            static: Whether it serves files without the application.
        """
        self.peer = peer
        self.core = core
        self.cores = (core, *more_cores)
        self.launch = Launch(
            port=_free_port(),
            directory=directory,
            access_log=access_log,
            protocol=protocol,
            workers=workers,
            static=static,
        )
        self.command = [peer.program or python, *peer.arguments(self.launch)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The TCP port on the loopback address."""
        return self.launch.port

    @property
    def pid(self) -> int:
        """The root process's id, while the server runs."""
        assert self._process is not None, "entered the context"
        return self._process.pid

    def __enter__(self) -> Server:
        """Start the server and wait until it answers.

        Raises:
            UnsupportedError: It lacks what it needs for HTTP/2, or does not agree to it in the TLS handshake.
            BenchError: It ended, or answers nothing within 20 seconds.
        """
        shutil.copy(app.__file__, self.launch.directory / "app.py")
        self.launch.files.mkdir(exist_ok=True)
        if self.launch.protocol in ("h2", "h2c"):
            needed = self.peer.http2_needs
            if needed is not None and _distribution_version(needed, self.command[0]) is None:
                raise UnsupportedError(f"it has HTTP/2 only with {needed}, which is not installed")
        if self.launch.tls:
            make_certificate(self.launch.certificate, self.launch.key)
        with self.launch.output.open("wb") as output, pinned(*self.cores):
            # Its own session: Ctrl-C reaches only the harness, which then stops the server in order.
            self._process = subprocess.Popen(
                self.command,
                cwd=self.launch.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and its children, by SIGTERM and after five seconds by SIGKILL. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        # All of its session, so that workers are found even if their supervisor crashed. Named by pid and start time,
        # so that a pid reused meanwhile is never killed.
        family = [stat for stat in procfs.processes() if stat.session == process.pid]
        try:
            process.terminate()
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for known in family:
                if procfs.is_alive(known):
                    with suppress(ProcessLookupError):
                        os.kill(known.pid, signal.SIGKILL)
            process.wait(_STOP_SECONDS)
            deadline = time.monotonic() + _STOP_SECONDS
            while any(map(procfs.is_alive, family)) and time.monotonic() < deadline:
                time.sleep(0.01)

    def client(self, timeout: float = 60.0) -> Client:
        """Return a new HTTP/1.1 connection to it, over TLS if it serves that."""
        return Client(self.port, timeout=timeout, tls=client_context() if self.launch.tls else None)

    def log_lines(self, path: str) -> int:
        """Return how many lines of the access log name `path`. Exact only after `stop`: servers may buffer."""
        log = self.launch.output if self.peer.logs_to_output else self.launch.log
        try:
            with log.open("rb") as lines:
                return sum(path.encode() in line for line in lines)
        except FileNotFoundError:
            return 0

    def _wait_until_ready(self) -> None:
        assert self._process is not None, "called from __enter__"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None:
                raise BenchError(f"exited with {self._process.returncode} at start: {self._last_output()}")
            try:
                self._ask()
                return
            except UnsupportedError:
                raise
            except BenchError as error:
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"not ready after {_START_SECONDS:.0f} s ({error}): {self._last_output()}"
                    ) from None
            time.sleep(0.05)

    def _ask(self) -> None:
        if self.launch.protocol == "h2":
            _expect_http2(self.port)
            return
        if self.launch.protocol == "h2c":
            with Http2Connection(self.port) as connection:
                connection.get()
            return
        with self.client(timeout=5.0) as client:
            client.send("GET", "/")
            client.read_body(client.read_head())

    def _last_output(self) -> str:
        lines = self.launch.output.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else "no output"


def make_certificate(certificate: Path, key: Path) -> None:
    """Write a self-signed certificate and its key: P-256, as most servers on the Internet have by now.

    Raises:
        BenchError: ``openssl`` is missing or failed.
    """
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"]
    command += ["-out", str(certificate), "-keyout", str(key)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"no certificate: {error}") from None
    if done.returncode:
        raise BenchError(f"no certificate: {done.stderr.strip()[-200:]}")


def _expect_http2(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((HOST, port), timeout=5.0) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            agreed = secure.selected_alpn_protocol()
    except OSError as error:
        raise BenchError(f"no TLS: {error}") from error
    if agreed != "h2":
        raise UnsupportedError(f"it agreed to {agreed or 'no protocol'} and not h2 in the TLS handshake")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
