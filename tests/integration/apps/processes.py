"""Starts servers by `daphne_ng.testing` in every way, and prints what came of it: ``processes.py START_METHOD``."""

import asyncio
import json
import multiprocessing
import socket
import sys
import time
import urllib.request
from queue import Empty
from typing import Any

from daphne_ng.testing import BaseDaphneTestingInstance, DaphneProcess, DaphneTestingInstance, _reinstall_reactor


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Greet; /stuck never does, in a thread."""
    if scope["type"] == "lifespan":
        raise ValueError(scope["type"])
    if scope["path"] == "/stuck":
        await asyncio.to_thread(time.sleep, 600)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello " + str(scope["client"][0]).encode()})


def get_hello() -> Any:
    """Return the application."""
    return hello


class NotPicklable(Exception):
    """Cannot be sent to another process."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = multiprocessing.RLock


def get_nothing() -> Any:
    """Fail."""
    raise LookupError("there is no application")


def get_less() -> Any:
    """Fail with what cannot be pickled."""
    raise NotPicklable(1, 2)


class Marks:
    """Notes in shared memory who was called."""

    def __init__(self) -> None:
        self.calls = multiprocessing.Array("c", 64)

    def setup(self) -> None:
        """Before serving."""
        self.calls.value += b"setup "

    def teardown(self) -> None:
        """After it."""
        self.calls.value += b"teardown"


class Tidy:
    """An application that takes its time when its client has left, as one does that has a database to write to."""

    def __init__(self) -> None:
        self.began = multiprocessing.Event()
        self.ended = multiprocessing.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Wait for the client's end, and some time longer."""
        if scope["type"] == "lifespan":
            raise ValueError(scope["type"])
        self.began.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(1)
        self.ended.set()


class OwnRun(DaphneProcess):
    """Its `run` is made after Daphne's, as that of projects which change something in the process first."""

    def run(self) -> None:
        """Serve."""
        _reinstall_reactor()

        from twisted.internet import reactor

        from daphne_ng.endpoints import build_endpoint_description_strings
        from daphne_ng.server import Server

        endpoints = build_endpoint_description_strings(host=self.host, port=0)
        self.server = Server(self.get_application(), endpoints, signal_handlers=False, **self.kwargs)
        reactor.callLater(0.1, self.resolve_port)
        self.server.run()


def fetch(port: int, path: str = "/", **headers: str) -> str:
    """Return a page."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        return response.read().decode()


def serve(get_application: Any, kind: type[DaphneProcess] = DaphneProcess, **more: Any) -> DaphneProcess:
    """Start a process, and wait until it listens or has ended."""
    process = kind("127.0.0.1", get_application, **more)
    process.start()
    while not process.ready.wait(0.05) and process.is_alive():
        pass
    return process


def end(process: DaphneProcess) -> dict[str, Any]:
    """Terminate a process, and return how that went."""
    began = time.monotonic()
    process.terminate()
    process.join(15)
    try:
        error, text = process.errors.get(timeout=0.1)
    except Empty:
        errors = None
    else:
        errors = [type(error).__name__, str(error), "Traceback" in text]
    return {
        "alive": process.is_alive(),
        "ready": process.ready.is_set(),
        "code": process.exitcode,
        "seconds": time.monotonic() - began,
        "errors": errors,
    }


def results() -> dict[str, Any]:
    """Do everything."""
    found: dict[str, Any] = {}
    marks = Marks()
    process = serve(get_hello, setup=marks.setup, teardown=marks.teardown, kwargs={"server_name": "mine"})
    found["page"] = fetch(process.port.value)
    found["plain"] = end(process)
    found["calls"] = marks.calls.value.decode()

    process = serve(get_hello, OwnRun)
    found["own run"] = fetch(process.port.value)
    end(process)

    process = serve(get_hello)
    with socket.create_connection(("127.0.0.1", process.port.value)) as client:
        client.sendall(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
        found["stuck"] = end(process)

    found["no application"] = end(serve(get_nothing))
    found["not picklable"] = end(serve(get_less))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found["port in use"] = end(serve(get_hello, port=taken.getsockname()[1]))
    found["wrong keyword"] = end(serve(get_hello, kwargs={"http_timeout": "soon"}))

    with BaseDaphneTestingInstance(xff=True, application=hello) as instance:
        found["forwarded"] = fetch(instance.port, **{"X-Forwarded-For": "192.0.2.1"})
    try:
        with BaseDaphneTestingInstance(http_timeout=-1, application=hello):
            pass
    except RuntimeError as error:
        found["instance"] = str(error).splitlines()[-1]

    tidy = Tidy()
    with BaseDaphneTestingInstance(application=tidy) as instance:
        with socket.create_connection(("127.0.0.1", instance.port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            tidy.began.wait(15)
        found["tidy"] = tidy.ended.wait(15)

    with DaphneTestingInstance() as noting:
        try:
            noting.get_received()
        except ValueError as error:
            found["nothing"] = str(error)
        noting.add_send_messages(
            [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": b"as told"}]
        )
        found["told"] = fetch(noting.port, "/x?y=1")
        scope, messages = noting.get_received()
        found["noted"] = [scope["path"], scope["query_string"].decode(), sorted(scope), messages[0]["type"]]
        while len(noting.get_received()[1]) < 2:  # its disconnect would take what is meant for the next request
            time.sleep(0.02)
        noting.add_send_messages([{"type": "http.response.start", "status": "200"}])
        try:
            fetch(noting.port)
        except urllib.error.HTTPError as error:
            found["failed"] = error.code
        try:
            noting.get_received()
        except ValueError as error:
            found["raised"] = str(error)
    return found


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    print(json.dumps(results()))
