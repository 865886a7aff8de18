"""A Django project on the server: admin, forms, large uploads and downloads, event streams, where it is mounted."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from tests.support.processes.serving import (
    HOST,
    MIB,
    PROJECTS,
    SLACK,
    MemoryGrowth,
    Running,
    needs_procfs,
    serve,
    wait_for,
)

PROJECT = PROJECTS / "django_project"
APPLICATION = "guestbook.asgi:application"
PIECE = 64 * 1024

UPLOAD_BYTES = 300_000_000
DOWNLOAD_BYTES = 1 << 30
GROWTH_MAX_BYTES = 30 * MIB
"""Django's own share: its parser's and its spooled file's buffers, and what the allocator keeps of them."""


def prepare(directory: Path) -> dict[str, str]:
    """Make the project's database in a directory, and return the environment in which it is used."""
    environment = {"GUESTBOOK_DATA": str(directory), "DJANGO_SETTINGS_MODULE": "guestbook.settings"}
    account = {f"DJANGO_SUPERUSER_{name}": value for name, value in ADMIN.items()}
    for command in (["migrate", "-v", "0"], ["createsuperuser", "--noinput", "-v", "0"]):
        subprocess.run(
            [sys.executable, PROJECT / "manage.py", *command], check=True, env={**os.environ, **environment, **account}
        )
    return environment


ADMIN = {"USERNAME": "flora", "PASSWORD": "bay-leaf-42", "EMAIL": "flora@example.com"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("django")
    with serve(APPLICATION, directory, imports=PROJECT, environment=prepare(directory)) as running:
        # Django's own: its FileResponse, which serves the static files, is a synchronous iterator.
        running.expect("StreamingHttpResponse must consume synchronous iterators")
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def csrf_token(page: httpx.Response) -> str:
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token is not None, page.text
    return token[1]


# -- pages ------------------------------------------------------------------------------------------------------


def test_django_without_lifespan_is_served_and_the_log_says_so(server: Running) -> None:
    assert "The application has no lifespan (ValueError: Django can only handle ASGI/HTTP connections" in server.log


def test_the_admin_lets_its_user_in_and_adds_an_entry(client: httpx.Client) -> None:
    asked = client.get("/admin/")
    assert (asked.status_code, asked.headers["location"]) == (302, "/admin/login/?next=/admin/")
    login = client.get("/admin/login/", params={"next": "/admin/"})
    form = {"username": ADMIN["USERNAME"], "password": "wrong", "next": "/admin/"}
    refused = client.post("/admin/login/", data={**form, "csrfmiddlewaretoken": csrf_token(login)})
    assert refused.status_code == 200
    assert "Please enter the correct username" in refused.text
    form["password"] = ADMIN["PASSWORD"]
    entered = client.post(
        "/admin/login/", data={**form, "csrfmiddlewaretoken": csrf_token(refused)}, follow_redirects=True
    )
    assert (entered.status_code, entered.url.path) == (200, "/admin/")
    assert "Site administration" in entered.text
    assert "Entries" in entered.text

    add = client.get("/admin/guestbook/entry/add/")
    entry = {"name": "Laurel", "text": "from the admin", "csrfmiddlewaretoken": csrf_token(add)}
    added = client.post("/admin/guestbook/entry/add/", data=entry, follow_redirects=True)
    assert (added.status_code, added.url.path) == (200, "/admin/guestbook/entry/")
    assert "was added successfully" in added.text


def test_the_static_files_of_the_admin_are_served_and_cached(client: httpx.Client) -> None:
    style = client.get("/static/admin/css/base.css")
    assert style.status_code == 200
    assert style.headers["content-type"].startswith("text/css")
    assert len(style.content) == int(style.headers["content-length"]) > 1000
    again = client.get("/static/admin/css/base.css", headers={"If-Modified-Since": style.headers["last-modified"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_form_is_posted_with_its_csrf_token_and_redirected(client: httpx.Client) -> None:
    page = client.get("/")
    entry = {"name": "Björn", "text": "Grüße & <b>Äpfel</b> 🌿"}
    answer = client.post("/", data={**entry, "csrfmiddlewaretoken": csrf_token(page)})
    assert (answer.status_code, answer.headers["location"], answer.content) == (302, "/", b"")
    book = client.get("/").text
    assert "<b>Björn</b>: Grüße &amp; &lt;b&gt;Äpfel&lt;/b&gt; 🌿" in book


def test_a_form_without_its_token_is_refused_and_the_connection_stays(server: Running, client: httpx.Client) -> None:
    server.expect(r"Forbidden \(CSRF token missing")
    client.get("/")
    assert client.post("/", data={"name": "Mallory", "text": "x"}).status_code == 403
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/no/such/page", 404), ("/admin", 301), ("/static/no/such/file.css", 404)]
)
def test_other_statuses_of_django_arrive(server: Running, client: httpx.Client, path: str, status: int) -> None:
    server.expect("Not Found: /")
    assert client.get(path).status_code == status


def test_a_view_that_fails_is_answered_with_500(server: Running, client: httpx.Client) -> None:
    server.expect("Internal Server Error: /broken")
    answer = client.get("/broken")
    assert answer.status_code == 500
    assert "this view is broken" not in answer.text
    assert client.get("/where").status_code == 200


# -- requests ---------------------------------------------------------------------------------------------------


def test_path_query_headers_and_cookies_reach_the_view(client: httpx.Client) -> None:
    answer = client.get(
        "/echo/gr%C3%BC%C3%9Fe/%E6%97%A5%E6%9C%AC%2Fx?q=%C3%A4+b&q=c%26d&empty=&raw=/?",
        headers=[
            (b"X-Word", b"gr\xfc\xdfe; \"q\" 'x'"),
            (b"X-Many", b"a"),
            (b"X-Many", b"b"),
            (b"X_Hidden", b"underscore"),
            (b"Cookie", b"one=1; two=2"),
        ],
    )
    seen = answer.json()
    assert seen["rest"] == "grüße/日本/x"
    assert seen["path"] == seen["path_info"] == "/echo/grüße/日本/x"
    assert seen["script_name"] == ""
    assert seen["query"] == [["q", ["ä b", "c&d"]], ["empty", [""]], ["raw", ["/?"]]]
    assert seen["query_string"] == "q=%C3%A4+b&q=c%26d&empty=&raw=/?"
    assert seen["headers"]["X-Word"] == "grüße; \"q\" 'x'"
    assert seen["headers"]["X-Many"] == "a,b"
    assert "X-Hidden" not in seen["headers"]
    assert seen["cookies"] == {"one": "1", "two": "2"}
    assert seen["absolute"].startswith(str(client.base_url).rstrip("/") + "/echo/gr%C3%BC%C3%9Fe/")
    assert answer.headers.get_list("set-cookie") == ["first=1; Path=/", "second=2; HttpOnly; Path=/"]


def test_a_header_of_the_response_may_hold_what_latin_1_holds(server: Running) -> None:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    connection.request("GET", "/echo/x", headers={"X-Word": "caf\xe9"})
    assert connection.getresponse().getheader("X-Repeated") == "caf\xe9"
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_brings_its_body(client: httpx.Client, method: str) -> None:
    seen = client.request(method, "/echo/x", content="körper").json()
    assert (seen["method"], seen["body"]) == (method, "körper")


def test_a_form_arrives_in_chunks_too(client: httpx.Client) -> None:
    parts = (part.encode() for part in ["a=1&", "b=", "2&a=", "3"])
    seen = client.post("/echo/x", content=parts, headers={"Content-Type": "application/x-www-form-urlencoded"}).json()
    assert seen["form"] == [["a", ["1", "3"]], ["b", ["2"]]]
    assert seen["headers"]["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("path", ["/", "/echo/x", "/static/admin/css/base.css", "/download?pieces=2"])
def test_head_has_the_head_of_get_and_no_body(client: httpx.Client, path: str) -> None:
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    got = client.get(path)
    assert got.content
    varying = {"date", "transfer-encoding", "set-cookie"}
    if path == "/echo/x":  # it tells the method
        varying.add("content-length")
    assert {*head.headers.keys()} - varying == {*got.headers.keys()} - varying


# -- threads ----------------------------------------------------------------------------------------------------


def test_sync_views_run_side_by_side_and_do_not_hold_up_async_ones(server: Running) -> None:
    def fetch(path: str) -> httpx.Response:
        with server.client() as client:
            return client.get(path)

    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        blocking = [pool.submit(fetch, "/sleep?seconds=2") for _ in range(3)]
        time.sleep(0.2)
        answer = fetch("/where")
        assert not any(future.done() for future in blocking)
        assert answer.json() == {"main": True}
        assert [future.result().text for future in blocking] == ["slept"] * 3
    assert time.monotonic() - started < 5.5  # one after the other they would take 6


# -- large bodies -----------------------------------------------------------------------------------------------


@needs_procfs
def test_an_upload_of_300_mb_goes_to_disk_within_bounded_memory(
    server: Running, client: httpx.Client, block: bytes
) -> None:
    boundary = "leaf"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="note"\r\n\r\nbefore the file\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="noise.bin"\r\n'
        "Content-Type: application/x-noise\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def send(size: int) -> tuple[dict[str, object], str]:
        digest = hashlib.sha256()

        def body() -> Iterator[bytes]:
            yield head
            left = size
            while left:
                part = block[:left]
                digest.update(part)
                yield part
                left -= len(part)
            yield tail

        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        answer = client.post("/upload", content=body(), headers=headers, timeout=110)
        assert answer.status_code == 200, answer.text
        return answer.json(), digest.hexdigest()

    send(8 * MIB)  # what the first upload needs once is not what is measured
    growth = MemoryGrowth(server)
    seen, digest = send(UPLOAD_BYTES)
    assert seen == {
        "name": "noise.bin",
        "type": "application/x-noise",
        "size": UPLOAD_BYTES,
        "sha256": digest,
        "on_disk": True,
        "note": "before the file",
    }
    growth.check(GROWTH_MAX_BYTES)
    assert list(server.directory.glob("*.upload*")) == []  # Django's temporary files are gone


@needs_procfs
def test_a_streamed_download_of_1_gb_arrives_whole_within_bounded_memory(server: Running) -> None:
    filling = bytes(range(256)) * (PIECE // 256)
    connection = http.client.HTTPConnection(HOST, server.port, timeout=60)
    connection.request("GET", "/download?pieces=16")
    connection.getresponse().read()
    growth = MemoryGrowth(server)
    pieces = DOWNLOAD_BYTES // PIECE
    connection.request("GET", f"/download?pieces={pieces}")
    response = connection.getresponse()
    assert response.getheader("Transfer-Encoding") == "chunked"
    piece = bytearray(PIECE)
    view = memoryview(piece)
    for number in range(pieces):
        read = 0
        while read < PIECE:
            count = response.readinto(view[read:])
            assert count, f"the body ended in piece {number}"
            read += count
        if piece[:8] != number.to_bytes(8, "big") or piece[8:] != filling[8:]:
            pytest.fail(f"piece {number} is not what was sent")
    assert response.read() == b""
    growth.check(GROWTH_MAX_BYTES)
    connection.request("GET", "/where")  # the same connection serves on
    assert json.load(connection.getresponse()) == {"main": True}
    connection.close()


# -- clients that leave -----------------------------------------------------------------------------------------


def ended(client: httpx.Client, name: str) -> bool:
    return client.get(f"/witness/{name}").json()["ago"] is not None


@pytest.mark.parametrize("every", [None, "0.05"], ids=["a silent stream", "a busy stream"])
def test_an_event_stream_ends_within_a_second_of_its_client(server: Running, every: str | None) -> None:
    name = f"events-{every}"
    with server.client() as witness, server.client() as browser:
        with browser.stream("GET", "/events", params={"name": name} | ({"every": every} if every else {})) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            lines = answer.iter_lines()
            assert next(lines) == "data: 1"
            if every:
                assert [next(lines) for _ in range(4)] == ["", "data: 2", "", "data: 3"]
            assert not ended(witness, name)
        wait_for(lambda: ended(witness, name), "the view to end", seconds=SLACK)


def test_an_async_view_is_cancelled_within_a_second_of_its_client_leaving(server: Running) -> None:
    with server.client() as witness:
        with server.connect() as connection:
            connection.sendall(b"GET /slow?name=slow HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            assert not ended(witness, "slow")
        wait_for(lambda: ended(witness, "slow"), "the view to end", seconds=SLACK)


def test_an_upload_that_breaks_off_leaves_the_server_well(server: Running, client: httpx.Client) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=leaf\r\n"
            b"Content-Length: 100000000\r\n\r\n" + b"x" * MIB
        )
    assert client.get("/where").status_code == 200


# -- where the project is mounted -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "settings", "path"),
    [
        (["--root-path", "/mounted"], {}, "/mounted/echo/gr%C3%BCn"),
        ([], {"GUESTBOOK_SCRIPT_NAME": "/mounted"}, "/mounted/echo/gr%C3%BCn"),
        ([], {"GUESTBOOK_SCRIPT_NAME": "/mounted"}, "/echo/gr%C3%BCn"),
    ],
    ids=["root path", "force script name", "force script name behind a proxy that cuts the prefix"],
)
def test_a_project_below_a_prefix_makes_urls_with_it(
    options: list[str], settings: dict[str, str], path: str, tmp_path: Path
) -> None:
    environment = {"GUESTBOOK_DATA": str(tmp_path), **settings}
    with serve(APPLICATION, tmp_path, *options, imports=PROJECT, environment=environment) as running:
        with running.client() as client:
            seen = client.get(path).json()
            redirect = client.get("/mounted/admin/")
    assert (seen["script_name"], seen["path_info"]) == ("/mounted", "/echo/grün")
    assert (seen["path"], seen["reverse"]) == (unquote(path), "/mounted/echo/there")
    # The static files' handler does not see the database; the login needs none either.
    assert redirect.headers["location"].startswith("/mounted/admin/login/")
