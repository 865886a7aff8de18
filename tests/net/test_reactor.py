"""The reactor itself: what importing and installing do, and its life inside and outside a running asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, clientFromString, serverFromString
from twisted.internet.error import ReactorAlreadyRunning
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from daphne_ng.errors import ConfigurationError, ReactorError
from daphne_ng.net import reactor as module
from daphne_ng.net.reactor import DaphneReactor, event_loop_of
from daphne_ng.net.sockets.loops import check_loop, kind_of_loop, new_event_loop
from daphne_ng.net.sockets.ports import TCPPort, UNIXPort


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


def echo_factory() -> Any:
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    return factory


def ask(port: Any, data: bytes = b"ping") -> bytes:
    with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=5) as client:
        client.sendall(data)
        return client.recv(100)


# -- importing and installing (each in its own process)


def test_importing_installs_nothing():
    assert (
        python(
            """
            import sys
            import daphne_ng, daphne_ng.net.reactor as r
            print("twisted.internet.reactor" in sys.modules, r.current())
            """
        )
        == "False None"
    )


def test_install_makes_ours_the_global_reactor_and_its_loop_the_current_one():
    assert (
        python(
            """
            import asyncio, warnings
            from daphne_ng.net import reactor as r
            installed = r.install()
            from twisted.internet import reactor
            print(type(reactor).__name__, reactor is installed, r.install() is installed, r.current() is installed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                print(asyncio.get_event_loop() is r.event_loop_of(reactor))
            reactor.callWhenRunning(reactor.stop)
            reactor.run()
            reactor.close()
            """
        )
        == "DaphneReactor True True True\nTrue"
    )


def test_install_inside_a_running_loop_takes_that_loop():
    assert (
        python(
            """
            import asyncio
            from daphne_ng.net import reactor as r
            async def main():
                reactor = r.install()
                print(r.event_loop_of(reactor) is asyncio.get_running_loop())
                reactor.close()
            asyncio.run(main())
            """
        )
        == "True"
    )


def test_install_takes_twisteds_asyncio_reactor_without_a_word():
    assert (
        python(
            """
            import asyncio, logging
            logging.basicConfig(format="%(levelname)s %(message)s", stream=__import__("sys").stdout)
            from twisted.internet import asyncioreactor
            loop = asyncio.new_event_loop()
            asyncioreactor.install(loop)
            from daphne_ng.net import reactor as r
            from twisted.internet import reactor
            print(r.install() is reactor, r.event_loop_of(reactor) is loop)
            loop.close()
            """
        )
        == "True True"
    )


def test_install_replaces_a_reactor_that_is_not_asyncios_with_one_warning_that_names_the_way_out():
    said = python(
        """
        import logging, sys
        logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
        from twisted.internet import selectreactor
        selectreactor.install()
        from daphne_ng.net import reactor as r
        from twisted.internet import reactor as foreign
        assert r.install() is r.install()
        from twisted.internet import reactor
        print(type(reactor).__name__, r.current() is reactor)
        try:
            r.event_loop_of(foreign)
        except r.ReactorError as error:
            print(error)
        """
    ).splitlines()
    assert said[0].startswith("WARNING SelectReactor was installed already")
    assert "daphne_ng.net.reactor.install()" in said[0]
    assert said[1:] == ["DaphneReactor True", "SelectReactor does not run on an asyncio event loop"]


def test_install_refuses_a_reactor_that_runs_elsewhere_than_on_asyncio():
    said = python(
        """
        from twisted.internet import selectreactor
        selectreactor.install()
        from twisted.internet import reactor
        from daphne_ng.net import reactor as r
        def look():
            try:
                r.install()
            except r.ReactorError as error:
                print(error)
            reactor.stop()
        reactor.callWhenRunning(look)
        reactor.run()
        print(r.current() is reactor)
        """
    ).splitlines()
    assert said[0].startswith("SelectReactor runs in this process, and not on asyncio")
    assert said[1:] == ["True"]


def test_a_reactor_that_does_not_run_gets_a_loop_of_the_kind_that_is_asked_for():
    assert (
        python(
            """
            import asyncio
            from daphne_ng.net import reactor as r
            from daphne_ng.net.sockets.loops import kind_of_loop
            first = r.install(kind="asyncio")
            print(kind_of_loop(r.event_loop_of(first)))
            for kind in ("auto", "uvloop", "asyncio"):
                again = r.install(kind=kind)
                print(again is first, kind_of_loop(r.event_loop_of(again)))
            async def main():
                first.attach()
                try:
                    r.install(kind="uvloop")
                except r.ReactorError as error:
                    print(error)
                await first.detach()
            r.event_loop_of(first).run_until_complete(main())
            first.close()
            """
        )
        == "asyncio\nTrue asyncio\nTrue uvloop\nTrue asyncio\n"
        "--loop uvloop: a reactor is installed already, on a loop of asyncio's"
    )


@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_the_stock_reactor_is_exactly_twisteds_and_hears_of_children_on_either_loop(kind):
    assert (
        python(
            f"""
            import logging, sys
            logging.basicConfig(stream=sys.stdout)
            from daphne_ng.net import reactor as r
            from daphne_ng.net.sockets.loops import kind_of_loop
            installed = r.install(kind={kind!r}, stock=True)
            from twisted.internet import reactor
            from twisted.internet.asyncioreactor import AsyncioSelectorReactor
            from twisted.internet.utils import getProcessOutput
            assert r.install(stock=True) is reactor
            print(type(reactor) is AsyncioSelectorReactor, kind_of_loop(r.event_loop_of(reactor)))
            def run():
                getProcessOutput("/bin/echo", [b"child"]).addCallback(print).addBoth(lambda _: reactor.stop())
            reactor.callWhenRunning(run)
            reactor.callLater(20, reactor.stop)
            reactor.run()
            r.event_loop_of(reactor).close()
            """
        )
        == f"True {kind}\nb'child\\n'"
    )


def test_the_stock_reactor_is_refused_where_ours_is_installed():
    assert "install(stock=True)" in python(
        """
        from daphne_ng.net import reactor as r
        r.install()
        try:
            r.install(stock=True)
        except r.ReactorError as error:
            print(error)
        """
    )


def test_sigterm_stops_the_reactor_and_a_child_that_exits_is_noticed():
    assert (
        python(
            """
            import os, signal, sys
            from daphne_ng.net import reactor as r
            from twisted.internet.protocol import ProcessProtocol
            reactor = r.DaphneReactor()
            class Child(ProcessProtocol):
                def processEnded(self, reason):
                    print("child", reason.value.exitCode)
                    os.kill(os.getpid(), signal.SIGTERM)
            reactor.callWhenRunning(
                reactor.spawnProcess, Child(), sys.executable, [sys.executable, "-c", "raise SystemExit(3)"]
            )
            reactor.addSystemEventTrigger("during", "shutdown", print, "shutdown")
            reactor.run()
            reactor.close()
            print(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, "twisted.internet.reactor" in sys.modules)
            """
        )
        == "child 3\nshutdown\nTrue False"
    )


# -- making one


def test_a_new_event_loop_is_uvloops_where_there_is_uvloop():
    uvloop = pytest.importorskip("uvloop")
    with contextlib.closing(module.new_event_loop()) as loop:
        assert isinstance(loop, uvloop.Loop)


def test_without_uvloop_a_new_event_loop_is_asyncios(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with contextlib.closing(module.new_event_loop()) as loop:
        assert isinstance(loop, asyncio.SelectorEventLoop)


def test_the_kind_of_a_new_loop_can_be_chosen(monkeypatch):
    with contextlib.closing(new_event_loop("asyncio")) as loop:
        assert isinstance(loop, asyncio.SelectorEventLoop)
        assert kind_of_loop(loop) == "asyncio"
    check_loop("auto")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    for call in (check_loop, new_event_loop):
        with pytest.raises(ConfigurationError, match="uvloop is not installed here; --loop asyncio"):
            call("uvloop")


def test_the_running_loop_is_taken_when_none_is_given(loop):
    async def main() -> None:
        reactor = DaphneReactor()
        assert event_loop_of(reactor) is loop
        reactor.close()
        reactor.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


def test_close_closes_a_loop_that_the_reactor_made():
    reactor = DaphneReactor()
    reactor.close()
    assert event_loop_of(reactor).is_closed()


def test_what_has_no_asyncio_loop_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="object does not run on an asyncio event loop"):
        event_loop_of(object())


# -- running by itself


def test_it_runs_stops_and_fires_its_triggers_in_order(loop):
    reactor = DaphneReactor(loop)
    seen = []
    for phase in ("before", "during", "after"):
        reactor.addSystemEventTrigger(phase, "startup", seen.append, f"{phase} startup")
        reactor.addSystemEventTrigger(phase, "shutdown", seen.append, f"{phase} shutdown")
    reactor.callWhenRunning(lambda: reactor.callLater(0.01, reactor.stop))
    reactor.run(installSignalHandlers=False)
    reactor.close()
    phases = [f"{phase} {event}" for event in ("startup", "shutdown") for phase in ("before", "during", "after")]
    assert seen == phases
    assert not reactor.getDelayedCalls()


def test_crash_stops_it_without_triggers_and_it_can_run_again(loop):
    reactor = DaphneReactor(loop)
    seen = []
    reactor.addSystemEventTrigger("before", "shutdown", seen.append, "shutdown")
    for _ in range(2):
        reactor.callLater(0, reactor.crash)
        reactor.run(installSignalHandlers=False)
        assert seen == []
    reactor.close()


def test_iterate_runs_what_is_due(loop):
    reactor = DaphneReactor(loop)
    seen = []
    reactor.callLater(0, seen.append, "due")
    reactor.iterate()
    assert seen == ["due"]
    reactor.close()


def test_two_reactors_run_in_two_threads():
    global_before = sys.modules.get("twisted.internet.reactor")
    ports: list[Any] = []
    reactors: list[Any] = []
    ready = threading.Barrier(3)
    # One for the process, which Twisted makes without a lock: two threads at once would each make one.
    tcp._reservedFD.reserve()

    def serve() -> None:
        reactor = DaphneReactor()
        reactors.append(reactor)
        ports.append(reactor.listenTCP(0, echo_factory(), interface="127.0.0.1"))
        reactor.callWhenRunning(ready.wait)
        reactor.run(installSignalHandlers=False)
        reactor.close()

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait(5)
    for port in ports:
        assert ask(port) == b"ping"
    for reactor in reactors:
        reactor.callFromThread(reactor.stop)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert sys.modules.get("twisted.internet.reactor") is global_before


# -- inside a running loop


def test_attached_it_serves_endpoints_timers_and_threads_beside_the_program(run, loop):
    async def main(reactor):
        port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(echo_factory()).asFuture(loop)
        reader, writer = await asyncio.open_connection("127.0.0.1", port.getHost().port)
        writer.write(b"ping")
        assert await reader.read(100) == b"ping"
        writer.close()
        await writer.wait_closed()
        assert await deferLater(reactor, 0.01, lambda: "later").asFuture(loop) == "later"
        called: asyncio.Future[str] = loop.create_future()
        await asyncio.to_thread(reactor.callFromThread, called.set_result, "from a thread")
        assert await called == "from a thread"
        in_thread: asyncio.Future[Any] = loop.create_future()
        reactor.callInThread(lambda: reactor.callFromThread(in_thread.set_result, threading.current_thread()))
        assert await in_thread is not threading.current_thread()

    run(main)


def test_attach_fires_startup_and_detach_fires_shutdown_while_the_loop_goes_on(loop):
    reactor = DaphneReactor(loop)
    seen: list[str] = []
    reactor.addSystemEventTrigger("after", "startup", seen.append, "startup")

    async def main() -> None:
        before = signal.getsignal(signal.SIGTERM)
        reactor.attach()
        assert reactor.running
        assert signal.getsignal(signal.SIGTERM) is before
        waited: Deferred[None] = Deferred()
        reactor.addSystemEventTrigger("before", "shutdown", lambda: waited)
        reactor.addSystemEventTrigger("after", "shutdown", seen.append, "shutdown")
        port = reactor.listenTCP(0, echo_factory(), interface="127.0.0.1")
        detached = reactor.detach()
        assert reactor.detach() is detached
        await asyncio.sleep(0.02)
        assert not detached.done()  # a shutdown trigger may take its time
        assert seen == ["startup"]
        waited.callback(None)
        await detached
        assert seen == ["startup", "shutdown"]
        assert not reactor.running
        assert not port.connected
        await asyncio.sleep(0.01)  # the loop still turns

    loop.run_until_complete(main())
    reactor.close()


def test_it_can_attach_again_after_it_detached(run):
    for _ in range(3):
        port = run(lambda reactor: ping(reactor))
        assert not port.connected


async def ping(reactor: Any) -> Any:
    port = reactor.listenTCP(0, echo_factory(), interface="127.0.0.1")
    assert await asyncio.to_thread(ask, port) == b"ping"
    return port


def test_stop_and_crash_while_attached_leave_the_loop_running(loop):
    reactor = DaphneReactor(loop)

    async def main() -> None:
        reactor.attach()
        reactor.crash()
        assert not reactor.running
        await asyncio.sleep(0.01)
        reactor.attach()
        reactor.stop()
        await reactor.detach()  # joins the shutdown that stop() began
        assert not reactor.running
        await reactor.detach()  # nothing left to do
        reactor.attach()
        await reactor.detach()

    loop.run_until_complete(main())
    reactor.close()


def test_attaching_where_it_cannot_be_is_an_error(loop):
    reactor = DaphneReactor(loop)
    with pytest.raises(ReactorError, match="only to its own asyncio loop"):
        reactor.attach()

    async def foreign() -> None:
        with pytest.raises(ReactorError, match="only to its own asyncio loop"):
            reactor.attach()

    asyncio.run(foreign())

    async def twice() -> None:
        reactor.attach()
        with pytest.raises(ReactorError, match="running already"):
            reactor.attach()
        with pytest.raises(ReactorAlreadyRunning):
            reactor.run(installSignalHandlers=False)
        await reactor.detach()

    loop.run_until_complete(twice())
    reactor.close()


def test_detaching_what_was_not_attached_is_an_error(loop):
    reactor = DaphneReactor(loop)
    caught = []

    def detach() -> None:
        with pytest.raises(ReactorError, match="stop it with stop"):
            reactor.detach()
        caught.append(True)
        reactor.stop()

    reactor.callWhenRunning(detach)
    reactor.run(installSignalHandlers=False)
    reactor.close()
    assert caught


# -- listening


@pytest.mark.parametrize(
    ("description", "backlog", "port_class"),
    [
        ("tcp:0:interface=127.0.0.1", 2048, TCPPort),
        ("tcp:0:interface=127.0.0.1:backlog=7", 7, TCPPort),
        ("unix:{path}", 2048, UNIXPort),
        ("unix:{path}:backlog=9:lockfile=0", 9, UNIXPort),
    ],
)
def test_endpoint_strings_get_our_ports_and_our_backlog_unless_they_name_one(
    run, loop, tmp_path, description, backlog, port_class
):
    async def main(reactor):
        endpoint = serverFromString(reactor, description.format(path=tmp_path / "s"))
        port = await endpoint.listen(echo_factory()).asFuture(loop)
        assert type(port) is port_class
        assert port.backlog == backlog
        await port.stopListening().asFuture(loop)

    run(main)


def test_endpoint_objects_get_our_ports(run, loop):
    async def main(reactor):
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(echo_factory()).asFuture(loop)
        assert type(port) is TCPPort

    run(main)


def test_twisteds_clients_work_on_it(run, loop):
    class Asking(Protocol):
        def connectionMade(self) -> None:
            self.answer = loop.create_future()
            self.transport.write(b"ping")

        def dataReceived(self, data: bytes) -> None:
            self.answer.set_result(data)
            self.transport.loseConnection()

    async def main(reactor):
        port = reactor.listenTCP(0, echo_factory(), interface="127.0.0.1")
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
        client: Any = await endpoint.connect(Factory.forProtocol(Asking)).asFuture(loop)
        assert await client.answer == b"ping"

    run(main)


def test_regular_files_can_be_read_although_no_loop_polls_them(run, tmp_path):
    from twisted.internet.abstract import FileDescriptor

    (tmp_path / "file").write_bytes(b"content")

    async def main(reactor):
        with (tmp_path / "file").open("rb") as file:
            read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            class Reader(FileDescriptor):
                def fileno(self) -> int:
                    return file.fileno()

                def doRead(self) -> None:
                    read.set_result(file.read())
                    reactor.removeReader(self)

            reader = Reader(reactor)
            reactor.addReader(reader)
            reactor.addReader(reader)
            assert reader in reactor.getReaders()
            assert await read == b"content"
            assert reader not in reactor.getReaders()

    run(main)


def test_a_call_later_fires_in_time_and_not_early(run, loop):
    async def main(reactor):
        begin = time.monotonic()
        await deferLater(reactor, 0.05).asFuture(loop)
        assert 0.049 <= time.monotonic() - begin < 5

    run(main)


# -- running again


def test_renewed_it_runs_again_on_a_new_loop_and_delayed_calls_come_along():
    reactor = DaphneReactor()
    first = event_loop_of(reactor)
    reactor.callWhenRunning(reactor.stop)
    reactor.run(installSignalHandlers=False)
    fired = []
    reactor.callLater(0, fired.append, "delayed")
    module.make_ready(reactor)
    assert first.is_closed()
    assert event_loop_of(reactor) is not first
    reactor.addSystemEventTrigger("during", "shutdown", fired.append, "shutdown")
    reactor.callWhenRunning(lambda: threading.Thread(target=reactor.callFromThread, args=[reactor.stop]).start())
    reactor.run(installSignalHandlers=False)
    assert fired == ["delayed", "shutdown"]
    reactor.close()


def test_a_reactor_keeps_the_loop_that_it_was_given_unless_that_was_closed(loop):
    reactor = DaphneReactor(loop)
    module.make_ready(reactor)  # has not run: nothing to do
    for _ in range(2):
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        module.make_ready(reactor)
        assert event_loop_of(reactor) is loop
    loop.close()
    module.make_ready(reactor)
    assert event_loop_of(reactor) is not loop
    reactor.callWhenRunning(reactor.stop)
    reactor.run(installSignalHandlers=False)
    reactor.close()


def test_what_runs_or_was_closed_cannot_be_renewed(run):
    async def main(reactor):
        with pytest.raises(ReactorError, match="cannot be renewed"):
            reactor.renew()

    run(main)
