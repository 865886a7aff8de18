"""Frames as bytes, against RFC 6455 and wsproto."""

from __future__ import annotations

import pytest

from daphne_ng.wire.websocket.frames import frame_head, unmask
from tests.support.ws import read_frames


def test_the_masked_hello_of_rfc_6455_section_5_7() -> None:
    assert unmask(bytes.fromhex("7f9f4d5158"), bytes.fromhex("37fa213d")) == b"Hello"


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 1000, 1399])
def test_unmasking_is_the_xor_of_every_byte(size: int) -> None:
    data = bytes(index * 7 & 255 for index in range(size))
    for key in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x80\x00\xfe"):
        assert unmask(data, key) == bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
        assert unmask(unmask(data, key), key) == data


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8100"), (5, "8105"), (125, "817d"), (126, "817e007e"), (256, "817e0100"), (65535, "817effff"),
        (65536, "817f0000000000010000"), (1 << 40, "817f0000010000000000"),
    ],
)  # fmt: skip
def test_a_head_has_the_shortest_form_of_the_length(size: int, head: str) -> None:
    assert frame_head(0x81, size).hex() == head
    assert frame_head(0xC2, size) == b"\xc2" + frame_head(0x81, size)[1:]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_client_reads_it(size: int) -> None:
    assert read_frames(frame_head(0x82, size) + bytes(size)) == [("binary", bytes(size))]
