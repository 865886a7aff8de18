"""HTTP/2 clients that mean harm, on a real server: each is stopped early and cheaply, and nobody else notices.

A flood ends in GOAWAY ENHANCE_YOUR_CALM and one line in the log. Meanwhile a bystander on a connection of its own is
served as ever, and the memory of the server stays where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import h2
from tests.support.h2 import block, continuation, data, fields, frame, headers, rst, settings, window_update
from tests.support.h2_peer import Peer, post, request
from tests.support.processes.framed import Bystander, Site, serve_both
from tests.support.processes.serving import MIB, SLACK, MemoryGrowth, needs_procfs, wait_for

pytestmark = [needs_procfs, pytest.mark.once]

CALM = h2.ENHANCE_YOUR_CALM
INITIAL_WINDOW = 4

# What a flood may cost at most, and how long another client may have to wait meanwhile (0.5 s on a busy machine).
MOST_BYTES = 6 * MIB
SLOWEST_SECONDS = 1.0 * SLACK


@pytest.fixture(scope="module")
def sites(pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    environment = {"PYTHONDEVMODE": "", "PYTHONMALLOC": ""}
    options = ("--head-timeout", "2", "--application-close-timeout", "2", "--access-log", "/dev/null")
    directory = tmp_path_factory.mktemp("attacks")
    with serve_both(pem, directory, *options, environment=environment) as sites:
        for site in sites.values():  # what only the first requests need is not what is measured
            with site.connect([(INITIAL_WINDOW, MIB)]) as peer:
                peer.send(window_update(0, 8 * MIB))
                for path in (b"/hello", b"/bytes/1000000", b"/pieces/10", b"/large-head"):
                    peer.get(path)
        yield sites


@pytest.fixture(params=["tls", "clear"])
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


def attack(site: Site, wire: Callable[[Peer], bytes] | bytes, *before: bytes) -> Peer:
    """Flood the server, and return the client when the server has had enough of it."""
    growth = MemoryGrowth(site.running)
    with Bystander(site) as bystander, site.connect() as peer:
        peer.send(*before)
        peer.settle()
        begun = time.monotonic()
        peer.flood(wire if isinstance(wire, bytes) else wire(peer))
        peer.wait_closed(5 * SLACK)
        assert time.monotonic() - begun < 5 * SLACK
        assert [code for _last, code, _detail in peer.goaways] == [CALM]
        assert site.endings(peer) == [CALM]
        time.sleep(0.02)
    assert bystander.slowest < SLOWEST_SECONDS
    growth.check(MOST_BYTES)
    return peer


# -- resets ----------------------------------------------------------------------------------------------------------


def test_rapid_reset(site: Site) -> None:
    """CVE-2023-44487."""
    before = site.counts()["began"].get("/wait", 0)
    attack(site, b"".join(request(b"/wait", stream=n) + rst(n) for n in range(1, 20_001, 2)))
    site.wait_for_rest()
    assert site.counts()["began"].get("/wait", 0) - before <= 201


def test_rapid_reset_of_one_after_the_other(site: Site) -> None:
    before = site.counts()["began"].get("/wait", 0)
    with site.connect() as peer:
        for n in range(1, 2001, 2):
            peer.send(request(b"/wait", stream=n))
            peer.send(rst(n))
            if n % 40 == 1:
                peer.settle()
                if peer.goaways:
                    break
        assert [code for _last, code, _detail in peer.goaways] == [CALM]
        peer.wait_closed()
        assert site.endings(peer) == [CALM]
    site.wait_for_rest()
    assert site.counts()["began"]["/wait"] - before < 300
    assert site.counts()["most"]["/wait"] <= 100


PROVOCATIONS: dict[str, Callable[[int], bytes]] = {
    "a window update of 0": lambda n: request(b"/wait", stream=n) + window_update(n, 0),
    "a window that overflows": lambda n: request(b"/wait", stream=n) + window_update(n, 2**31 - 1),
    "data behind the end": lambda n: request(b"/wait", stream=n) + data(n, b"x"),
    "headers behind the end": lambda n: request(b"/wait", stream=n) * 2,
    "trailers that do not end": lambda n: post(n, b"/wait") + headers(n, [(b"x", b"y")], end=False),
    "a body that is too long": lambda n: post(n, b"/wait", (b"content-length", b"1")) + data(n, b"xy"),
    "a body that is too short": lambda n: post(n, b"/wait", (b"content-length", b"2")) + data(n, b"x", end=True),
    "malformed trailers": lambda n: post(n, b"/wait") + headers(n, [(b":path", b"/")]),
    "malformed requests": lambda n: headers(n, [(b":method", b"GET")]),
    "a priority of a wrong size": lambda n: post(n, b"/wait") + frame(h2.PRIORITY, 0, n, b"123"),
    "a dependency on itself": lambda n: frame(
        h2.HEADERS, 0x25, n, n.to_bytes(4, "big") + b"\0" + block(fields(b"GET", b"/wait"))
    ),
}


@pytest.mark.parametrize("provocation", PROVOCATIONS)
def test_made_you_reset(site: Site, provocation: str) -> None:
    """CVE-2025-8671."""
    before = site.counts()["began"].get("/wait", 0)
    attack(site, b"".join(map(PROVOCATIONS[provocation], range(1, 10_001, 2))))
    site.wait_for_rest()
    counts = site.counts()
    assert counts["began"].get("/wait", 0) - before <= 300
    assert counts["most"].get("/wait", 0) <= 100


def test_streams_beyond_the_limit(site: Site) -> None:
    before = site.counts()["began"].get("/wait", 0)
    attack(site, b"".join(request(b"/wait", stream=n) for n in range(1, 10_001, 2)))
    site.wait_for_rest()
    assert site.counts()["began"]["/wait"] - before <= 100


def test_a_browser_that_cancels_a_hundred_slow_requests_is_no_attacker(site: Site) -> None:
    with site.connect() as peer:
        for _page in range(2):
            streams = [peer.new(b"/wait") for _ in range(99)]
            peer.settle()
            peer.send(*(rst(stream) for stream in streams))
            wait_for(lambda: peer.get(b"/counts").body.count(b'"/wait": 0'), "the tasks to end")
        assert peer.get().status == 200
        assert not peer.goaways
        assert site.endings(peer) == []


def test_data_and_resets_race_without_a_loss_of_window(site: Site) -> None:
    """Six MiB of bodies whose streams are reset behind them: the window of the connection is given back, to the byte."""
    growth = MemoryGrowth(site.running)
    with site.connect() as peer:
        peer.wait(lambda: peer.updates, "the first window")
        sent = 0
        for _ in range(100):
            stream = peer.new(b"/sink", method=b"POST", end=False)
            while 65535 + peer.updates - sent < 65535:
                peer.read()
            peer.send(*[data(stream, bytes(13107))] * 4, rst(stream))
            sent += 4 * 13107
        peer.settle()
        assert 65535 + peer.updates - sent >= 512 * 1024
        assert peer.get().status == 200
        assert not peer.goaways
    growth.check(MOST_BYTES)


def test_responses_and_resets_race_without_a_loss_of_window(site: Site) -> None:
    with site.connect() as peer:
        received = granted = 0
        for _ in range(100):
            stream = peer.new(b"/bytes/60000")
            peer.wait(lambda stream=stream: len(peer.answer(stream).body), "data")  # type: ignore[misc]
            peer.send(rst(stream))
            peer.settle() if stream % 50 == 1 else None
            received = sum(len(answer.body) for answer in peer.answers.values())
            if received > granted:
                peer.send(window_update(0, received - granted))
                granted = received
        answer = peer.response(peer.new(b"/bytes/65535"))
        assert len(answer.body) == 65535
        assert not peer.goaways


# -- floods ----------------------------------------------------------------------------------------------------------

FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING (CVE-2019-9512)": lambda n: h2.ping(),
    "PING acknowledgements": lambda n: h2.ping(ack=True),
    "SETTINGS (CVE-2019-9515)": lambda n: settings((INITIAL_WINDOW, 65535 + n % 2)),
    "empty SETTINGS": lambda n: settings(),
    "header table sizes": lambda n: settings(*[(1, n * k % 8192) for k in range(100)]),
    "SETTINGS acknowledgements": lambda n: settings(ack=True),
    "PRIORITY (CVE-2019-9513)": lambda n: h2.priority(2 * n + 1, 2 * n + 3),
    "PRIORITY of one stream": lambda n: h2.priority(1, n + 3),
    "PRIORITY_UPDATE": lambda n: h2.priority_update(2 * n + 1, b"u=%d" % (n % 8)),
    "WINDOW_UPDATE of the connection": lambda n: window_update(0, 1),
    "WINDOW_UPDATE of a stream": lambda n: window_update(1, 1),
    "empty DATA (CVE-2019-9518)": lambda n: data(1),
    "DATA with padding of no length": lambda n: data(1, b"", padding=0),
    "DATA that is all padding": lambda n: data(1, b"", padding=255),
    "GOAWAY": lambda n: h2.goaway(),
    "RST_STREAM of one stream": lambda n: rst(1),
    "HEADERS of a stream that was reset": lambda n: frame(h2.HEADERS, 5, 3),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_flood(site: Site, flood: str) -> None:
    wrong = headers(3, [(b":method", b"GET")], end=False)
    attack(site, b"".join(map(FLOODS[flood], range(20_000)))[: 2 * MIB], post(1, b"/wait"), wrong)


def test_frames_of_unknown_types_cost_little_or_are_a_flood(site: Site) -> None:
    growth = MemoryGrowth(site.running)
    with Bystander(site) as bystander, site.connect() as peer:
        peer.settle()  # or its acknowledgement of SETTINGS would come in between
        peer.flood(b"".join(frame(0x16, 0, n & 1, b"x" * 20) for n in range(50_000)))
        peer.settle()
        if peer.goaways:
            assert [code for _last, code, _detail in peer.goaways] == site.endings(peer) == [CALM]
        else:
            assert peer.get().status == 200
    assert bystander.slowest < SLOWEST_SECONDS
    growth.check(MOST_BYTES)


def test_pings_of_a_client_that_does_not_read_heap_up_nothing(site: Site) -> None:
    growth = MemoryGrowth(site.running)
    with site.connect(receive_buffer=4096) as peer:
        peer.send(h2.ping() * 90)
        peer.send(settings((3, 7)) * 5)
        time.sleep(0.1)
        peer.settle()
        assert len(peer.pings) == 91
    growth.check(MOST_BYTES)


# -- header blocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"\x82" * 10, b"\0\x03x-y\x01z" * 1000], ids=["empty", "small", "large"])
def test_continuation_flood(site: Site, payload: bytes) -> None:
    """CVE-2024-27316 and its many siblings."""
    start = frame(h2.HEADERS, 1, 1, block(fields()))
    attack(site, start + continuation(1, payload) * min(20_000, 4 * MIB // (9 + len(payload))))


def test_hpack_bomb_of_references_to_one_large_entry(site: Site) -> None:
    """One entry of four KB in the dynamic table, named 16,000 times: 64 MB in a frame of 16 KB."""
    entry = b"\x40\x01x\x7f\xd1\x1e" + b"v" * 4048
    bomb = frame(h2.HEADERS, 5, 1, block(fields())[:50] + entry)
    assert len(entry) == 4054
    bomb += b"".join(frame(h2.HEADERS, 5, n, b"\xbe" * 16_000) for n in range(3, 40, 2))
    attack(site, frame(h2.HEADERS, 5, 1, block(fields()) + entry) + bomb[9 + 50 + len(entry) :])


def test_hpack_bomb_of_many_small_fields(site: Site) -> None:
    attack(site, b"".join(frame(h2.HEADERS, 5, n, block(fields()) + b"\x90" * 16_000) for n in range(1, 40, 2)))


def test_hpack_bomb_of_one_huge_field(site: Site) -> None:
    literal = b"\0\x01x\x7f\x81\xff\xff\x01" + b"v" * 16_000
    wire = frame(h2.HEADERS, 1, 1, block(fields()) + literal[:8000]) + continuation(1, b"v" * 16_000) * 20
    attack(site, wire)


def test_hpack_fields_a_little_beyond_the_limit_are_answered_and_cost_no_memory(site: Site) -> None:
    growth = MemoryGrowth(site.running)
    with site.connect() as peer:
        for n in range(1, 201, 2):
            peer.send(headers(n, fields(b"GET", b"/hello", *[(b"x-%d" % k, b"v" * 70) for k in range(210)])))
            assert peer.response(n).status == 431
        peer.next = 201
        assert peer.get().status == 200
    growth.check(MOST_BYTES)


def test_a_dynamic_table_that_changes_all_the_time_costs_no_memory(site: Site) -> None:
    growth = MemoryGrowth(site.running)
    with site.connect() as peer:
        for n in range(1, 1001, 2):
            sizes = (b"\x20", b"\x3f\xe1\x1f", b"\x20\x3f\xe1\x1f")[n % 3]
            entry = b"\x40\x07x-%05d\x7f\xe1\x0e" % n + b"v" * 2016
            peer.send(frame(h2.HEADERS, 5, n, sizes + block(fields(b"GET", b"/hello")) + entry))
            assert peer.response(n).status == 200
    growth.check(MOST_BYTES)


def test_a_head_that_dribbles(site: Site) -> None:
    wire = frame(h2.HEADERS, 1, 1, block(fields(b"GET", b"/hello")))
    with Bystander(site), site.connect() as peer:
        begun = time.monotonic()
        for at in range(len(wire)):
            peer.send(wire[at : at + 1])
            time.sleep(0.1)
            if time.monotonic() - begun > 2.2:
                break
        peer.wait_closed(5 * SLACK)
        assert time.monotonic() - begun < 2 + 2 * SLACK
        assert [code for _last, code, _detail in peer.goaways] == [CALM]


# -- slow readers ----------------------------------------------------------------------------------------------------


def test_a_hundred_streams_of_a_mebibyte_whose_windows_are_closed(site: Site) -> None:
    growth = MemoryGrowth(site.running)
    with Bystander(site) as bystander, site.connect([(INITIAL_WINDOW, 0)]) as peer:
        streams = [peer.new(b"/pieces/16") for _ in range(100)]
        peer.wait(lambda: all(peer.answer(stream).heads for stream in streams), "the heads")
        time.sleep(0.3)
        peer.settle()
        assert not any(peer.answer(stream).body for stream in streams)
        # Each keeps 64 KiB and one piece beyond; see the note on `writable`.
        growth.check(100 * 2 * 65536 + MOST_BYTES)
        peer.send(window_update(0, 2**31 - 1 - 65535), settings((INITIAL_WINDOW, MIB)))
        for stream in streams:
            assert len(peer.response(stream).body) == MIB
            peer.answer(stream).body.clear()
    assert bystander.slowest < SLOWEST_SECONDS
    growth.check(100 * 2 * 65536 + MOST_BYTES)


def test_a_hundred_streams_of_a_mebibyte_that_are_read_slowly(site: Site) -> None:
    growth = MemoryGrowth(site.running)
    with Bystander(site) as bystander, site.connect([(INITIAL_WINDOW, MIB)], receive_buffer=16384) as peer:
        peer.send(window_update(0, 2**31 - 1 - 65535))
        streams = [peer.new(b"/pieces/16") for _ in range(100)]
        time.sleep(0.5)
        for _ in range(20):
            peer.read()
            time.sleep(0.02)
        growth.check(100 * 2 * 65536 + MOST_BYTES)
        for stream in streams[:20]:
            assert len(peer.response(stream).body) == MIB
        assert not peer.goaways
    assert bystander.slowest < SLOWEST_SECONDS
    growth.check(100 * 2 * 65536 + MOST_BYTES)


@pytest.mark.soak
def test_windows_that_stay_closed_are_given_up_after_a_minute(site: Site) -> None:
    with Bystander(site), site.connect([(INITIAL_WINDOW, 0)]) as stream_closed, site.connect() as all_closed:
        stalled = [stream_closed.new(b"/pieces/16") for _ in range(10)]
        all_closed.send(settings((INITIAL_WINDOW, MIB)))
        all_closed.new(b"/pieces/16")
        begun = time.monotonic()
        for peer in (stream_closed, all_closed):
            peer.socket.settimeout(90)
        all_closed.wait_closed(90)
        assert 55 < time.monotonic() - begun < 75
        assert [code for _last, code, _detail in all_closed.goaways] == [CALM]
        for stream in stalled:
            stream_closed.wait(lambda stream=stream: stream_closed.answer(stream).reset is not None, "a reset")  # type: ignore[misc]
            assert stream_closed.answer(stream).reset == h2.CANCEL
        assert stream_closed.get(b"/status/204").status == 204
    site.wait_for_rest("/pieces/16")


@pytest.mark.soak
@pytest.mark.parametrize("flood", ["PING (CVE-2019-9512)", "SETTINGS (CVE-2019-9515)", "empty DATA (CVE-2019-9518)"])
def test_attackers_that_come_back_again_and_again(site: Site, flood: str) -> None:
    wire = b"".join(map(FLOODS[flood], range(20_000)))

    def come(times: int) -> None:
        for _ in range(times):
            with site.connect() as peer:
                peer.send(post(1, b"/wait"))
                peer.settle()
                peer.flood(wire)
                peer.wait_closed()
                assert [code for _last, code, _detail in peer.goaways] in ([CALM], [])

    with Bystander(site) as bystander:
        come(200)  # until then the allocator and the garbage collector find their level
        growth = MemoryGrowth(site.running)
        come(200)
    assert bystander.slowest < SLOWEST_SECONDS
    growth.check(2 * MOST_BYTES)
