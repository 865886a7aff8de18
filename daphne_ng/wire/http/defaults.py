"""The fields that the server adds to every response."""

from __future__ import annotations

from daphne_ng._types import Field, Fields, Headers
from daphne_ng.wire.http.fields import HAS_DATE, HAS_SERVER

__all__ = ["ResponseDefaults"]


class ResponseDefaults:
    """The fields that the server adds: Date, Server, and those of ``--header``.

    Args:
        server_name: Value of Server; empty for none.
        extra: More fields, each left out of a response in which the application set it.
        date: Whether Date is sent.

    Call `set_date` once per second.
    """

    __slots__ = ("_date", "_date_wanted", "_extra", "_server", "_text", "block", "encoded")

    def __init__(self, server_name: str, extra: Fields, date: bool) -> None:
        self._server = b"\r\nserver: " + server_name.encode("latin-1") if server_name else b""
        self._extra = extra
        self._date = b""
        self._date_wanted = date
        self._text = b""
        self.block = b""
        """What `block_for` gives while no field is overridden; empty if it has to be asked."""
        self.encoded: bytes | None = None
        """Room for what `fields_for` gives in the encoding of another version, until the date changes."""
        self.set_date("")

    def set_date(self, text: str) -> None:
        """Put an IMF-fixdate (RFC 9110 section 5.6.7) into the block."""
        self._text = text.encode("ascii") if self._date_wanted else b""
        self._date = b"\r\ndate: " + self._text if self._text else b""
        self.encoded = None
        self.block = b"" if self._extra else self._date + self._server

    def block_for(self, flags: int, headers: Headers) -> bytes:
        """Return the block without the fields that the application set itself.

        Args:
            flags: `HAS_DATE` and `HAS_SERVER`, as the encoder of the application's fields has found them.
            headers: The application's fields, which the encoder has let pass.
        """
        block = b"" if flags & HAS_DATE else self._date
        if not flags & HAS_SERVER:
            block += self._server
        if self._extra:
            for name, value in self._missing(headers):
                block += b"\r\n" + name + b": " + value
        return block

    @property
    def plain(self) -> bool:
        """Whether the fields are the same for all responses that set neither Date nor Server."""
        return not self._extra

    def fields_for(self, flags: int, headers: Headers) -> list[Field]:
        """Return as pairs what `block_for` returns as lines."""
        fields = []
        if self._text and not flags & HAS_DATE:
            fields.append((b"date", self._text))
        if self._server and not flags & HAS_SERVER:
            fields.append((b"server", self._server[10:]))
        if self._extra:
            fields += self._missing(headers)
        return fields

    def _missing(self, headers: Headers) -> list[Field]:
        present = {name.lower() for name, _value in headers}
        return [(name, value) for name, value in self._extra if name.lower() not in present]
