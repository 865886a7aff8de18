"""permessage-deflate: what is agreed on, and messages in and out."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from wsproto.extensions import PerMessageDeflate

from daphne_ng.wire.websocket.deflate import SPEEDUPS, Deflater, agree_on_deflate
from tests.support.ws import squeeze

Inflate = Callable[[bytes, int, int], "bytes | None"]

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.fixture(params=[False, True], ids=["zlib", "speedups"])
def speedups(request: pytest.FixtureRequest) -> bool:
    if request.param and SPEEDUPS != ("isal", "zlib-ng"):
        pytest.skip("the extra deflate is not installed")
    return bool(request.param)


@pytest.fixture
def inflate(speedups: bool) -> Inflate:
    return Deflater(15, 8, speedups=speedups).inflate


class TestAgreement:
    @pytest.mark.parametrize(
        ("offers", "bits", "response", "server_bits", "client_bits"),
        [
            ("permessage-deflate", 12, BOTH, 12, 0),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", 12, BOTH, 12, 0),
            ("permessage-deflate; client_max_window_bits", 12, f"{BOTH}; client_max_window_bits=12", 12, 12),
            ("permessage-deflate; client_max_window_bits", 15, f"{BOTH}; client_max_window_bits=15", 15, 15),
            ("permessage-deflate; client_max_window_bits=10", 12, f"{BOTH}; client_max_window_bits=10", 12, 10),
            ("permessage-deflate; client_max_window_bits=15", 12, f"{BOTH}; client_max_window_bits=12", 12, 12),
            ("permessage-deflate; client_max_window_bits=8", 12, f"{BOTH}; client_max_window_bits=8", 12, 8),
            ("permessage-deflate; server_max_window_bits=9", 12, f"{BOTH}; server_max_window_bits=9", 9, 0),
            ("permessage-deflate; server_max_window_bits=15", 12, f"{BOTH}; server_max_window_bits=12", 12, 0),
            (
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate",
                12,
                f"{BOTH}; server_max_window_bits=10; client_max_window_bits=12",
                10,
                12,
            ),
        ],
    )
    def test_the_first_offer_is_taken(
        self, offers: str, bits: int, response: str, server_bits: int, client_bits: int
    ) -> None:
        agreement = agree_on_deflate(offers, bits)
        assert agreement is not None
        assert agreement.response.decode() == response
        assert (agreement.server_bits, agreement.client_bits) == (server_bits, client_bits)

    def test_no_offer_is_no_agreement(self) -> None:
        assert agree_on_deflate("", 12) is None

    @pytest.mark.parametrize("server_bits", [None, 9, 12, 15])
    @pytest.mark.parametrize("client_bits", [None, True, 9, 12, 15])
    @pytest.mark.parametrize("bits", [9, 12, 15])
    def test_clients_accept_it(self, server_bits: int | None, client_bits: int | bool | None, bits: int) -> None:
        factory = ClientPerMessageDeflateFactory(server_max_window_bits=server_bits, client_max_window_bits=client_bits)
        offer = "permessage-deflate"
        for name, value in factory.get_request_params():
            offer += f"; {name}" + ("" if value is None else f"={value}")
        agreement = agree_on_deflate(offer, bits)
        assert agreement is not None
        parameters = [
            (name, value or None)
            for name, _, value in (part.strip().partition("=") for part in agreement.response.decode().split(";")[1:])
        ]
        extension = factory.process_response_params(parameters, [])
        assert extension.local_no_context_takeover
        assert extension.remote_no_context_takeover
        if agreement.client_bits:
            assert extension.local_max_window_bits == agreement.client_bits
        assert agreement.server_bits <= extension.remote_max_window_bits

    def test_wsproto_accepts_it(self) -> None:
        extension = PerMessageDeflate()
        offer = extension.offer()
        agreement = agree_on_deflate(
            f"permessage-deflate; {offer}" if isinstance(offer, str) else "permessage-deflate", 12
        )
        assert agreement is not None
        extension.finalize(agreement.response.decode())
        assert extension.enabled()


class TestInflate:
    @pytest.mark.parametrize("bits", range(9, 16))
    def test_any_message_comes_out(self, inflate: Inflate, bits: int) -> None:
        for message in (b"", b"a", b"abc" * 1000, bytes(range(256)) * 300):
            assert inflate(squeeze(message, bits), bits, 0) == message
            assert inflate(squeeze(message, bits), 15, 0) == message

    def test_the_limit_is_exact(self, inflate: Inflate) -> None:
        for size in (1, 10, 257, 258, 259, 1000, 65536):
            for message in (b"a" * size, (b"".join(b"%d" % index for index in range(size)))[:size]):
                assert inflate(squeeze(message), 15, size) == message
                for less in range(1, min(size, 300)):
                    assert inflate(squeeze(message), 15, size - less) is None

    @pytest.mark.parametrize(
        "payload",
        [
            b"\xff\xff",
            b"",
            b"\x4b\x04",
            b"\x00\x0a\x00\xf5\xffabcdef",
            b"\x00\x0a\x00\xf5\xffabcdefgh",
            squeeze(b"abcdefgh" * 10)[:-1],
            squeeze(b"abcdefgh" * 10)[:-3],
            bytes.fromhex("f348cdc9c90700") + squeeze(b"a"),
        ],
    )
    def test_what_is_not_a_whole_message_is_none(self, inflate: Inflate, payload: bytes) -> None:
        assert inflate(payload, 15, 0) is None
        assert inflate(payload, 15, 1000) is None

    def test_no_truncation_of_a_message_passes_for_a_message(self, inflate: Inflate) -> None:
        message = b"".join(b"%d," % (index * index) for index in range(300))
        for data in (
            squeeze(message),
            b"\x00" + (500).to_bytes(2, "little") + (65035).to_bytes(2, "little") + bytes(500),
        ):
            for size in [0, *range(2, len(data))]:  # one byte of zero bits is an empty message
                assert inflate(data[:size], 15, 0) is None

    @pytest.mark.parametrize(
        "payload", ["f248cdc9c90700", "f348cdc9c90700", "f348cdc9c9070000", "000500faff48656c6c6f00"]
    )
    def test_rfc_7692_section_7_2_3(self, inflate: Inflate, payload: str) -> None:
        assert inflate(bytes.fromhex(payload), 15, 5) == b"Hello"

    def test_an_empty_message(self, inflate: Inflate) -> None:
        assert inflate(b"\x00", 15, 1) == b""


# What a client makes of a payload that has no more room than it has agreed on: it reads a few bytes at a time, so that
# what is further back than the window is lost to it.
def read_back(payload: bytes, bits: int) -> bytes:
    inflater = zlib.decompressobj(-bits)
    rest, message = payload + b"\x00\x00\xff\xff", b""
    while rest:
        message += inflater.decompress(rest, 400)
        rest = inflater.unconsumed_tail
    return message + inflater.flush()


class TestDeflater:
    @pytest.mark.parametrize("bits", range(9, 16))
    @pytest.mark.parametrize(("level", "memory"), [(1, 1), (1, 5), (1, 9), (2, 5), (3, 9), (9, 5)])
    def test_what_it_compresses_reads_back(self, speedups: bool, bits: int, memory: int, level: int) -> None:
        deflater = Deflater(bits, memory, level, speedups)
        for message in (b"", b"a", b"abc" * 1000, bytes(range(256)) * 300, b"", b"abc" * 1000):
            assert read_back(deflater.deflate(message), bits) == message
            assert deflater.inflate(deflater.deflate(message) or b"\x00", bits, len(message)) == message

    @pytest.mark.parametrize(("level", "isal"), [(-1, False), (1, True), (2, True), (3, True), (4, False), (9, False)])
    def test_isal_compresses_at_the_levels_that_it_has(self, speedups: bool, level: int, isal: bool) -> None:
        message = b"".join(b"%d," % (index * index) for index in range(300))
        squeezed = Deflater(12, 5, level, speedups).deflate(message)
        zlibs = Deflater(12, 5, level).deflate(message)
        assert (squeezed != zlibs) == (isal and speedups)
        assert len(squeezed) < len(zlibs) * 1.03

    def test_each_message_stands_alone(self) -> None:
        deflater = Deflater(15, 8)
        first = deflater.deflate(b"hello, hello, hello")
        deflater.deflate(b"something else")
        assert deflater.deflate(b"hello, hello, hello") == first

    def test_a_message_to_many_is_compressed_once(self, speedups: bool) -> None:
        deflater = Deflater(12, 5, 1, speedups)
        first = deflater.deflate(b"a" * 1000)
        assert all(deflater.deflate(b"a" * 1000) is first for _ in range(10))
        deflater.deflate(b"b" * 1000)
        assert deflater.deflate(b"a" * 1000) is not first

    def test_a_large_message_is_not_kept(self) -> None:
        deflater = Deflater(12, 5)
        kept = deflater.deflate(b"a" * 65536)
        assert deflater.deflate(b"b" * 65537) is not deflater.deflate(b"b" * 65537)
        assert deflater.deflate(b"a" * 65536) is kept
