"""Header blocks: RFC 7541 with the examples of its appendix C, the cases that h2spec has for it, and our limits."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Iterable

import hpack
import pytest
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_TABLE, decode_huffman
from hpack.struct import NeverIndexedHeaderTuple
from hpack.table import HeaderTable

from daphne_ng.errors import InvalidHeader
from daphne_ng.wire.http.fields import DROP_LENGTH, HAS_DATE, HAS_SERVER, NO_LENGTH, SECRET_FIELDS
from daphne_ng.wire.http2 import hpack as ours
from daphne_ng.wire.http2.hpack import CUT, OVERSIZED, CompressionError, ResponseEncoder, encode_fields, encode_status
from tests.support.h2 import request_decoder

Field = tuple[bytes, bytes]

# GET https://example.com/ as h2spec begins its blocks.
COMMON = bytes.fromhex("82 87 84 41 0b") + b"example.com"


def block(text: str) -> bytes:
    return bytes.fromhex(text)


def string(data: bytes) -> bytes:
    return ours._encoded_integer(len(data), 0x7F, 0) + data


def written(pairs: Iterable[Field]) -> bytes:
    """Encode any fields as the codec writes those of responses, pseudo-fields of requests too."""
    return b"".join(ours._encoded_line(*pair) for pair in pairs)


def fields(text: str) -> tuple[Field, ...]:
    """Read ``name: value`` lines as RFC 7541 prints them."""
    pairs = (line.strip().partition(": ") for line in text.strip().splitlines())
    return tuple((name.encode(), value.encode()) for name, _, value in pairs)


REQUESTS = [
    fields(":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com"),
    fields(":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache"),
    fields(":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value"),
]
RESPONSES = [
    fields(
        ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com"
    ),
    fields(
        ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com"
    ),
    fields(
        ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n"
        "content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
    ),
]

# Section, table size, blocks on one connection, what they say, and how large the table is after each.
APPENDIX_C: list[tuple[str, int, list[str], list[tuple[Field, ...]], list[int]]] = [
    ("C.2.1", 4096, ["400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572"], [fields("custom-key: custom-header")], [55]),
    ("C.2.2", 4096, ["040c 2f73 616d 706c 652f 7061 7468"], [fields(":path: /sample/path")], [0]),
    ("C.2.3", 4096, ["1008 7061 7373 776f 7264 0673 6563 7265 74"], [fields("password: secret")], [0]),
    ("C.2.4", 4096, ["82"], [fields(":method: GET")], [0]),
    (
        "C.3",
        4096,
        [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ],
        REQUESTS,
        [57, 110, 164],
    ),
    (
        "C.4",
        4096,
        [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ],
        REQUESTS,
        [57, 110, 164],
    ),
    (
        "C.5",
        256,
        [
            ("4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120"
            "474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d"),
            "4803 3330 37c1 c0bf",
            ("88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738"
            "666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33"
            "3630 303b 2076 6572 7369 6f6e 3d31"),
        ],
        RESPONSES,
        [222, 222, 215],
    ),
    (
        "C.6",
        256,
        [
            ("4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718"
            "63c7 8f0b 97c8 e9ae 82ae 43d3"),
            "4883 640e ffc1 c0bf",
            ("88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7"
            "b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07"),
        ],
        RESPONSES,
        [222, 222, 215],
    ),
]  # fmt: skip


class TestAppendixC:
    @pytest.mark.parametrize(
        ("size", "blocks", "lists", "sizes"), [c[1:] for c in APPENDIX_C], ids=[c[0] for c in APPENDIX_C]
    )
    def test_is_decoded(self, size: int, blocks: list[str], lists: list[tuple[Field, ...]], sizes: list[int]) -> None:
        decoder = request_decoder()
        update = block("3fe101") if size == 256 else b""
        for text, expected, table_bytes in zip(blocks, lists, sizes, strict=True):
            assert decoder.decode(update + block(text)) == expected
            assert decoder._table_bytes == table_bytes
            update = b""

    @pytest.mark.parametrize("lists", [c[3] for c in APPENDIX_C], ids=[c[0] for c in APPENDIX_C])
    def test_is_encoded_so_that_it_can_be_decoded(self, lists: list[tuple[Field, ...]]) -> None:
        reader, decoder = hpack.Decoder(), request_decoder()
        for expected in [*lists, *lists]:
            data = written(expected)
            assert tuple(reader.decode(data, raw=True)) == expected
            assert decoder.decode(data) == expected
            assert written(expected) == data
        assert not reader.header_table.dynamic_entries


# Block behind COMMON, by the sections and words of h2spec and of RFC 7541.
BROKEN: dict[str, str] = {
    "2.3.3 indexed field with an invalid index": "fe",
    "2.3.3 literal with an invalid index for its name": "7f 01 00",
    "2.3.3 index just beyond the table": "bf",
    "4.2 table size update at the end of a block": "21",
    "5.1 integer beyond every limit": "ff ff ff ff ff ff ff ff ff 01",
    "5.1 integer that never ends": "ff 80 80 80 80 80 80 80",
    "5.1 integer that is cut off": "ff 80",
    "5.2 Huffman string with padding longer than 7 bits": "00 85 f2b24a84ff 84 49509fff",
    "5.2 Huffman string padded by zero": "00 85 f2b24a84ff 83 495090",
    "5.2 Huffman string that contains EOS": "00 85 f2b24a84ff 87 fffffffd25427f",
    "5.2 Huffman name with padding longer than 7 bits": "00 82 1fff 01 61",
    "5.2 Huffman string of nothing but padding": "00 01 61 81 ff",
    "5.2 string that is cut off": "00 01 61 05 61",
    "5.2 string without a length": "00 01 61",
    "5.2 name that is cut off": "00 05 61",
    "5.2 string of 2**31 octets": "00 01 61 7f 80 ff ff ff 07",
    "6.1 indexed field with index 0": "80",
    "6.2 literal that is cut off": "40",
    "6.2 literal without a value, static name": "41",
}


class TestBrokenBlocks:
    @pytest.mark.parametrize("text", BROKEN.values(), ids=list(BROKEN))
    def test_is_an_error_of_the_connection(self, text: str) -> None:
        decoder = request_decoder()
        with pytest.raises(CompressionError) as caught:
            decoder.decode(COMMON + block(text))
        assert caught.value.code == 9  # COMPRESSION_ERROR
        with pytest.raises(hpack.HPACKDecodingError):
            hpack.Decoder().decode(COMMON + block(text), raw=True)

    def test_what_h2spec_puts_first_is_fine_by_itself(self) -> None:
        assert request_decoder().decode(COMMON)[3] == (b":authority", b"example.com")

    def test_every_state_of_the_huffman_code_says_whether_a_string_may_end_there(self) -> None:
        ends: dict[int, set[bool]] = {}
        for state, flags, _ in HUFFMAN_TABLE:
            if not flags & 4:  # a failure leads nowhere
                ends.setdefault(state, set()).add(bool(flags & HUFFMAN_COMPLETE))
        assert all(len(answers) == 1 for answers in ends.values())
        final = {state for state, answers in ends.items() if answers == {True}} | {0}
        assert {id(ours._rows[state]) for state in final} == ours._FINAL_ROWS

    def test_every_octet_goes_through_the_huffman_code(self) -> None:
        for octet in range(256):
            text = bytes((octet,)) * 7 + b"a"
            bits = "".join(ours._BITS[each] for each in text)
            bits += "1" * (-len(bits) % 8)
            data = int(bits, 2).to_bytes(len(bits) // 8, "big")
            assert ours._huffman_decoded(data) == decode_huffman(data) == text


class TestTableSizeUpdates:
    """RFC 7541 sections 4.2 and 6.3, as the decoder sees them."""

    def test_first_in_a_block(self) -> None:
        decoder = request_decoder()
        assert decoder.decode(block("20 82")) == ((b":method", b"GET"),)
        assert decoder.header_table_size == 0
        assert decoder.decode(block("3f e1 1f 82")) == ((b":method", b"GET"),)
        assert decoder.header_table_size == 4096

    def test_larger_than_allowed(self) -> None:
        with pytest.raises(CompressionError):
            request_decoder().decode(block("3f e2 1f") + COMMON)

    def test_behind_a_field_of_an_oversized_list(self) -> None:
        with pytest.raises(CompressionError):
            request_decoder(max_fields=1).decode(block("82 82 20"))
        with pytest.raises(CompressionError):
            request_decoder(max_fields=0).decode(block("82 20"))

    def test_to_0_and_back_empties_the_table(self) -> None:
        decoder = request_decoder()
        decoder.decode(block("40 01 61 01 62"))
        assert decoder.decode(block("be")) == ((b"a", b"b"),)  # remembered, but only with that table
        decoder.decode(block("20 3f e1 1f"))
        with pytest.raises(CompressionError):
            decoder.decode(block("be"))

    def test_thousands_in_a_block(self) -> None:
        request_decoder().decode(b"\x20" * 32)
        with pytest.raises(CompressionError):
            request_decoder().decode(b"\x20" * 33)

    def test_an_entry_larger_than_the_table_empties_it(self) -> None:
        decoder = request_decoder()
        decoder.decode(block("40 01 61 01 62"))
        decoder.decode(block("40 01 61") + string(b"b" * 4096))
        assert not decoder._table
        assert decoder._table_bytes == 0

    def test_an_entry_may_take_its_name_from_one_that_it_evicts(self) -> None:
        decoder = request_decoder()
        decoder.decode(block("3f 03 40 01 61 01 62"))  # a table for 34 octets
        assert decoder.decode(block("7e 01 63")) == ((b"a", b"c"),)
        assert decoder.decode(block("be")) == ((b"a", b"c"),)


class TestLimits:
    def test_too_many_fields_refuse_the_request_and_keep_the_table_in_step(self) -> None:
        decoder = request_decoder(max_fields=4)
        data = block("82 86 84 82 82 40 01 61 01 62")
        assert decoder.decode(data) == (
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":method", b"GET"),
            OVERSIZED,
        )
        assert decoder.decode(block("be")) == ((b"a", b"b"),)

    def test_the_cookies_are_one_field(self) -> None:
        """RFC 9113 section 8.2.3. Browsers keep 180 cookies for a site and send each in a field of its own."""
        decoder = request_decoder(max_fields=4)
        crumb = block("60 01 61")  # cookie, indexed by name
        for data, kept in (
            (block("82 86 84") + crumb * 500, 503),
            (block("82") + crumb * 500 + block("86 84"), 503),
            (crumb + block("82 86") + crumb * 5 + block("84"), 9),
            (crumb * 6 + block("82 86 84"), 9),
        ):
            fields = decoder.decode(data)
            assert len(fields) == kept
            assert fields[-1][0] is not CUT
        for data in (
            block("82 86 84") + crumb * 500 + block("84"),
            crumb + block("82 86 84 84") + crumb * 5,
            block("82 86 84 84 84"),
        ):
            assert decoder.decode(data)[-1][0] is CUT

    def test_too_many_crumbs_are_too_much(self) -> None:
        decoder = request_decoder(max_fields=4, max_header_list_size=10_000)
        crumb = block("60 01 61")
        assert decoder.decode(crumb * 200)[-1][0] is not CUT
        assert decoder.decode(crumb * 300)[-1][0] is CUT
        with pytest.raises(CompressionError):
            decoder.decode(crumb * 1100)
        with pytest.raises(CompressionError):
            decoder.decode(crumb * 2 + block("82") * 20)

    def test_too_much_refuses_the_request(self) -> None:
        decoder = request_decoder(max_header_list_size=100)
        assert decoder.decode(block("82 00 01 61 23") + b"b" * 35 + b"\x84") == ((b":method", b"GET"), OVERSIZED)
        assert decoder.decode(block("82 00 01 61 18") + b"b" * 24) == ((b":method", b"GET"), (b"a", b"b" * 24))
        assert decoder.decode(block("82 00 01 61 1a") + b"b" * 26)[-1][0] is CUT

    def test_the_mark_is_known_by_identity(self) -> None:
        assert request_decoder().decode(block("00 00 00"))[-1][0] is not CUT

    def test_a_remembered_block_stays_oversized(self) -> None:
        decoder = request_decoder(max_fields=1)
        for _ in range(3):
            assert decoder.decode(block("82 84"))[-1][0] is CUT

    @pytest.mark.parametrize(
        "bomb",
        [
            pytest.param(
                block("40 01 61") + string(b"b" * 4000) + b"\xbe" * 60_000, id="an entry of 4 KiB, 60,000 times"
            ),
            pytest.param(b"\x82" * 200_000, id="200,000 static fields"),
            pytest.param(block("00 00 00") * 60_000, id="60,000 fields without name or value"),
            pytest.param(block("40 00 00") * 60_000, id="60,000 such fields for the table"),
            pytest.param(block("00 01 61") + string(b"b" * 2**20), id="a value of a mebibyte"),
        ],
    )
    def test_a_bomb_ends_the_connection_early_and_costs_little(self, bomb: bytes) -> None:
        decoder = request_decoder()
        tracemalloc.start()
        began = time.process_time()
        try:
            with pytest.raises(CompressionError) as caught:
                decoder.decode(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert caught.value.code == 11  # ENHANCE_YOUR_CALM
        assert peak < len(bomb) + 100_000
        assert time.process_time() - began < 0.5

    def test_a_bomb_of_huffman_code(self) -> None:
        # "0" has five bits: the string grows by 8/5 and no more.
        data = block("00 01 61") + ours._encoded_integer(100_000, 0x7F, 0x80) + bytes(100_000)
        tracemalloc.start()
        try:
            assert request_decoder().decode(data)[-1][0] is CUT
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 600_000

    def test_what_a_connection_remembers_is_bounded(self) -> None:
        decoder = request_decoder()
        sizes = []
        for number in range(2000):
            path = b"/%d" % number + b"x" * (number % 200)
            data = block("82 87 04") + string(path)
            assert decoder.decode(data)[2] == (b":path", path)
            assert decoder.decode(data) is decoder.decode(data)
            sizes.append(decoder._blocks_bytes)
            if number % 3:
                decoder.keep_head(data, object(), 300)
            assert len(decoder._blocks) + len(decoder.heads) <= 256
        assert 100_000 < max(sizes) <= 163_840

    def test_200_paths_are_remembered(self) -> None:
        decoder = request_decoder()
        blocks = [written([(b":path", b"/some/where/%d" % n), (b"accept", b"*/*")]) for n in range(200)]
        first = [decoder.decode(data) for data in blocks]
        assert all(decoder.decode(data) is decoded for data, decoded in zip(blocks, first, strict=True))

    def test_a_head_takes_the_place_of_its_fields_until_the_table_changes(self) -> None:
        decoder = request_decoder()
        data = block("82 87 84")
        assert not decoder.knows(data)
        decoder.keep_head(data, "a head of a block that was never seen", 100)
        assert not decoder.heads
        fields = decoder.decode(data)
        assert decoder.knows(data)
        decoder.keep_head(data, "a head", 100)
        assert (decoder.heads, decoder._blocks) == ({data: "a head"}, {})
        assert decoder.decode(data) == fields
        assert decoder.heads == {data: "a head"}
        decoder.decode(block("40") + string(b"a") + string(b"b"))
        assert (decoder.heads, decoder._blocks, decoder._blocks_bytes) == ({}, {}, 0)

    def test_a_head_that_is_too_large_is_not_kept(self) -> None:
        decoder = request_decoder()
        data = block("82 87 84")
        decoder.decode(data)
        decoder.keep_head(data, "a head", 163_840)
        assert not decoder.heads
        assert decoder.knows(data)

    def test_a_long_block_is_not_remembered(self) -> None:
        decoder = request_decoder()
        data = block("00 01 61") + string(b"b" * 4096)
        assert decoder.decode(data) == ((b"a", b"b" * 4096),)
        assert not decoder._blocks

    def test_a_short_block_that_says_much_is_not_remembered(self) -> None:
        decoder = request_decoder()
        decoder.decode(block("40") + string(b"n" * 900) + b"\x00")
        assert len(decoder.decode(block("0f 2f 00") * 60)) == 60
        assert decoder._blocks
        decoder.forget()
        assert decoder.decode(block("0f 2f 00") * 190)[-1][0] is CUT
        assert not decoder._blocks

    def test_forgetting(self) -> None:
        decoder = request_decoder()
        decoder.decode(COMMON[:3])
        decoder.forget()
        assert (decoder._blocks, decoder._blocks_bytes) == ({}, 0)
        assert decoder.decode(COMMON[:3])[0] == (b":method", b"GET")

    def test_no_string_makes_another_dearer(self) -> None:
        # Every step that there is, as a client can have them all learnt.
        for row in ours._rows:
            for byte in range(256):
                with contextlib.suppress(ours.CompressionError):
                    ours._learn_step(row, byte)
        kept = [list(row) for row in ours._rows]
        assert ours._huffman_decoded(block("f1e3c2e5f23a6ba0ab90f4ff")) == b"www.example.com"
        assert [list(row) for row in ours._rows] == kept
        assert sum(step is not None for row in kept for step in row) == 65_281


class TestFieldsOfResponses:
    def test_static_fields_are_one_octet(self) -> None:
        for index, field in enumerate(HeaderTable.STATIC_TABLE, 1):
            if field[0] not in SECRET_FIELDS:
                assert written([field]) == bytes((0x80 | index,))

    def test_literals_are_not_indexed(self) -> None:
        assert written([(b"vary", b"~")]) == block("0f 2c 01 7e")
        assert written([(b"~", b"{")]) == block("00 01 7e 01 7b")

    def test_huffman_code_where_it_is_shorter(self) -> None:
        assert written([(b":authority", b"www.example.com")]) == block("01 8c f1e3c2e5f23a6ba0ab90f4ff")
        assert written([(b":authority", b"\xff\xfe")]) == b"\x01\x02\xff\xfe"

    @pytest.mark.parametrize("name", [b"set-cookie", b"authorization", b"proxy-authorization", b"cookie"])
    def test_secrets_are_never_indexed_and_not_remembered(self, name: bytes) -> None:
        field = (name, b"secret-of-" + name)
        data = written([field])
        assert data[0] & 0xF0 == 0x10
        (decoded,) = hpack.Decoder().decode(data, raw=True)
        assert isinstance(decoded, NeverIndexedHeaderTuple)
        encode_fields([field])
        assert field not in ours._lines
        assert field not in ours._checked_lines

    def test_what_is_remembered_is_bounded(self) -> None:
        for number in range(3000):
            encode_fields([(b"content-length", b"%d" % number)])
            encode_fields([(b"x-number-%d" % number, b"%d" % number)])
            assert len(ours._lines) <= ours._line_memo.most
            assert len(ours._checked_lines) <= ours._line_memo.most
            assert len(ours._names) <= ours._name_memo.most
        encode_fields([(b"x", b"y" * 200), (b"server", b"y" * 200)])
        assert (b"server", b"y" * 200) not in ours._lines
        assert (b"x", b"y" * 200) not in ours._checked_lines

    @pytest.mark.parametrize("status", [200, 204, 302, 418, 599])
    def test_status(self, status: int) -> None:
        assert hpack.Decoder().decode(encode_status(status)) == [(":status", str(status))]
        assert encode_status(status) == written([(b":status", b"%d" % status)])


class TestTheTableThatWeDoNotUse:
    """RFC 7541 sections 4.2 and 6.3, as the encoder is bound by them."""

    def test_a_lower_limit_is_acknowledged_once_at_the_start_of_the_next_block(self) -> None:
        encoder, reader = ResponseEncoder(), hpack.Decoder()
        encoder.header_table_size = 100
        reader.max_allowed_table_size = 100
        data = encoder.begin_block() + encode_status(200)
        assert data == b"\x20\x88"
        assert reader.decode(data) == [(":status", "200")]
        assert encoder.begin_block() + encode_status(200) == b"\x88"

    @pytest.mark.parametrize("sizes", [[0], [0, 4096], [65536, 10], [10, 65536, 0, 20], [4095]])
    def test_any_row_of_limits_is_acknowledged_once(self, sizes: list[int]) -> None:
        encoder, reader = ResponseEncoder(), hpack.Decoder()
        for size in sizes:
            encoder.header_table_size = size
            reader.max_allowed_table_size = size
        assert encoder.header_table_size == sizes[-1]
        assert encoder.begin_block() + encode_status(200) == b"\x20\x88"
        reader.decode(b"\x20\x88")
        for size in [5, 0, 7]:
            encoder.header_table_size = size
            reader.max_allowed_table_size = size
            data = encoder.begin_block() + encode_status(200)
            assert data == b"\x88"
            reader.decode(data)

    @pytest.mark.parametrize("size", [4096, 65536])
    def test_a_higher_limit_needs_no_word(self, size: int) -> None:
        encoder = ResponseEncoder()
        encoder.header_table_size = size
        assert encoder.begin_block() + encode_status(200) == b"\x88"

    def test_a_block_built_elsewhere_begins_with_it_too(self) -> None:
        encoder = ResponseEncoder()
        encoder.header_table_size = 0
        assert encoder.begin_block() == b"\x20"
        assert encoder.begin_block() == b""


class TestEncodeFields:
    def decoded(self, *pairs: Field, options: int = 0) -> list[Field]:
        first, _, _ = encode_fields(list(pairs), options)
        again, _, _ = encode_fields(list(pairs), options)
        assert first == again
        return [tuple(field) for field in hpack.Decoder().decode(first, raw=True)]  # type: ignore[misc]

    def test_names_become_lower_case_and_blanks_go(self) -> None:
        assert self.decoded((b"X-Powered-BY", b" \tchalk \t"), (b"Vary", b"")) == [
            (b"x-powered-by", b"chalk"),
            (b"vary", b""),
        ]

    def test_fields_of_the_connection_are_left_out(self) -> None:
        names = [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade"]
        assert self.decoded(*[(name, b"x") for name in names], (b"a", b"b")) == [(b"a", b"b")]

    def test_length_and_flags(self) -> None:
        assert encode_fields([])[1:] == (NO_LENGTH, 0)
        for _ in range(2):
            assert encode_fields([(b"Content-Length", b"12")])[1:] == (12, 0)
            assert encode_fields([(b"date", b"x"), (b"Server", b"y")])[1:] == (NO_LENGTH, HAS_DATE | HAS_SERVER)
        assert self.decoded((b"content-length", b"12"), (b"a", b"b"), options=DROP_LENGTH) == [(b"a", b"b")]

    def test_pairs_may_be_lists(self) -> None:
        assert encode_fields([[b"a", b"b"]]) == encode_fields([(b"a", b"b")])  # type: ignore[list-item]

    @pytest.mark.parametrize(
        "pairs",
        [
            [(b":status", b"200")], [(b"a b", b"")], [(b"", b"")], [(b"a\n", b"")], [(b"\xe9", b"")], [(b"a:", b"")],
            [(b"a", b"b\r\nc: d")], [(b"a", b"b\n")], [(b"a", b"\0")], [(b"date", b"a\r")],
            [(b"content-length", b"-1")], [(b"content-length", b"1"), (b"content-length", b"2")],
            [(b"content-length", b" 1")], [(b"content-length", b"9" * 19)],
            [("a", b"b")], [(b"a", "b")], [(b"content-length", 1)], [(b"a",)], [b"ab c"], 1, [(b"a", [])],
        ],
    )  # fmt: skip
    def test_what_must_not_go_on_the_wire(self, pairs: object) -> None:
        for _ in range(2):
            with pytest.raises(InvalidHeader):
                encode_fields(pairs)  # type: ignore[arg-type]
