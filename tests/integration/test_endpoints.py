"""Where the server listens: every kind of endpoint, from flags and from strings, and what is said when it cannot.

The parents that pass sockets are stood for by `launch.py`, which gives them the numbers and the variables that systemd,
circus and supervisor give them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect, unix_connect

from tests.support.asgi import on_sockets, serving
from tests.support.processes.serving import APPS, HOST, LAUNCH, ROOT, Running, serve, wait_for

pytestmark = pytest.mark.once


if sys.platform == "win32":
    pytest.skip("descriptors are not passed on Windows", allow_module_level=True)

APP = "addresses:application"
SERVER = (sys.executable, "-m", "daphne_ng")

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux")


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6")


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the test, which is the current one: names in it are short enough for sockets."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- asking ----------------------------------------------------------------------------------------------------


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self.unix_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


def told(address: str | tuple[str, int]) -> tuple[dict[str, Any], Any]:
    """Ask, and return what the application says and our own address."""
    connection = UnixConnection(address) if isinstance(address, str) else http.client.HTTPConnection(*address, 10)
    with contextlib.closing(connection):
        connection.connect()
        assert connection.sock is not None
        name = connection.sock.getsockname()
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read()), name


def check(address: str | tuple[str, int]) -> None:
    """Ask over HTTP and WebSocket; the scope must have the addresses that we used."""
    said, name = told(address)
    if isinstance(address, str):
        with unix_connect(address, "ws://localhost/") as ws:
            for scope in (said, json.loads(ws.recv())):
                assert (scope["server"], scope["client"]) == ([address, None], None)
        return
    assert (said["type"], said["server"], said["client"]) == ("http", [*address], [name[0], name[1]])
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    with connect(f"ws://{host}:{address[1]}/", proxy=None) as ws:
        name = ws.local_address
        said = json.loads(ws.recv())
    assert (said["type"], said["server"], said["client"]) == ("websocket", [*address], [name[0], name[1]])


def tcp_ports(server: Running) -> dict[str, int]:
    return {host: int(port) for host, port in re.findall(r"Listening on TCP address (\S+):(\d+)$", server.log, re.M)}


def start(*command: str, **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(APPS), *sys.path])}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**environment, **more.pop("environment", {})}, **more,
    )  # fmt: skip


def refusal(*options: str, program: tuple[str, ...] = SERVER, **more: Any) -> str:
    """Return the one line that a server which cannot start says."""
    process = start(*program, "-v", "0", *options, APP, **more)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert errors.count("\n") == 1, errors
    return without_time(errors.rstrip("\n"))


def without_time(line: str) -> str:
    return re.sub(r"^\S+ \S+ CRITICAL Listen failure: ", "", line)


def listening(address: tuple[str, int] = (HOST, 0), family: int = socket.AF_INET) -> socket.socket:
    listener = socket.socket(family)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(address)
    listener.listen(8)
    return listener


def unix_listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)
    return listener


# -- flags -----------------------------------------------------------------------------------------------------


@needs_ipv6
def test_every_kind_of_flag_adds_up(short: Path) -> None:
    with listening() as inherited, listening() as other:
        numbers = inherited.fileno(), other.fileno()
        options = ["-b", HOST, "--bind=[::1]", "-b", "127.0.0.3:0", "-p", "0", "-u", "a", "--unix-socket=b"]
        options += ["--fd", str(numbers[0]), f"--fd={numbers[1]}", "-e", "tcp:0:interface=127.0.0.2"]
        with serve(APP, short, listen=options, inherit=numbers) as server:
            wait_for(lambda: server.log.count("Listening on") == 8, "eight endpoints")
            ports = re.findall(r"Listening on TCP address (\S+):(\d+)$", server.log, re.M)
            assert sorted(host for host, _ in ports) == [HOST, HOST, HOST, "127.0.0.2", "127.0.0.3", "::1"]
            for host, port in ports:
                check((host, int(port)))
            check("a")
            check("b")
            starting = re.search("Starting server at (.*)$", server.log, re.M)
            assert starting is not None
            strings = starting[1].split(", ")
            assert strings == sorted(strings)
            assert [line for line in server.log.splitlines() if "Configuring endpoint" in line] == [
                line for line in server.log.splitlines() if line.endswith(tuple(f"endpoint {s}" for s in strings))
            ]
        assert sorted(os.listdir()) == ["server.log"]


def test_the_port_may_stand_with_the_address(short: Path) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
    with serve(APP, short, listen=["-b", f"{HOST}:{port}"]) as server:
        assert server.port == port
        check((HOST, port))


# -- TCP -------------------------------------------------------------------------------------------------------


def test_localhost_is_ipv4(short: Path) -> None:
    with serve(APP, short, listen=["-b", "localhost", "-p", "0"]) as server:
        assert list(tcp_ports(server)) == [HOST]


@needs_ipv6
@pytest.mark.parametrize("listen", [["-b", "::"], ["-b", "[::]"], ["-e", "tcp6:0"]])
def test_the_wildcard_of_ipv6_serves_ipv4_too(short: Path, listen: list[str]) -> None:
    with serve(APP, short, listen=[*listen, *(["-p", "0"] if listen[0] == "-b" else [])]) as server:
        check(("::1", server.port))
        # The kernel says ::ffff:127.0.0.1.
        check((HOST, server.port))


@needs_ipv6
def test_one_port_may_have_both_wildcards_and_the_second_takes_ipv6_only(short: Path) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
    with serve(APP, short, listen=["-b", "::", "-b", "0.0.0.0", "-p", str(port)]) as server:
        server.wait_for_log("TCP address :::")
        check((HOST, port))
        check(("::1", port))


@needs_ipv6
def test_the_wildcard_of_ipv6_does_not_leave_ipv4_to_another_program(short: Path) -> None:
    with listening(("0.0.0.0", 0)) as taken:
        line = refusal("-b", "::", "-p", str(taken.getsockname()[1]))
    assert line.endswith("the address is already in use")


@needs_ipv6
def test_one_port_may_have_several_addresses(short: Path) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
    addresses = (HOST, "127.0.0.2", "::1")
    with serve(APP, short, listen=[*(f"-b{address}" for address in addresses), "-p", str(port)]) as server:
        wait_for(lambda: len(tcp_ports(server)) == 3, "three endpoints")
        for address in addresses:
            check((address, port))


def served(server: Running) -> int:
    return server.log.count('"GET /"') + server.log.count('"GET / ')


def test_two_servers_share_a_port_only_if_both_say_so(short: Path) -> None:
    (short / "other").mkdir()
    with serve(APP, short, "--reuse-port") as one:
        assert refusal("-p", str(one.port)).endswith("the address is already in use")
        listen = ["-b", HOST, "-p", str(one.port), "--reuse-port"]
        with serve(APP, short / "other", listen=listen) as other:
            assert other.port == one.port
            if sys.platform == "linux":  # macOS gives all connections to one
                for _ in range(60):
                    told((HOST, one.port))
                wait_for(lambda: sum(map(served, (one, other))) == 60, "the access logs")
                assert served(one)
                assert served(other)
        assert told((HOST, one.port))
    with serve(APP, short) as alone:
        assert refusal("-p", str(alone.port), "--reuse-port").endswith("the address is already in use")


@pytest.mark.parametrize("on", [True, False])
@on_sockets
async def test_accepted_connections_have_the_options_of_the_settings(on: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    import asyncio

    async with serving(application, lifespan="off", tcp_nodelay=on, tcp_keepalive=on) as server:
        reader, writer = await asyncio.open_connection(*server.listening_addresses[0])
        while not server.connections:
            await asyncio.sleep(0.01)
        (connection,) = server.connections
        sock = connection.transport.socket
        assert bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is on
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on
        (port,) = server.listeners
        assert port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        writer.close()
        await writer.wait_closed()


@linux_only
@pytest.mark.parametrize(("options", "places"), [((), 2048), (("--backlog", "7"), 7)])
def test_the_backlog_is_the_one_of_the_settings(short: Path, options: tuple[str, ...], places: int) -> None:
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with serve(APP, short, *options) as server:
        # TCP_INFO of a listening socket has the length of its queue; /proc shows none of it, ss asks the same way.
        shown = subprocess.run(["ss", "-Hltn", f"sport = :{server.port}"], capture_output=True, text=True, check=True)
        assert int(shown.stdout.split()[2]) == min(places, limit)


# -- UNIX ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("umask", "flags"), [(0o000, ()), (0o077, ("--unix-socket-mode", "660")), (0o777, ())])
def test_sockets_have_the_mode_that_was_asked_for(short: Path, umask: int, flags: tuple[str, ...]) -> None:
    modes = {"a": 0o660 if flags else 0o666, "b": 0o600, "c": 0o666, "d": 0o700}
    strings = ["unix:b:mode=600", "unix:c:lockfile=0", "unix:d:700"]
    (short / "server.log").touch(0o600)  # by the test, which has to read it
    before = os.umask(umask)
    try:
        with serve(APP, short, listen=["-u", "a", *flags, *(f"-e{string}" for string in strings)]) as server:
            wait_for(lambda: server.log.count("Listening on") == 4, "four endpoints")
            assert {name: stat.S_IMODE(os.stat(name).st_mode) for name in modes} == modes
            check("a")
    finally:
        os.umask(before)
    assert os.listdir() == ["server.log"]


@needs_root
@pytest.mark.parametrize(
    ("owner", "user", "group"),
    [("nobody", 65534, 0), ("12345:54321", 12345, 54321), (":54321", 0, 54321)],
)
def test_a_socket_has_the_owner_that_was_asked_for(short: Path, owner: str, user: int, group: int) -> None:
    options = ["-u", "a", "-u", "b", "--unix-socket-owner", owner, "--unix-socket-mode", "620"]
    with serve(APP, short, listen=options) as server:
        server.wait_for_log("UNIX socket b")
        for name in "ab":
            status = os.stat(name)
            assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (user, group, 0o620)


def kill(server: Running) -> None:
    server.process.kill()
    server.process.wait(10)


@contextlib.contextmanager
def killed(directory: Path, *listen: str) -> Iterator[None]:
    """Leave a dead socket behind."""
    with pytest.raises(AssertionError, match="ended with -9"), serve(APP, directory, listen=listen) as server:
        kill(server)
    yield


@pytest.mark.parametrize("listen", [["-u", "s"], ["-e", "unix:s:mode=600:lockfile=1"]])
def test_a_dead_socket_is_replaced(short: Path, listen: list[str]) -> None:
    with killed(short, "-u", "s"):
        assert stat.S_ISSOCK(os.lstat("s").st_mode)
    with serve(APP, short, listen=listen):
        check("s")
    assert os.listdir() == ["server.log"]


def test_without_a_lock_file_a_dead_socket_stays_as_in_twisted(short: Path) -> None:
    with killed(short, "-u", "s"):
        assert refusal("-e", "unix:s:lockfile=0").endswith("unix:s:lockfile=0: the address is already in use")


def test_a_live_socket_is_never_replaced(short: Path) -> None:
    with serve(APP, short, listen=["-u", "s"]):
        for _ in range(2):
            assert refusal("-u", "s") == "cannot listen on unix:s: the address is already in use"
            check("s")


def test_a_live_socket_whose_queue_is_full_is_never_replaced(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
        busy.bind("s")
        busy.listen(1)
        with contextlib.suppress(BlockingIOError):
            for _ in range(50):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect("s")
        inode = os.stat("s").st_ino
        assert refusal("-u", "s").endswith("already in use")
        assert os.stat("s").st_ino == inode


def test_a_socket_of_datagrams_is_never_replaced(short: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind("s")
        assert refusal("-u", "s").endswith("already in use")
    assert os.path.exists("s")


STOCK = """
from twisted.internet import reactor, protocol
reactor.listenUNIX("s", protocol.Factory(), wantPID=True)
print("listening", flush=True)
reactor.run()
"""


def test_a_live_server_of_twisted_is_found_and_a_dead_one_replaced_with_its_lock(short: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STOCK], stdout=subprocess.PIPE, text=True) as twisted:
        try:
            assert twisted.stdout is not None
            assert twisted.stdout.readline() == "listening\n"
            assert refusal("-u", "s").endswith("already in use")
            assert os.readlink("s.lock") == str(twisted.pid)
        finally:
            twisted.kill()
    with serve(APP, short, listen=["-u", "s"]):
        check("s")
        assert not os.path.lexists("s.lock")


@pytest.mark.parametrize("process", [1, os.getpid], ids=["init", "alive"])
def test_a_lock_that_names_a_living_process_does_not_refuse_the_start(short: Path, process: Any) -> None:
    # In a container the server that was killed and the one that is started are both process 1.
    with killed(short, "-u", "s"):
        os.symlink(str(process() if callable(process) else process), "s.lock")
    with serve(APP, short, listen=["-u", "s"]):
        check("s")
    assert os.listdir() == ["server.log"]


def test_a_lock_beside_no_socket_is_ignored_and_a_file_of_that_name_is_kept(short: Path) -> None:
    os.symlink("1", "s.lock")
    with serve(APP, short, listen=["-u", "s"]):
        check("s")
    assert os.path.lexists("s.lock")
    os.unlink("s.lock")
    Path("s.lock").write_text("mine")
    with killed(short, "-u", "s"), serve(APP, short, listen=["-u", "s"]):
        check("s")
    assert Path("s.lock").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
def test_what_is_no_socket_is_never_removed(short: Path, kind: str) -> None:
    if kind == "file":
        Path("s").write_text("precious")
    elif kind == "directory":
        os.mkdir("s")
    elif kind == "fifo":
        os.mkfifo("s")
    else:
        os.symlink("nowhere", "s")
    assert refusal("-u", "s") == "cannot listen on unix:s: a file that is no socket is in the way"
    assert os.path.lexists("s")


def ended(servers: list[subprocess.Popen[str]], count: int) -> list[subprocess.Popen[str]]:
    def look() -> list[subprocess.Popen[str]]:
        found = [server for server in servers if server.poll() is not None]
        return found if len(found) >= count else []

    return wait_for(look, f"{count} servers to end", 60)


@pytest.mark.parametrize("dead", [False, True])
def test_of_servers_that_start_at_once_exactly_one_listens(short: Path, dead: bool) -> None:
    for _ in range(2):
        if dead:
            with killed(short, "-u", "s"):
                pass
        servers = [start(*SERVER, "--access-log", os.devnull, "-u", "s", APP) for _ in range(4)]
        try:
            losers = ended(servers, 3)
            assert [server.returncode for server in losers] == [1] * 3
            assert all(server.stderr.read().count("address is already in use") == 1 for server in losers)
            (winner,) = (server for server in servers if server.poll() is None)
            wait_for(lambda: os.path.exists("s"), "the socket")
            check("s")
            winner.terminate()
            assert winner.wait(10) == 0
        finally:
            for server in servers:
                server.kill()
                server.communicate()
        assert not os.path.exists("s")


def test_somebody_who_keeps_the_directory_locked_delays_the_start_only(short: Path) -> None:
    import fcntl

    directory = os.open(".", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with serve(APP, short, listen=["-u", "s"]):
            check("s")
    finally:
        os.close(directory)


def test_the_socket_of_a_successor_is_left_alone(short: Path) -> None:
    with serve(APP, short, listen=["-u", "s"]) as server:
        os.rename("s", "moved")
        with unix_listening("s"):
            server.stop()
            assert sorted(os.listdir()) == ["moved", "s", "server.log"]


@linux_only
@on_sockets
async def test_an_abstract_socket_is_served(caplog: pytest.LogCaptureFixture) -> None:
    import asyncio
    import logging

    caplog.set_level(logging.INFO)
    path = f"\0daphne-ng-test-{os.getpid()}"
    sys.path.insert(0, str(APPS))
    try:
        from addresses import application  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(APPS))
    async with serving(application, f"unix:{path}", lifespan="off"):
        said, _ = await asyncio.to_thread(told, path)
        assert (said["server"], said["client"]) == ([path, None], None)
    assert f"Listening on UNIX socket @{path[1:]}" in caplog.messages


# -- inherited sockets -----------------------------------------------------------------------------------------


def passing(moves: dict[int, socket.socket], *variables: str) -> dict[str, Any]:
    """Return the options of `serve` that start the server with these descriptors."""
    spelled = ",".join(f"{listener.fileno()}:{number}" for number, listener in moves.items())
    return {
        "program": (sys.executable, LAUNCH, spelled, *variables, "--", *SERVER),
        "inherit": [listener.fileno() for listener in moves.values()],
    }


def systemd(*listeners: socket.socket, names: str | None = None, pid: str = "@pid") -> dict[str, Any]:
    variables = [f"LISTEN_FDS={len(listeners)}", f"LISTEN_PID={pid}"]
    if names is not None:
        variables.append(f"LISTEN_FDNAMES={names}")
    return passing(dict(enumerate(listeners, 3)), *variables)


@pytest.mark.parametrize("form", [["--fd", "9"], ["-e", "fd:fileno=9"], ["-e", "fd:9"]])
def test_a_socket_of_circus_is_served(short: Path, form: list[str]) -> None:
    with listening() as inherited, serve(APP, short, listen=form, **passing({9: inherited})):
        check(inherited.getsockname())


@needs_ipv6
@pytest.mark.parametrize("address", ["::1", "::"])
def test_an_inherited_socket_of_ipv6_is_served(short: Path, address: str) -> None:
    with listening((address, 0), socket.AF_INET6) as inherited:
        with serve(APP, short, listen=["--fd", "9"], **passing({9: inherited})):
            port = inherited.getsockname()[1]
            check(("::1", port))
            if address == "::":
                check((HOST, port))


def test_an_inherited_unix_socket_is_served_and_its_file_left_alone(short: Path) -> None:
    with unix_listening("s") as inherited:
        os.chmod("s", 0o640)
        options = ["--fd", "9", "--unix-socket-mode", "666", "--unix-socket-owner", "12345"]
        with serve(APP, short, listen=options, **passing({9: inherited})):
            check("s")
            status = os.stat("s")
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o640, os.getuid())
        assert os.path.exists("s")
        # Nothing was shut down: the parent's socket still listens.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("s")


def test_processes_share_an_inherited_socket_and_one_outlives_the_other(short: Path) -> None:
    (short / "other").mkdir()
    with listening() as inherited:
        shared = passing({9: inherited})
        with serve(APP, short, listen=["--fd", "9"], **shared):
            with serve(APP, short / "other", listen=["--fd", "9", "--reuse-port", "--backlog", "1"], **shared):
                check(inherited.getsockname())
            check(inherited.getsockname())
        # In between requests wait in the queue.
        with contextlib.closing(http.client.HTTPConnection(*inherited.getsockname(), timeout=20)) as connection:
            connection.connect()
            connection.request("GET", "/")
            with serve(APP, short, listen=["--fd", "9"], **shared):
                assert connection.getresponse().status == 200


def test_standard_input_of_supervisor_is_served_and_does_not_become_another_socket(short: Path) -> None:
    (short / "reads.py").write_text(
        "import os, sys\n"
        "async def application(scope, receive, send):\n"
        "    await receive()\n"
        '    told = f\'{os.readlink("/proc/self/fd/0") if os.path.exists("/proc") else "/dev/null"} \'\n'
        "    told += repr(sys.stdin.read())\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': told.encode()})\n"
    )
    with listening() as inherited:
        options = passing({0: inherited})
        with serve("reads", short, "--lifespan=off", imports=short, listen=["--fd", "0"], **options) as server:
            for _ in range(3):
                with server.client() as client:
                    assert client.get(f"http://{HOST}:{inherited.getsockname()[1]}/").text == "/dev/null ''"


@needs_ipv6
def test_the_sockets_of_systemd_are_served_by_index(short: Path) -> None:
    with (
        listening() as one,
        unix_listening("s") as two,
        listening(("::", 0), socket.AF_INET6) as three,
        serve(
            APP,
            short,
            # A unit's ListenStream=PORT is IPv6 whatever the string says.
            listen=[f"-esystemd:domain={'INET' if n != 1 else 'UNIX'}:index={n}" for n in range(3)],
            **systemd(one, two, three),
        ) as server,
    ):
        wait_for(lambda: server.log.count("Listening on") == 3, "three endpoints")
        check(one.getsockname())
        check("s")
        check(("::1", three.getsockname()[1]))


def test_the_sockets_of_systemd_are_served_by_name(short: Path) -> None:
    with (
        listening() as one,
        unix_listening("s") as two,
        serve(
            APP,
            short,
            listen=["-e", "systemd:domain=UNIX:name=admin", "-e", "systemd:name=web.socket"],
            **systemd(one, two, names="web.socket:admin"),
        ) as server,
    ):
        wait_for(lambda: server.log.count("Listening on") == 2, "two endpoints")
        check(one.getsockname())
        check("s")


def test_the_units_of_the_documentation_belong_together(short: Path) -> None:
    examples = ROOT / "docs" / "examples" / "deploy"
    unit, service = ((examples / f"activated.{kind}").read_text("utf-8") for kind in ("socket", "service"))
    name = re.search("^FileDescriptorName=(.*)$", unit, re.M)
    command = re.search("^ExecStart=(.*)$", service, re.M)
    assert name is not None
    assert command is not None
    options = shlex.split(command[1])[1:-1]
    family = socket.AF_INET6 if has_ipv6() else socket.AF_INET
    with listening(("::1" if has_ipv6() else HOST, 0), family) as one:
        with serve(APP, short, listen=options, **systemd(one, names=name[1])):
            check(one.getsockname()[:2])


def test_the_sockets_of_systemd_are_there_when_twisted_has_read_the_environment_first(short: Path) -> None:
    (short / "embed.py").write_text(
        "import sys\n"
        "import twisted.internet.endpoints\n"
        "from daphne_ng.cli import CommandLineInterface\n"
        "CommandLineInterface.entrypoint()\n"
    )
    with listening() as one:
        options = systemd(one, names="web")
        options["program"] = (*options["program"][: -len(SERVER)], sys.executable, "embed.py")
        with serve(APP, short, listen=["-e", "systemd:domain=INET:name=web"], **options):
            check(one.getsockname())


@pytest.mark.parametrize("string", ["fd:fileno=3", "systemd:domain=INET:index=0"])
def test_an_inherited_socket_may_be_wrapped(short: Path, string: str) -> None:
    with listening() as inherited:
        with serve(APP, short, listen=["-e", f"haproxy:{string}"], **systemd(inherited)):
            with socket.create_connection(inherited.getsockname(), 10) as client:
                client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\nGET / HTTP/1.0\r\nHost: x\r\n\r\n")
                answer = b"".join(iter(lambda: client.recv(65536), b""))
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (said["server"], said["client"]) == (["192.0.2.2", 80], ["192.0.2.1", 1111])


# -- errors ----------------------------------------------------------------------------------------------------

NO_SUCH = "no-such-user-anywhere"


# The options, and what is said: by argparse after the usage (exit code 2), or in one line (exit code 1).
REFUSED: list[tuple[list[str], str]] = [
    (["-b", "192.0.2.1"], r"cannot listen on tcp:port=8000:interface=192.0.2.1: this machine has no such address"),
    (["-b", "no-such-host.invalid"], r"cannot listen on .*: the host name cannot be resolved \(.*\)"),
    (["-b", "eth99"], r"cannot listen on .*: the host name cannot be resolved \(.*\)"),
    (["-b", ":80"], r"daphne-ng: error: --bind :80: there is no address before the port"),
    (["-b", "a:http"], r"daphne-ng: error: --bind a:http: 'http' is not a port"),
    (["-b", "a:99999"], r"daphne-ng: error: --bind a:99999: a port must be between 0 and 65535"),
    (["-b", "http://a:80"], r"daphne-ng: error: --bind http://a:80: should read HOST or HOST:PORT"),
    (["-b", "unix:/run/s"], r"daphne-ng: error: --bind unix:/run/s: a UNIX socket is given with --unix-socket"),
    (["-p", "-1"], r"daphne-ng: error: --port must be between 0 and 65535, not -1"),
    (["--fd", "-1"], r"daphne-ng: error: a file descriptor must not be negative, and -1 is"),
    (["--fd", "99"], r"endpoint 'fd:fileno=99': descriptor 99 is not open"),
    (
        ["--fd", "0"],
        r"endpoint 'fd:fileno=0': descriptor 0 is not a socket: supervisor passes one .* \[fcgi-program\] section with .*",
    ),
    (["-e", "haproxy:fd:fileno=99"], r"endpoint 'haproxy:fd:fileno=99': descriptor 99 is not open"),
    (["-u", "no/such/s"], r"cannot listen on unix:no/such/s: no such directory"),
    (["-u", "/dev/null/s"], r"cannot listen on unix:/dev/null/s: Not a directory"),
    (
        ["-u", "x" * 130],
        r"cannot listen on unix:x+: the path is too long for a UNIX socket: it has 130 bytes, and 10[37] are allowed",
    ),
    (["-e", "unix:"], r"endpoint 'unix:': names no path"),
    (["-e", "unix:s:mode=rw"], r"endpoint 'unix:s:mode=rw': mode 'rw' should be three octal digits, such as 660"),
    (["-e", "unix:s:lockfile=x"], r"endpoint 'unix:s:lockfile=x': 'x' is not a number"),
    (["-e", "unix:s:color=red"], r"endpoint .*: wrong arguments: got an unexpected keyword argument 'color'"),
    (["-e", r"unix:s:owner=a\:"], r"endpoint .*: an owner should read USER, USER:GROUP or :GROUP, not 'a:'"),
    (["-u", "s", "--unix-socket-owner", NO_SUCH], rf"endpoint .*: there is no user '{NO_SUCH}'"),
    (["-u", "s", "--unix-socket-owner", f":{NO_SUCH}"], rf"endpoint .*: there is no group '{NO_SUCH}'"),
    (
        ["-u", "s", "--unix-socket-owner", "a:b:c"],
        r"daphne-ng: error: --unix-socket-owner should read USER, USER:GROUP or :GROUP, not 'a:b:c'",
    ),
    (
        ["-u", "s", "--unix-socket-mode", "999"],
        r"daphne-ng: error: --unix-socket-mode: mode '999' should be three octal digits, such as 660",
    ),
    (["--backlog", "0"], r"daphne-ng: error: --backlog must be at least 1, not 0"),
    (["-e", "systemd:domain=INET:index=0"], r"endpoint .*: no sockets were inherited: LISTEN_FDS is not set"),
    (["-e", "systemd:domain=INET"], r"endpoint .*: should name one socket, by index= or by name="),
    (["-e", "systemd:domain=X25:index=0"], r"endpoint .*: domain=X25 should be INET, INET6 or UNIX"),
    (["-e", "imap:143"], r"endpoint 'imap:143': unknown endpoint type: 'imap'"),
    (["-b", "a:80", "-p", "81"], r"usage: .*: argument -p/--port: every --bind names a port of its own"),
    (["--fd", "x"], r"usage: .*: argument --fd: invalid int value: 'x'"),
    (["--backlog", "many"], r"usage: .*: argument --backlog: invalid int value: 'many'"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """What becomes of each of `REFUSED`, and that none of them left a file behind."""
    directory = tmp_path_factory.mktemp("refused")
    done = subprocess.run(
        [sys.executable, Path(LAUNCH).with_name("refusals.py")],
        input=json.dumps([["-v", "0", *options, APP] for options, _ in REFUSED]),
        capture_output=True,
        text=True,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(APPS), *sys.path])},
        timeout=100,
        check=True,
    )
    assert os.listdir(directory) == []
    results: list[tuple[int, str]] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=[" ".join(options)[:40] for options, _ in REFUSED])
def test_an_endpoint_that_cannot_be_listened_on_is_one_line_and_an_exit_code(
    refused: list[tuple[int, str]], index: int
) -> None:
    (code, said), (_, line) = refused[index], REFUSED[index]
    if line.startswith("usage: "):
        assert code == 2
        assert re.fullmatch(line, said.strip(), re.DOTALL)
    else:
        assert code == 1
        assert re.fullmatch(line, without_time(said.rstrip("\n")))


@pytest.mark.parametrize(
    ("names", "pid", "string", "line"),
    [
        (None, "@pid", "index=2", "there is no socket 2: inherited are 0, 1"),
        ("web:admin", "@pid", "index=2", "there is no socket 2: inherited are 0 ('web'), 1 ('admin')"),
        ("web:admin", "@pid", "name=x", "no socket is named 'x': inherited are 0 ('web'), 1 ('admin')"),
        ("web:web", "@pid", "name=web", "2 sockets are named 'web': inherited are 0 ('web'), 1 ('web')"),
        (None, "@pid", "index=x", "index=x is not a number"),
        ("web", "1", "name=web", r"the inherited sockets are not for this process, \d+: LISTEN_PID names process 1"),
    ],
)
def test_a_socket_that_systemd_did_not_pass_is_told_with_those_that_it_did(
    short: Path, names: str | None, pid: str, string: str, line: str
) -> None:
    with listening() as one, listening() as two:
        options = systemd(one, two, names=names, pid=pid)
        said = refusal("-e", f"systemd:domain=INET:{string}", program=options["program"], pass_fds=options["inherit"])
    if "\\d" not in line:
        line = re.escape(line)
    assert re.fullmatch(re.escape(f"endpoint 'systemd:domain=INET:{string}': ") + line, said)


def test_a_dead_socket_in_a_directory_of_somebody_else_is_told(short: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may remove everything")
    with killed(short, "-u", "s"):
        os.chmod(".", 0o500)
        try:
            assert "cannot be removed" in refusal("-u", "s")
        finally:
            os.chmod(".", 0o700)


def test_one_endpoint_that_fails_ends_the_server_and_removes_what_the_others_made(short: Path) -> None:
    with listening() as taken:
        address = taken.getsockname()
        assert refusal("-u", "s", "-e", "tcp:0:interface=127.0.0.1", "-b", HOST, "-p", str(address[1]))
    assert os.listdir() == []


# -- plugins ---------------------------------------------------------------------------------------------------

PLUGINS = '''
from twisted.internet import defer, endpoints, interfaces, ssl
from twisted.plugin import IPlugin
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer


@implementer(interfaces.IStreamServerEndpoint)
class Plain:
    """Listens through the reactor that it is given."""

    def __init__(self, reactor, port):
        assert interfaces.IReactorTCP.providedBy(reactor)
        self.reactor, self.port = reactor, int(port)

    def listen(self, factory):
        return defer.execute(self.reactor.listenTCP, self.port, factory, interface="127.0.0.1")


@implementer(interfaces.IStreamServerEndpoint)
class Wrapper:
    """Delegates to another endpoint, a turn of the loop later."""

    def __init__(self, reactor, *description, **options):
        self.reactor = reactor
        parts = [*description, *("=".join(option) for option in options.items())]
        self.inner = endpoints.serverFromString(reactor, ":".join(parts))

    def listen(self, factory):
        later = defer.Deferred()
        self.reactor.callLater(0, later.callback, None)
        return later.addCallback(lambda _: self.inner.listen(factory))


@implementer(interfaces.IStreamServerEndpoint)
class Tls:
    """Has its own TLS, as txsni has."""

    def __init__(self, reactor, port, pem):
        self.reactor, self.port = reactor, int(port)
        with open(pem) as file:
            certificate = ssl.PrivateCertificate.loadPEM(file.read())
        self.options = certificate.options()

    def listen(self, factory):
        wrapped = TLSMemoryBIOFactory(self.options, False, factory)
        return defer.execute(self.reactor.listenTCP, self.port, wrapped, interface="127.0.0.1")


@implementer(IPlugin, interfaces.IStreamServerEndpointStringParser)
class Parser:
    def __init__(self, prefix, endpoint):
        self.prefix, self.endpoint = prefix, endpoint

    def parseStreamServer(self, reactor, *args, **kwargs):
        return self.endpoint(reactor, *args, **kwargs)


class Fails:
    def __init__(self, reactor, how="exception"):
        raise RuntimeError("broken\\nfor\\nexample")


plain = Parser("xyzplain", Plain)
wrapper = Parser("xyzwrap", Wrapper)
tls = Parser("xyztls", Tls)
fails = Parser("xyzfails", Fails)
'''

# As much of Daphne's own plugin as could get in the way.
DAPHNE = """
from twisted.plugin import IPlugin
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _FDParser:
    prefix = "fd"

    def parseStreamServer(self, reactor, *args, **kwargs):
        raise RuntimeError("the fd: endpoint of another package was asked")


parser = _FDParser()
"""


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """The environment in which Twisted finds the plugins."""
    directory = tmp_path / "site" / "twisted" / "plugins"
    directory.mkdir(parents=True)
    (directory / "xyz_endpoint.py").write_text(PLUGINS)
    (directory / "fd_endpoint.py").write_text(DAPHNE)
    return {"PYTHONPATH": os.pathsep.join([str(APPS), str(tmp_path / "site")])}


@pytest.mark.parametrize("string", ["xyzplain:0", "xyzwrap:tcp:0:interface=127.0.0.1", "xyzwrap:xyzplain:0"])
def test_a_plugin_of_another_package_is_served(short: Path, plugins: dict[str, str], string: str) -> None:
    with serve(APP, short, listen=["-e", string], environment=plugins) as server:
        check((HOST, server.port))


def test_a_plugin_may_be_wrapped(short: Path, plugins: dict[str, str]) -> None:
    with serve(APP, short, listen=["-e", "haproxy:xyzwrap:xyzplain:0"], environment=plugins) as server:
        with server.connect() as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\nGET / HTTP/1.0\r\nHost: x\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["client"] == ["192.0.2.1", 1111]


@pytest.mark.parametrize("http2", [True, False])
def test_a_plugin_with_tls_of_its_own_serves_everything(
    short: Path, plugins: dict[str, str], pem: Path, http2: bool
) -> None:
    import ssl

    # One for each client: they set the protocols that they offer.
    one, other = (ssl.create_default_context(cafile=str(pem)) for _ in range(2))
    one.check_hostname = other.check_hostname = False
    with serve(APP, short, listen=["-e", f"xyztls:0:{pem}"], environment=plugins) as server:
        url = f"https://localhost:{server.port}/"
        with httpx.Client(verify=one, http1=True, http2=http2, trust_env=False) as client:
            answer = client.get(url)
        said = answer.json()
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert (said["http_version"], said["scheme"]) == ("2" if http2 else "1.1", "https")
        assert said["server"] == [HOST, server.port]
        assert said["client"][0] == HOST
        with connect(f"wss://localhost:{server.port}/", ssl=other, proxy=None, server_hostname="localhost") as ws:
            said = json.loads(ws.recv())
            assert (said["type"], said["scheme"], said["client"]) == ("websocket", "wss", [*ws.local_address])


def test_a_plugin_that_fails_is_one_line(short: Path, plugins: dict[str, str]) -> None:
    assert refusal("-e", "xyzfails:", environment=plugins) == "endpoint 'xyzfails:': RuntimeError: broken for example"
    plain = refusal("-e", "xyzplain:no", environment=plugins)
    assert plain == "endpoint 'xyzplain:no': 'no' is not a number"


@pytest.mark.parametrize("form", [["--fd", "9"], ["-e", "haproxy:fd:fileno=9"]])
def test_descriptors_are_ours_where_daphne_is_installed_too(
    short: Path, plugins: dict[str, str], form: list[str]
) -> None:
    with listening() as inherited:
        with serve(APP, short, listen=form, environment=plugins, **passing({9: inherited})) as server:
            with socket.create_connection(inherited.getsockname(), 10) as client:
                line = b"PROXY UNKNOWN\r\n" if "-e" in form else b""
                client.sendall(line + b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
                assert b"".join(iter(lambda: client.recv(65536), b"")).startswith(b"HTTP/1.1 200")
            assert server.process.poll() is None


def test_nothing_of_ours_is_in_the_namespace_of_plugins() -> None:
    import importlib.metadata

    files = importlib.metadata.files("daphne-ng") or []
    assert [file for file in files if file.parts[0] == "twisted"] == []
