"""FastAPI on the server: lifespan, JSON, validation, uploads, dependencies, and where it is mounted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.processes.serving import HOST, MIB, Running, serve, wait_for

APPLICATION = "fastapi_app:application"
FERN = {"name": "Farn", "leaves": 7}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(APPLICATION, tmp_path_factory.mktemp("fastapi"), "--lifespan", "on") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_the_lifespan_makes_the_store_and_closes_it(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--lifespan", "on") as running, running.client() as client:
        assert client.post("/plants", json=FERN).status_code == 201
    assert "the store closes with ['Farn']" in running.log


def test_json_goes_in_and_comes_out(client: httpx.Client) -> None:
    created = client.post("/plants", json={"name": "Löwenzahn 🌼", "leaves": 12})
    assert (created.status_code, created.json()) == (201, {"name": "Löwenzahn 🌼", "leaves": 12})
    assert client.get("/plants/Löwenzahn 🌼").json() == created.json()
    deleted = client.delete("/plants/Löwenzahn 🌼")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "content-length" not in deleted.headers
    missing = client.get("/plants/Löwenzahn 🌼")
    assert (missing.status_code, missing.json()) == (404, {"detail": "no such plant"})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"name": "", "leaves": 1}', ["body", "name"]),
        (b'{"name": "Moos", "leaves": -1}', ["body", "leaves"]),
        (b'{"name": "Moos"}', ["body", "leaves"]),
        (b"{", ["body", 1]),
        (b"", ["body"]),
    ],
)
def test_what_is_not_valid_is_answered_with_422(client: httpx.Client, body: bytes, where: list[str | int]) -> None:
    answer = client.post("/plants", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == where


def test_a_dependency_is_closed_after_its_request(client: httpx.Client) -> None:
    before = client.get("/sessions").json()
    client.post("/plants", json=FERN)
    wait_for(lambda: client.get("/sessions").json() == before + 1, "the session to be closed")


def test_a_file_is_uploaded(client: httpx.Client, block: bytes) -> None:
    data = block * 20
    answer = client.post("/photo", data={"title": "Ein Blatt"}, files={"photo": ("blatt.jpg", data, "image/jpeg")})
    digest = hashlib.sha256(data).hexdigest()
    assert answer.json() == {"title": "Ein Blatt", "name": "blatt.jpg", "size": 20 * MIB, "sha256": digest}


def test_an_upload_without_its_file_is_answered_with_422(client: httpx.Client) -> None:
    assert client.post("/photo", data={"title": "x"}).status_code == 422


def test_a_background_task_runs_after_the_answer(client: httpx.Client) -> None:
    assert client.post("/later", json={"name": "Later", "leaves": 1}).json() == "later"
    assert client.get("/plants/Later").status_code == 404
    wait_for(lambda: client.get("/plants/Later").status_code == 200, "the task to run")


def test_a_synchronous_generator_is_streamed(client: httpx.Client) -> None:
    answer = client.get("/count?to=500")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.text == "".join(f"{number}\n" for number in range(500))


@pytest.mark.parametrize(("method", "status"), [("PUT", 405), ("HEAD", 405), ("GET", 405)])
def test_another_method_is_answered_with_405(client: httpx.Client, method: str, status: int) -> None:
    answer = client.request(method, "/plants")
    assert (answer.status_code, answer.headers["allow"]) == (status, "POST")


def test_its_documentation_knows_the_root_path(tmp_path: Path) -> None:
    with serve(APPLICATION, tmp_path, "--root-path", "/garden") as running, running.client() as client:
        assert client.get("/garden/openapi.json").json()["servers"] == [{"url": "/garden"}]
        assert "url: '/garden/openapi.json'" in client.get("/garden/docs").text
        assert client.post("/garden/plants", json=FERN).status_code == 201


# -- WebSockets -------------------------------------------------------------------------------------------------


def ws_url(server: Running, path: str) -> str:
    return f"ws://{HOST}:{server.port}{path}"


def test_a_websocket_has_its_path_its_query_and_its_dependencies(server: Running, client: httpx.Client) -> None:
    closed = client.get("/sessions").json()
    cookie = {"Cookie": "cookie=Ash"}
    with connect(ws_url(server, "/garden/ivy?times=2"), proxy=None, additional_headers=cookie) as ws:
        ws.send("grow")
        for _ in range(2):
            assert json.loads(ws.recv(5)) == {"who": "Ash", "plant": "ivy", "text": "grow"}
        assert client.get("/sessions").json() == closed  # a session is open while its socket is
    wait_for(lambda: client.get("/sessions").json() == closed + 1, "the session to be closed")
    assert client.get("/plants/ivy-Ash").json()["name"] == "closed with 1000"


def test_a_dependency_refuses_a_websocket(server: Running) -> None:
    with pytest.raises(InvalidStatus) as refused:
        with connect(ws_url(server, "/garden/ivy"), proxy=None):
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/garden/ivy?token=x&times=many", "/no/such/socket"])
def test_a_websocket_that_is_not_valid_is_refused(server: Running, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        with connect(ws_url(server, path), proxy=None):
            pass
    assert refused.value.response.status_code in (403, 404)


def test_an_exception_of_the_endpoint_closes_with_its_code_and_reason(server: Running) -> None:
    with connect(ws_url(server, "/garden/ivy?token=x"), proxy=None) as ws:
        ws.send("weed")
        with pytest.raises(ConnectionClosed):
            ws.recv(5)
        assert (ws.close_code, ws.close_reason) == (4004, "no weeds")


def test_a_denial_response_reaches_the_client(server: Running) -> None:
    with pytest.raises(InvalidStatus) as denied:
        with connect(ws_url(server, "/garden/nettle?token=x"), proxy=None):
            pass
    assert (denied.value.response.status_code, denied.value.response.body) == (423, b"it stings\n")
