"""Header blocks of HTTP/2 as bytes and as fields: HPACK (RFC 7541), as one server needs it.

Theory of operation
-------------------

1. What we send uses the static table and literals, never the dynamic table. So a field encodes to the same bytes at any
   time on any connection, and the bytes can be remembered. Nothing that we send is ever compared with a secret that
   another response bore (RFC 7541 section 7.1).
2. What we receive may use all of HPACK. A block that leaves the dynamic table as it is decodes to the same fields until
   the table changes, so it is remembered until then: most clients repeat themselves.
3. The decoder stays in step with the peer's encoder or the connection ends. A list of fields beyond the limits is
   decoded to its end without being kept, so that one request is refused and the connection lives; a list four times
   beyond them ends the connection.

The tables are those of the hpack library, which is also the oracle of the tests. Its decoder is not used: it copies the
rest of the block for every literal, collects whatever comes within one limit of bytes, and does not say whether the
table took part.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE
from hpack.table import HeaderTable

from daphne_ng._types import Field, Headers
from daphne_ng.errors import DaphneError, InvalidHeader
from daphne_ng.wire.http.fields import (
    DATE_FIELD,
    DROP_LENGTH,
    DROPPED_FIELD,
    FORBIDDEN_OCTETS,
    HAS_DATE,
    HAS_SERVER,
    LENGTH_FIELD,
    NO_LENGTH,
    ORDINARY_FIELD,
    RESPONSE_FIELDS,
    SECRET_FIELDS,
    VOLATILE_FIELDS,
    checked_name,
    content_length,
    pairs_of_bytes,
    wrong_length,
    wrong_value,
)
from daphne_ng.wire.memo import Memo

__all__ = [
    "CUT",
    "OVERSIZED",
    "CompressionError",
    "RequestDecoder",
    "ResponseEncoder",
    "encode_fields",
    "encode_status",
]

CUT: Final = bytes(8)
"""The name of `OVERSIZED`, which is known by the identity of this object; no check lets such a name pass besides."""

OVERSIZED: Final[Field] = (CUT, b"")
"""Stands last in a list of fields that was cut at the limits. (Compiled code makes tuples anew: they have none.)"""

# RFC 9113 section 7.
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

_DEFAULT_TABLE_BYTES: Final = 4096  # RFC 9113 section 6.5.2: "The initial value is 4,096 octets."
_ENTRY_BYTES: Final = 32  # RFC 7541 section 4.1, and RFC 9113 section 6.5.2 for the size of a list

_STATIC: Final[tuple[Field, ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)  # the first index is 1
_STATIC_LAST: Final = len(_STATIC) - 1
_static_fields: Final[dict[Field, bytes]] = {
    field: bytes((0x80 | index,)) for index, field in enumerate(_STATIC) if index
}
_static_names: Final[dict[bytes, int]] = {}
for _index in range(_STATIC_LAST, 0, -1):
    _static_names[_STATIC[_index][0]] = _index


class CompressionError(DaphneError):
    """A header block cannot be decoded, and the connection cannot go on.

    Args:
        detail: A constant sentence; never holds bytes that the peer sent.
        code: The error code of the GOAWAY.
    """

    def __init__(self, detail: str, code: int = COMPRESSION_ERROR) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


# -- Huffman code (RFC 7541 section 5.2) -----------------------------------------------------------------

_BITS: Final = [f"{code:0{length}b}" for code, length in zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)][:256]
_bits_of: Final = _BITS.__getitem__

# The library has a machine that eats half bytes; ours eats bytes, and is made from it step by step, as strings come. A
# row is a state: byte -> (the next row, what comes out). It is shared by all connections and holds the code, nothing of
# the strings, so that no client can fill it with rubbish: whole, it has 65,281 steps in 8 MB and has cost a third of a
# second; ordinary text takes a few thousand.
_rows: Final[list[Any]] = [[None] * 256 for _ in range(len(HUFFMAN_TABLE) // 16)]
_states: Final[dict[int, int]] = {id(row): state for state, row in enumerate(_rows)}
# RFC 7541 section 5.2: "A padding strictly longer than 7 bits MUST be treated as a decoding error. A padding not
# corresponding to the most significant bits of the code for the EOS symbol MUST be treated as a decoding error."
# Whether a string may end in a state depends on nothing but the state.
_FINAL_ROWS: Final = frozenset(
    id(_rows[state]) for state in {0} | {state for state, flags, _out in HUFFMAN_TABLE if flags & HUFFMAN_COMPLETE}
)


def _learn_step(row: list[Any], byte: int) -> tuple[list[Any], bytes]:
    state = _states[id(row)]
    out = b""
    for half in (byte >> 4, byte & 15):
        state, flags, octet = HUFFMAN_TABLE[state << 4 | half]
        if flags & HUFFMAN_FAIL:
            raise CompressionError("A string holds what is no Huffman code.")
        if flags & HUFFMAN_EMIT_SYMBOL:
            out += bytes((octet,))
    step = row[byte] = (_rows[state], out)
    return step


def _huffman_decoded(data: bytes) -> bytes:
    row = _rows[0]
    text = bytearray()  # a list of parts, joined in the end, would take ninety times the memory
    for byte in data:
        row, out = row[byte] or _learn_step(row, byte)
        text += out
    if id(row) not in _FINAL_ROWS:
        raise CompressionError("A Huffman string is padded wrongly.")
    return bytes(text)


# Encode a string literal, in Huffman code if that is shorter.
def _encoded_string(data: bytes) -> bytes:
    bits = "".join(map(_bits_of, data))
    count = (len(bits) + 7) >> 3
    if count < len(data):
        bits += "1" * (count * 8 - len(bits))
        return _encoded_integer(count, 0x7F, 0x80) + int(bits, 2).to_bytes(count, "big")
    return _encoded_integer(len(data), 0x7F, 0) + data


# -- integers (RFC 7541 section 5.1) ---------------------------------------------------------------------


def _encoded_integer(value: int, mask: int, pattern: int) -> bytes:
    if value < mask:
        return bytes((pattern | value,))
    octets = [pattern | mask]
    value -= mask
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


# Read on behind a prefix at `at` whose bits are all ones; return the integer, and where it ends.
def _long_integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    value = mask
    # RFC 7541 section 5.1: "Integer encodings that exceed implementation limits -- in value or octet length -- MUST be
    # treated as decoding errors." Five octets hold 32 bits and more; every value is compared with a limit besides.
    for shift in (0, 7, 14, 21, 28):
        at += 1
        octet = data[at]
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at + 1
    raise CompressionError("An integer is too long.")


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    first = data[at]
    length = first & 0x7F
    if length == 0x7F:
        length, at = _long_integer(data, at, 0x7F)
    else:
        at += 1
    end = at + length
    if end > len(data):
        raise CompressionError("A header block is cut off.")
    text = data[at:end]
    return (_huffman_decoded(text) if first >= 0x80 and length else text), end


# -- what we send ----------------------------------------------------------------------------------------

# RFC 7541 section 7.1.3: "an encoder might also choose not to index values for header fields that are considered to be
# highly valuable or sensitive to recovery, such as the Cookie or Authorization header fields." Without a dynamic table
# that is a word to intermediaries: they must not index the `SECRET_FIELDS` either.

# (name, value) -> its bytes.
# As they stand on the wire: a name in lower case, a value without blanks around it.
_line_memo: Final[Memo[Field, bytes]] = Memo(1024, 128, _static_fields)
_lines: Final = _line_memo.known
# As the application gives them: checked, and any case of letters.
_checked_memo: Final[Memo[Any, bytes]] = Memo(1024, 128)
_checked_lines: Final = _checked_memo.known
# Name as the application spells it -> what it means, and the name in lower case.
_name_memo: Final[Memo[bytes, tuple[int, bytes]]] = Memo(2048)
_names: Final = _name_memo.known
# Value of a Content-Length -> the length, and the line.
_length_memo: Final[Memo[bytes, tuple[int, bytes]]] = Memo(1024)
_lengths: Final = _length_memo.known


def _encoded_line(name: bytes, value: bytes) -> bytes:
    if name in SECRET_FIELDS:
        pattern = 0x10  # section 6.2.3, never indexed
    else:
        line = _static_fields.get((name, value))
        if line is not None:
            return line
        pattern = 0  # section 6.2.2, without indexing
    index = _static_names.get(name)
    if index is not None:
        return _encoded_integer(index, 0x0F, pattern) + _encoded_string(value)
    return bytes((pattern,)) + _encoded_string(name) + _encoded_string(value)


def _remember_line(memo: Memo[Field, bytes], name: bytes, field: Field, line: bytes) -> None:
    if name not in VOLATILE_FIELDS:
        memo.remember(field, line, len(field[0]) + len(field[1]))


def encode_status(status: int) -> bytes:
    """Encode ``:status``, which stands first in a response."""
    field = (b":status", b"%d" % status)
    line = _lines.get(field)
    if line is None:
        line = _encoded_line(*field)
        _remember_line(_line_memo, b":status", field, line)
    return line


# Hot: every response; a call would cost more than the branches.
def encode_fields(headers: Headers, options: int = 0) -> tuple[bytes, int, int]:  # noqa: PLR0912
    """Encode the application's fields, as `daphne_ng.wire.http1.writer.encode_fields` does for HTTP/1.1.

    Names become lower-case and values lose the blanks around them; fields that belong to a connection are left out.

    Args:
        headers: ``(name, value)`` pairs of bytes.
        options: `DROP_LENGTH` leaves Content-Length out.

    Returns:
        The bytes, the Content-Length that stood in them (or `NO_LENGTH`), and the flags `HAS_DATE` and `HAS_SERVER`.
        They can stand in a block at any place behind ``:status``, on any connection.

    Raises:
        InvalidHeader: A name is no token, a value holds CR, LF or NUL, or either is not bytes.
    """
    parts: list[bytes] = []
    append = parts.append
    lines = _checked_lines
    length = NO_LENGTH
    flags = 0
    try:
        for field in headers:
            # Pairs may come as lists too, and those are no dictionary keys.
            line = lines.get(field) if type(field) is tuple else None
            if line is not None:
                append(line)
                continue
            name, value = field
            code, lower = _names.get(name) or _learn(name)
            if code == DROPPED_FIELD:
                continue
            if code == LENGTH_FIELD:
                # What equals a key need not be bytes: a memoryview does.
                known = _lengths.get(value) if value.__class__ is bytes and length == NO_LENGTH else None
                if known is not None:
                    length, line = known
                else:
                    if not isinstance(value, bytes):
                        raise TypeError("a value is not bytes")
                    length = content_length(value, length)
                    if length < NO_LENGTH:
                        raise wrong_length(value, length)
                    line = _encoded_line(lower, bytes(value))
                    _length_memo.remember(bytes(value), (length, line), len(value))
                if not options & DROP_LENGTH:
                    append(line)
                continue
            if code:
                flags |= HAS_DATE if code == DATE_FIELD else HAS_SERVER
            value = _checked(lower, value)
            # A field that means something to the server was not found above; its bytes may be known.
            line = _lines.get((lower, value)) if code else None
            if line is None:
                line = _encoded_line(lower, value)
                if code:
                    _remember_line(_line_memo, lower, (lower, value), line)
                else:
                    _remember_line(_checked_memo, lower, (name, value), line)
            append(line)
        return b"".join(parts), length, flags
    except InvalidHeader:
        raise
    except (TypeError, ValueError) as error:
        pairs_of_bytes(headers)  # raises, and says which
        raise InvalidHeader(f"headers must be pairs of bytes: {error}") from None


def _learn(name: bytes) -> tuple[int, bytes]:
    lower = checked_name(name)
    entry = (RESPONSE_FIELDS.get(lower, ORDINARY_FIELD), lower)
    _name_memo.remember(name, entry, len(name))
    return entry


def _checked(name: bytes, value: bytes) -> bytes:
    if not isinstance(value, bytes) or len(value.translate(None, FORBIDDEN_OCTETS)) != len(value):
        raise wrong_value(name, value)
    # RFC 9113 section 8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character".
    return value.strip(b" \t")


class ResponseEncoder:
    """Stands in for the encoder of an h2 connection: it keeps no dynamic table, and tells the peer so.

    Fields are encoded by `encode_status` and `encode_fields`; the engine makes frames of them without h2.
    """

    __slots__ = ("_size", "_table_bytes", "prefix")

    def __init__(self) -> None:
        self._size = _DEFAULT_TABLE_BYTES
        # The maximum that the peer's decoder goes by, as far as we told it.
        self._table_bytes = _DEFAULT_TABLE_BYTES
        self.prefix = b""
        """What the next block must begin with, mostly nothing; `begin_block` takes it."""

    @property
    def header_table_size(self) -> int:
        """SETTINGS_HEADER_TABLE_SIZE of the peer, in bytes."""
        return self._size

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        self._size = value
        # RFC 7541 section 4.2: the maximum that an encoder uses "MUST stay lower than or equal to the maximum set by
        # the protocol", and a change "MUST occur at the beginning of the first header block following the change".
        # So one that lowers the limit waits to be told, though nothing was ever in the table. We go to 0 at once:
        # no limit will ever be below that, so it is said once at most.
        if value < self._table_bytes:
            self._table_bytes = 0
            self.prefix = b"\x20"

    def begin_block(self) -> bytes:
        """Return what the next block must begin with, mostly nothing; it counts as sent."""
        prefix = self.prefix
        if prefix:
            self.prefix = b""
        return prefix


# -- what we receive -------------------------------------------------------------------------------------

# RFC 7541 section 4.2 has an encoder signal the smallest and the last of the sizes it went through; the hpack library
# signals all of them. A block may not consist of thousands.
_SIZE_UPDATES_MAX: Final = 32
# Beyond the limits by this factor, a list ends the connection.
_HARD_LIMIT_FACTOR: Final = 4

# Blocks remembered on one connection. The bytes are an estimate of what they cost: tuples and literals, not the fields
# that they share with the tables. Emptied when full. A site of two hundred pages, each asked for again, fits.
_BLOCKS_MAX: Final = 256
_BLOCKS_MAX_BYTES: Final = 163_840
_BLOCK_MAX_BYTES: Final = 2048
# What an entry costs beside its bytes and what they decode to.
_ENTRY_COST_BYTES: Final = 168


class RequestDecoder:
    """Decodes the header blocks of one connection.

    Args:
        max_header_list_size: Largest list of fields, in bytes of names and values and 32 for each field.
        max_fields: Most fields in a list, all Cookie fields being one.

    A `CompressionError` from `decode` must end the connection: the table is out of step.
    """

    __slots__ = (
        "_blocks",
        "_blocks_bytes",
        "_fields_max",
        "_list_max",
        "_table",
        "_table_bytes",
        "_table_max",
        "heads",
    )

    def __init__(self, max_header_list_size: int, max_fields: int) -> None:
        self._list_max = max_header_list_size
        self._fields_max = max_fields
        self._table: deque[Field] = deque()
        self._table_bytes = 0
        self._table_max = _DEFAULT_TABLE_BYTES
        # Holds blocks that were decoded with the table as it is now, and left it so.
        self._blocks: dict[bytes, tuple[Field, ...]] = {}
        self._blocks_bytes = 0
        self.heads: dict[bytes, Any] = {}
        """What `keep_head` has kept: the same dictionary always, for look-ups only."""

    @property
    def header_table_size(self) -> int:
        """Maximum size of the dynamic table, as the peer chose it within the 4,096 bytes that we leave it."""
        return self._table_max

    def forget(self) -> None:
        """Forget all blocks. Worth a call when the connection falls idle: it frees up to 160 KiB."""
        if self._blocks_bytes:
            self._blocks.clear()
            self.heads.clear()
            self._blocks_bytes = 0

    def knows(self, block: bytes) -> bool:
        """Whether a block has come before, and the table has not changed since."""
        return block in self._blocks

    def keep_head(self, block: bytes, head: Any, size: int) -> None:
        """Keep what was made of a known block, in the place of its fields, as long as the table stays as it is.

        Args:
            block: The block.
            head: What was made of its fields, and of nothing else.
            size: How large that is, in bytes.
        """
        if self._blocks_bytes + size <= _BLOCKS_MAX_BYTES and self._blocks.pop(block, None) is not None:
            self.heads[block] = head
            self._blocks_bytes += size

    def decode(self, data: bytes) -> tuple[Field, ...]:
        """Decode one whole header block.

        Args:
            data: The fragments of the block, joined.

        Returns:
            The fields, nothing about them checked. If there were too many or too much, those within the limits, and
            `OVERSIZED` as the last: a field that no check lets pass.

        Raises:
            CompressionError: The block breaks RFC 7541, or the limits by far.
        """
        fields = self._blocks.get(data)
        return self._decode(data) if fields is None else fields

    # In one piece: the loop is the hottest of HTTP/2, with one pass for each field of a request that is not the one
    # before it over again, and half a dozen variables for the limits that every kind of field counts in.
    def _decode(self, data: bytes) -> tuple[Field, ...]:  # noqa: C901, PLR0912, PLR0915
        fields: list[Field] = []
        table = self._table
        size_max = self._list_max
        fields_max = most = self._fields_max
        cookies = -1  # not counted yet
        size = count = own = updates = 0
        insert = changed = False
        at = 0
        end = len(data)
        try:
            while at < end:
                first = data[at]
                if first >= 0x80:  # section 6.1
                    index = first & 0x7F
                    if index == 0x7F:
                        index, at = _long_integer(data, at, 0x7F)
                    else:
                        at += 1
                    if index > _STATIC_LAST:
                        field = table[index - _STATIC_LAST - 1]
                    elif index:
                        field = _STATIC[index]
                    else:
                        # "The index value of 0 is not used. It MUST be treated as a decoding error".
                        raise CompressionError("A field has the index 0.")
                    name, value = field
                    size += len(name) + len(value) + _ENTRY_BYTES
                elif first & 0xE0 == 0x20:  # section 6.3
                    updates += 1
                    if count or updates > _SIZE_UPDATES_MAX:
                        raise CompressionError("A table size update stands where none may be.")
                    index = first & 0x1F
                    if index == 0x1F:
                        index, at = _long_integer(data, at, 0x1F)
                    else:
                        at += 1
                    self._resize(index)
                    changed = True
                    continue
                else:  # section 6.2
                    insert = first >= 0x40
                    mask = 0x3F if insert else 0x0F
                    index = first & mask
                    if index == mask:
                        index, at = _long_integer(data, at, mask)
                    else:
                        at += 1
                    if not index:
                        name, at = _string(data, at)
                    elif index > _STATIC_LAST:
                        name = table[index - _STATIC_LAST - 1][0]
                    else:
                        name = _STATIC[index][0]
                    value, at = _string(data, at)
                    field = (name, value)
                    weight = len(name) + len(value) + _ENTRY_BYTES
                    size += weight
                    own += weight + 64
                    if insert:
                        self._insert(field, weight)
                        changed = True
                count += 1
                if count > most:
                    # RFC 9113 section 8.2.3: a Cookie field may be split, and browsers make a field of each cookie. All
                    # of them are one field to the application. Who has few fields is not asked.
                    if cookies < 0:
                        cookies = sum(known == b"cookie" for known, _value in fields)
                    cookies += name == b"cookie"
                    fields_max = most + max(0, cookies - 1)
                if count <= fields_max and size <= size_max:
                    fields.append(field)
                elif count > fields_max + most * (_HARD_LIMIT_FACTOR - 1) or size > size_max * _HARD_LIMIT_FACTOR:
                    raise CompressionError("A header list is far too large.", ENHANCE_YOUR_CALM)
        except IndexError:
            # The octets ran out, or an index is beyond the table: section 2.3.3, "Indices strictly greater than the sum
            # of the lengths of both tables MUST be treated as a decoding error."
            raise CompressionError("A header block is cut off, or has an index without a field.") from None
        if changed:
            self.forget()
        if size > size_max or count > fields_max:
            fields.append(OVERSIZED)
        result = tuple(fields)
        if not changed and end <= _BLOCK_MAX_BYTES:
            self._remember(data, result, own)
        return result

    def _remember(self, data: bytes, fields: tuple[Field, ...], own: int) -> None:
        cost = len(data) + own + 8 * len(fields) + _ENTRY_COST_BYTES
        if len(self._blocks) + len(self.heads) >= _BLOCKS_MAX or self._blocks_bytes + cost > _BLOCKS_MAX_BYTES:
            self.forget()
            if cost > _BLOCKS_MAX_BYTES:
                return
        self._blocks[data] = fields
        self._blocks_bytes += cost

    def _insert(self, field: Field, weight: int) -> None:
        if weight > self._table_max:
            # RFC 7541 section 4.4: "an attempt to add an entry larger than the maximum size causes the table to be
            # emptied of all existing entries and results in an empty table."
            self._table.clear()
            self._table_bytes = 0
            return
        self._table.appendleft(field)
        self._table_bytes += weight
        self._evict()

    def _resize(self, size: int) -> None:
        # RFC 7541 section 6.3: "The new maximum size MUST be lower than or equal to the limit determined by the
        # protocol using HPACK. A value that exceeds this limit MUST be treated as a decoding error."
        if size > _DEFAULT_TABLE_BYTES:
            raise CompressionError("A table size update exceeds what we allow.")
        self._table_max = size
        self._evict()

    def _evict(self) -> None:
        while self._table_bytes > self._table_max:
            name, value = self._table.pop()
            self._table_bytes -= len(name) + len(value) + _ENTRY_BYTES
