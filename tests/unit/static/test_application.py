"""`daphne_ng.static.application`: who answers a request, and what is sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daphne_ng.config import Config
from daphne_ng.errors import ConfigurationError, UnexpectedMessage
from daphne_ng.static.application import StaticFiles, check_directories

TIME = 1_700_000_000
DATE = b"Tue, 14 Nov 2023 22:13:20 GMT"
LARGE = bytes(range(256)) * 2000


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


# What the server makes of a message with a file.
def sent_file(message: dict[str, Any]) -> dict[str, Any]:
    if message["type"] != "http.response.zerocopysend":
        return message
    offset, count, descriptor = message["offset"], message["count"], message["file"].fileno()
    if offset + count > os.fstat(descriptor).st_size:
        raise UnexpectedMessage("'count' is too large")
    return {
        "type": "http.response.body",
        "body": os.pread(descriptor, count, offset),
        "more_body": message["more_body"],
    }


class Answer:
    """What one request was answered with."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status = messages[0]["status"]
        self.headers = dict(messages[0]["headers"])
        assert len(self.headers) == len(messages[0]["headers"])
        self.body = b"".join(message.get("body", b"") for message in messages[1:])
        assert all(message.get("more_body") for message in messages[1:-1])
        assert not messages[-1].get("more_body")


class Site:
    """Files in front of an application, on a loop and a clock of the test's."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.now = 0.0
        config = Config(static=(f"/static={root}",), **settings)
        self.files = StaticFiles(application, config, lambda: self.now)

    def ask(
        self,
        path: str,
        method: str = "GET",
        query: bytes = b"",
        root_path: str = "",
        sent: list[Any] | None = None,
        **fields: bytes,
    ) -> Answer:
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "root_path": root_path,
            "query_string": query,
            "headers": [(name.replace("_", "-").encode(), value) for name, value in fields.items()],
        }
        messages: list[Any] = [] if sent is None else sent

        async def send(message: Any) -> None:
            messages.append(sent_file(message))

        async def ask() -> None:
            await self.files(scope, None, send)  # type: ignore[arg-type]

        self.loop.run_until_complete(ask())
        return Answer(messages)

    def close(self) -> None:
        self.files.close()
        self.loop.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    write(tmp_path / "a.css", b"0123456789")
    write(tmp_path / "empty.txt", b"")
    write(tmp_path / "large.bin", LARGE)
    write(tmp_path / "docs" / "index.html", b"index")
    return tmp_path


def write(file: Path, content: bytes, modified: int = TIME) -> None:
    file.write_bytes(content)
    os.utime(file, (modified, modified))


@pytest.fixture
def site(root: Path) -> Iterator[Site]:
    site = Site(root)
    yield site
    site.close()


def test_a_file_is_sent(site: Site) -> None:
    answer = site.ask("/static/a.css")

    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.headers[b"content-type"] == b"text/css; charset=utf-8"
    assert answer.headers[b"content-length"] == b"10"
    assert answer.headers[b"last-modified"] == DATE


def test_a_large_file_is_sent(site: Site) -> None:
    answer = site.ask("/static/large.bin")

    assert (answer.status, answer.body) == (200, LARGE)
    assert answer.headers[b"content-length"] == b"%d" % len(LARGE)


@pytest.mark.parametrize("path", ["/static/a.css", "/static/large.bin"])
def test_the_head_is_that_of_the_file(site: Site, path: str) -> None:
    full, head = site.ask(path), site.ask(path, "HEAD", range=b"bytes=0-0")

    assert (head.status, head.headers) == (200, full.headers)


@pytest.mark.parametrize("path", ["/static/none", "/static/", "/static", "/staticx/a.css", "/", "/static/docs/"])
def test_the_application_answers_for_everything_else(site: Site, path: str) -> None:
    answer = site.ask(path)

    assert (answer.status, answer.body) == (299, path.encode())


@pytest.mark.parametrize("path", ["//static/a.css", "/x/../static//./a.css", "/static/docs/../a.css"])
def test_the_decision_is_made_on_the_normalised_path(site: Site, path: str) -> None:
    assert site.ask(path).body == b"0123456789"


@pytest.mark.parametrize("path", ["/static/../secret", "/static/../../../etc/passwd", "/static/.git/config"])
def test_the_application_sees_such_a_path_as_it_was_sent(site: Site, path: str) -> None:
    assert site.ask(path).body == path.encode()


def test_a_prefix_is_below_the_root_path(site: Site) -> None:
    assert site.ask("/app/static/a.css", root_path="/app").status == 200
    assert site.ask("/static/a.css", root_path="/app").status == 200
    assert site.ask("/app/static/a.css").status == 299


def test_what_is_no_request_is_the_applications(site: Site) -> None:
    seen: list[str] = []

    async def other(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    site.files._application = other
    site.loop.run_until_complete(site.files({"type": "websocket", "path": "/static/a.css"}, None, None))  # type: ignore[arg-type]
    assert seen == ["websocket"]


def test_a_miss_is_404_if_it_is_to_be(root: Path) -> None:
    site = Site(root, static_not_found=True)
    try:
        assert [site.ask(path).status for path in ("/static/none", "/static/.git", "/other")] == [404, 404, 299]
        assert site.ask("/static/none", "POST").status == 404
    finally:
        site.close()


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "QUERY"])
def test_a_file_can_be_read_alone(site: Site, method: str) -> None:
    answer = site.ask("/static/a.css", method)

    assert (answer.status, answer.headers[b"allow"]) == (405, b"GET, HEAD")
    assert site.ask("/static/none", method).status == 299


def test_a_directory_has_a_slash_at_its_end(root: Path) -> None:
    site = Site(root, static_index="index.html")
    try:
        answer = site.ask("/static/docs", query=b"a=b")
        assert (answer.status, answer.headers[b"location"]) == (301, b"./docs/?a=b")
        assert site.ask("/static/docs/").body == b"index"
        assert site.ask("/static/docs", "POST").status == 405
    finally:
        site.close()


def test_a_client_that_has_the_file_does_not_get_it_again(site: Site) -> None:
    etag = site.ask("/static/a.css").headers[b"etag"]
    answer = site.ask("/static/a.css", if_none_match=etag)

    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers == {b"etag": etag, b"last-modified": DATE}
    assert site.ask("/static/large.bin", if_modified_since=DATE).status == 304
    assert site.ask("/static/a.css", if_match=b'"x"').status == 412


@pytest.mark.parametrize("name", ["a.css", "large.bin"])
def test_a_part_is_sent(site: Site, name: str) -> None:
    full = site.ask(f"/static/{name}").body
    answer = site.ask(f"/static/{name}", range=b"bytes=3-5")

    assert (answer.status, answer.body) == (206, full[3:6])
    assert answer.headers[b"content-range"] == b"bytes 3-5/%d" % len(full)
    assert answer.headers[b"content-length"] == b"3"


@pytest.mark.parametrize("name", ["a.css", "large.bin"])
def test_several_parts_are_sent(site: Site, name: str) -> None:
    full = site.ask(f"/static/{name}").body
    answer = site.ask(f"/static/{name}", range=b"bytes=0-1,-2")

    assert answer.status == 206
    assert b"content-range" not in answer.headers
    media_type, boundary = answer.headers[b"content-type"].split(b"; boundary=")
    assert media_type == b"multipart/byteranges"
    assert answer.headers[b"content-length"] == b"%d" % len(answer.body)
    parts = answer.body.split(b"--" + boundary)
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [full[:2] + b"\r\n", full[-2:] + b"\r\n"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"range": b"bytes=10-"}, 416),
        ({"range": b"bytes=" + b",".join([b"0-9"] * 1000)}, 200),
        ({"range": b"bytes=0-" + b"9" * 6000}, 206),
        ({"range": b"lines=0-1"}, 200),
        ({"range": b"bytes=0-1", "if_range": b'"x"'}, 200),
        ({"range": b"bytes=0-1", "if_range": DATE}, 206),
        ({"range": b"bytes=0-1", "if_modified_since": DATE}, 304),
    ],
)
def test_what_a_range_comes_to(site: Site, fields: dict[str, bytes], status: int) -> None:
    answer = site.ask("/static/a.css", **fields)

    assert answer.status == status
    if status == 416:
        assert answer.headers[b"content-range"] == b"bytes */10"


def test_an_empty_file_is_sent_whole(site: Site) -> None:
    answer = site.ask("/static/empty.txt", range=b"bytes=0-5")
    assert (answer.status, answer.headers[b"content-length"], answer.body) == (200, b"0", b"")


def test_a_file_is_looked_up_again_after_a_while(site: Site, root: Path) -> None:
    assert site.ask("/static/a.css").body == b"0123456789"
    write(root / "a.css", b"new", TIME + 1)
    site.now = 0.9
    assert site.ask("/static/a.css").body == b"0123456789"
    site.now = 1.0
    assert site.ask("/static/a.css").body == b"new"
    (root / "a.css").unlink()
    site.now = 2.0
    assert site.ask("/static/a.css").status == 299


def test_the_memory_has_an_end(root: Path) -> None:
    site = Site(root, static_cache_bytes=10_000)
    try:
        for number in range(20):
            write(root / f"{number}.txt", b"x" * 1000)
            assert site.ask(f"/static/{number}.txt").body == b"x" * 1000
        kept = site.files._kept
        assert [key[1] for key in kept._entries] == ["/17.txt", "/18.txt", "/19.txt"]
        assert kept._room == 10_000 - 3 * 3048
        assert site.ask("/static/large.bin").body == LARGE
        assert len(kept._entries) == 3
        site.now = 5
        assert site.ask("/static/19.txt").body == b"x" * 1000
        assert kept._room == 10_000 - 3 * 3048
    finally:
        site.close()


def test_no_descriptor_is_left_open(site: Site) -> None:
    site.ask("/static/a.css")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/static/a.css", "/static/large.bin", "/static/docs", "/static/none"):
        for method in ("GET", "HEAD", "POST"):
            site.ask(path, method)
    site.ask("/static/large.bin", range=b"bytes=0-1,5-6")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("fields", [{}, {"range": b"bytes=0-1,-2"}], ids=["whole", "parts"])
def test_a_file_that_has_become_shorter_is_a_line(
    site: Site, root: Path, caplog: pytest.LogCaptureFixture, fields: dict[str, bytes]
) -> None:
    class Shrinking(list[Any]):
        def append(self, message: Any) -> None:
            os.truncate(root / "large.bin", 100_000)
            super().append(message)

    answer = site.ask("/static/large.bin", sent=Shrinking(), **fields)

    assert len(answer.body) < int(answer.headers[b"content-length"])
    assert [record.getMessage() for record in caplog.records] == [
        f"Cannot send the rest of {root / 'large.bin'}: it has become shorter"
    ]


def test_a_request_that_is_cancelled_leaves_no_descriptor(site: Site) -> None:
    site.ask("/static/a.css")
    before = len(os.listdir("/proc/self/fd"))

    async def send(message: Any) -> None:
        pass

    async def cancel() -> None:
        scope = {"type": "http", "method": "GET", "path": "/static/large.bin", "root_path": "", "headers": []}
        for turns in (1, 2, 3, 10, 20):
            task = asyncio.ensure_future(site.files(scope, None, send))  # type: ignore[arg-type]
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        # What runs in the threads ends before what comes behind it.
        for _ in range(8):
            await asyncio.get_running_loop().run_in_executor(site.files._threads, len, "")

    site.loop.run_until_complete(cancel())
    site.files._threads.shutdown()
    site.loop.run_until_complete(asyncio.sleep(0))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_that_does_not_exist_is_refused(root: Path) -> None:
    config = Config(static=(f"/static={root}", f"/other={root}/none"))
    with pytest.raises(ConfigurationError, match="^--static: cannot serve the directory '.*none': No such file"):
        check_directories(config)
    with pytest.raises(ConfigurationError, match=r"a\.css': Not a directory"):
        check_directories(Config(static=(f"/static={root}/a.css",)))
