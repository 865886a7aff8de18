"""`Server.run` where the process is not the server's alone: in threads, again and again, and on a reactor that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.once


ROOT = Path(__file__).parents[2]

PRELUDE = """
import asyncio, logging, os, signal, sys, threading, time, urllib.request
logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
from daphne_ng.server import Server

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    async def parts():
        yield type(asyncio.get_running_loop()).__module__.encode()
    async for part in parts():  # which a loop that has ended its generators complains about
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": part})

def get(server):
    (address,) = server.listening_addresses
    return urllib.request.urlopen("http://%s:%d/" % address, timeout=10).read().decode()

def serve_in_thread(server):
    ready = threading.Event()
    server.ready_callable = ready.set
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(20)
    return thread

LOCAL = ["tcp:0:interface=127.0.0.1"]
"""


def run(program: str) -> list[str]:
    """Run a program that must end well and complain of nothing; return the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program)],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_run_in_a_thread_serves_until_stop_and_leaves_the_signals_alone() -> None:
    assert run(
        """
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        server = Server(application, LOCAL)
        thread = serve_in_thread(server)
        print(get(server))
        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        server.stop()
        thread.join(20)
        print(thread.is_alive(), server.exit_code)
        """
    ) == ["uvloop", "False 0"]


def test_run_can_be_called_again_in_whatever_thread_and_whoever_holds_the_reactor_goes_on_with_it() -> None:
    assert run(
        """
        from daphne_ng.net import reactor as reactors
        reactors.install()
        from twisted.internet import reactor, threads
        fired = []
        def serve(server):
            def answered(answer):
                print(answer)
                server.stop()
            server.ready_callable = lambda: threads.deferToThread(get, server).addCallback(answered)
            reactor.callWhenRunning(fired.append, "whenRunning")
            reactor.addSystemEventTrigger("before", "shutdown", fired.append, "shutdown")
            server.run()
        same = Server(application, LOCAL)
        serve(same)
        serve(same)
        reactor.callLater(0, fired.append, "before the run")
        thread = threading.Thread(target=serve, args=[Server(application, LOCAL)])
        thread.start()
        thread.join(20)
        serve(Server(application, LOCAL))
        print(*fired)
        """
    ) == [
        "uvloop",
        "uvloop",
        "uvloop",
        "uvloop",
        "whenRunning shutdown whenRunning shutdown whenRunning before the run shutdown whenRunning shutdown",
    ]


def test_servers_run_in_several_threads_at_a_time_and_end_each_by_itself() -> None:
    assert run(
        """
        servers = [Server(application, LOCAL) for _ in range(3)]
        threads = [serve_in_thread(server) for server in servers]
        print([get(server) for server in servers])
        for index in (0, 2, 1):
            servers[index].stop()
            threads[index].join(20)
            print([thread.is_alive() for thread in threads])
        """
    ) == [
        "['uvloop', 'uvloop', 'uvloop']",
        "[False, True, True]",
        "[False, True, False]",
        "[False, False, False]",
    ]


@pytest.mark.parametrize("how", ["stop", "signal", "reactor"])
def test_on_a_reactor_that_runs_in_another_thread_it_serves_and_the_reactor_goes_on(how: str) -> None:
    assert run(
        f"""
        how = {how!r}
        from daphne_ng.net import reactor as reactors
        from twisted.internet.threads import blockingCallFromThread
        before = signal.getsignal(signal.SIGINT)
        reactor = reactors.install()
        running = threading.Event()
        reactor.callWhenRunning(running.set)
        other = threading.Thread(target=reactor.run, kwargs={{"installSignalHandlers": False}})
        other.start()
        assert running.wait(20)
        def use():
            print(get(server), blockingCallFromThread(reactor, threading.get_ident) == other.ident)
            if how == "stop":
                server.stop()
            elif how == "signal":
                os.kill(os.getpid(), signal.SIGINT)
            else:
                reactor.callFromThread(reactor.stop)
        server = Server(application, LOCAL, ready_callable=lambda: threading.Thread(target=use).start())
        server.run()
        print(server.exit_code, how == "reactor" or reactor.running)
        if how != "reactor":
            reactor.callFromThread(reactor.stop)
        other.join(20)
        print(other.is_alive(), signal.getsignal(signal.SIGINT) == before)
        """
    ) == ["uvloop True", "0 True", "False True"]


def test_a_reactor_in_another_thread_that_crashes_does_not_leave_run_waiting() -> None:
    assert run(
        """
        from daphne_ng.net import reactor as reactors
        reactor = reactors.install()
        running = threading.Event()
        reactor.callWhenRunning(running.set)
        other = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
        other.start()
        assert running.wait(20)
        try:
            Server(application, LOCAL, ready_callable=reactor.crash).run()
        except Exception as error:
            print(type(error).__name__, error)
        other.join(20)
        """
    ) == ["ReactorError the reactor ended without its shutdown, and with it the server that ran there"]


def test_a_stock_reactor_that_has_run_is_an_error_of_one_line() -> None:
    assert run(
        """
        from twisted.internet import asyncioreactor
        asyncioreactor.install(asyncio.new_event_loop())
        server = Server(application, LOCAL, ready_callable=lambda: server.stop())
        server.run()
        try:
            server.run()
        except Exception as error:
            print(type(error).__name__, error)
        """
    ) == [
        "ReactorError AsyncioSelectorReactor has run in this process, and cannot run again; daphne-ng's own reactor can"
    ]


def test_run_where_an_event_loop_runs_is_an_error_that_names_what_to_call() -> None:
    (line,) = run(
        """
        async def main():
            try:
                Server(application, LOCAL).run()
            except Exception as error:
                print(type(error).__name__, error)
        asyncio.run(main())
        """
    )
    assert line.startswith("ReactorError") and "await server.serve()" in line
