"""Channels on the server: its consumers, groups, users of Django, and what its middleware refuses."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.integration.test_django import ADMIN, PROJECT, csrf_token, prepare
from tests.support.processes.serving import HOST, Running, serve, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("channels")
    environment = {**prepare(directory), "GUESTBOOK_HOSTS": "127.0.0.1 garden.example"}
    with serve("guestbook.asgi:with_channels", directory, imports=PROJECT, environment=environment) as running:
        yield running


def dial(server: Running, path: str, **more: Any) -> ClientConnection:
    return connect(f"ws://{HOST}:{server.port}/ws/{path}", **{"proxy": None, "origin": server.url, **more})


def ask(ws: ClientConnection, message: Any) -> Any:
    ws.send(json.dumps(message))
    return json.loads(ws.recv(5))


def refused(server: Running, path: str, **more: Any) -> int:
    with pytest.raises(InvalidStatus) as caught:
        with dial(server, path, **more):
            pass
    return caught.value.response.status_code


def test_a_synchronous_consumer_talks_and_writes_to_the_database(server: Running) -> None:
    with dial(server, "sync", subprotocols=["guest.v1"]) as ws:
        assert ws.subprotocol == "guest.v1"
        assert ws.response is not None
        assert ws.response.headers["x-kind"] == "sync"
        ws.send("Grüße")
        assert ws.recv(5) == "1 written"
        ws.send(b"\x00" * 70_000 + b"\x01")
        assert ws.recv(5) == b"\x01" + b"\x00" * 70_000
        ws.send("close")
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert (ws.close_code, ws.close_reason) == (4001, "as you wish")
    with server.client() as client:
        assert "Grüße" in client.get("/").text


def test_a_consumer_learns_the_close_code_of_its_client(server: Running) -> None:
    with dial(server, "sync") as ws:
        ws.close(4321, "bye")
    with dial(server, "asyncjson") as other:
        wait_for(lambda: ask(other, "?")["closed"].get("sync") == 4321, "the consumer to see it")


def test_json_consumers_talk(server: Running) -> None:
    with dial(server, "json") as ws:
        assert ask(ws, {"a": [1, "é"]}) == {"heard": {"a": [1, "é"]}}
    with dial(server, "asyncjson") as ws:
        assert ask(ws, {})["user"] == "AnonymousUser"


def test_what_is_sent_to_a_group_reaches_every_socket_in_it(server: Running) -> None:
    with dial(server, "room/north") as one, dial(server, "room/north") as two, dial(server, "room/south") as other:
        one.send("hello")
        assert one.recv(5) == two.recv(5) == "hello"
        two.send("hello yourself")
        assert one.recv(5) == two.recv(5) == "hello yourself"
        two.close(1001)
        assert one.recv(5) == "somebody left with 1001"
        with pytest.raises(TimeoutError):
            other.recv(0.1)


def test_many_sockets_of_a_group_hear_everything_in_order(server: Running) -> None:
    count, messages = 12, 20

    def listen(ws: ClientConnection) -> list[str | bytes]:
        return [ws.recv(10) for _ in range(messages)]

    with ThreadPoolExecutor(count) as pool, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(server, "room/many")) for _ in range(count)]
        heard = [pool.submit(listen, ws) for ws in sockets]
        for number in range(messages):
            sockets[0].send(str(number))
        for future in heard:
            assert future.result() == [str(number) for number in range(messages)]


def test_a_user_of_django_is_known_by_the_session(server: Running) -> None:
    with server.client() as client:
        login = client.get("/admin/login/")
        form = {
            "username": ADMIN["USERNAME"],
            "password": ADMIN["PASSWORD"],
            "next": "/admin/",
            "csrfmiddlewaretoken": csrf_token(login),
        }
        assert client.post("/admin/login/", data=form).status_code == 302
        cookie = f"sessionid={client.cookies['sessionid']}"
    with dial(server, "members", additional_headers={"Cookie": cookie}) as ws:
        assert ws.recv(5) == f"hello {ADMIN['USERNAME']}"


@pytest.mark.parametrize("how", ["", "?deny"], ids=["close", "DenyConnection"])
def test_a_consumer_refuses_with_403(server: Running, how: str) -> None:
    assert refused(server, f"members{how}") == 403


def test_a_consumer_that_stops_before_it_answers_is_500(server: Running) -> None:
    server.expect("Application returned without accepting or closing WebSocket /ws/members")
    assert refused(server, "members?stop") == 500


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None], ids=["another", "null", "none"])
def test_a_foreign_origin_is_refused_with_403(server: Running, origin: str | None) -> None:
    assert refused(server, "json", origin=origin) == 403
    with dial(server, "json", origin="https://garden.example") as ws:
        assert ask(ws, 1) == {"heard": 1}


def test_a_path_without_a_consumer_is_500_and_one_traceback(server: Running) -> None:
    server.expect("Exception inside application: No route found for path 'ws/nowhere'.")
    before = server.log.count("Traceback")
    assert refused(server, "nowhere") == 500
    assert server.log.count("Traceback") == before + 1


def test_a_consumer_that_fails_closes_with_1011(server: Running) -> None:
    server.expect("Exception inside application: this consumer is broken")
    with dial(server, "asyncjson") as ws:
        ws.send('"fail"')
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert ws.close_code == 1011


def test_pages_are_served_while_sockets_are_open(server: Running) -> None:
    with dial(server, "json") as ws, server.client() as client:
        assert isinstance(client.get("/"), httpx.Response)
        assert client.get("/").status_code == 200
        assert ask(ws, 1) == {"heard": 1}
