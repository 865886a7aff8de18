"""A blocking HTTP/1.1 client that keeps to the bytes: it adds no header field and forgives no bad framing."""

from __future__ import annotations

import re
import socket
import time

from daphne_ng.testing.conformance.exchange import Broken, Fields, Response, Wire

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: .*)?")


class Http1Exchange:
    """One request at a time on a connection. See `daphne_ng.testing.conformance.exchange.Exchange`.

    Args:
        connection: The socket, connected.
        authority: The value of Host.
    """

    def __init__(self, connection: socket.socket, authority: bytes) -> None:
        self.wire = Wire(connection)
        self.socket = connection
        self.response = Response()
        self._authority = authority
        self._chunked_request = False
        self._method = ""
        self._left: int | None = None
        self._chunked = False

    def request(
        self,
        method: str,
        target: bytes,
        headers: Fields = (),
        body: bytes = b"",
        *,
        more: bool = False,
        version: bytes = b"1.1",
    ) -> None:
        """Send the head, and the body or its first part; with `more` in chunks unless Content-Length is given."""
        self.response = Response()
        self._method, self._left, self._chunked = method, None, False
        lines = [b"%s %s HTTP/%s" % (method.encode(), target, version), b"host: " + self._authority]
        fields = list(headers)
        lines += [b"%s: %s" % pair for pair in fields]
        sized = any(name.lower() == b"content-length" for name, _ in fields)
        self._chunked_request = more and not sized
        if self._chunked_request:
            lines.append(b"transfer-encoding: chunked")
        elif body and not sized:
            lines.append(b"content-length: %d" % len(body))
        self.wire.write(b"\r\n".join(lines) + b"\r\n\r\n")
        if body:
            self.send(body, more=more)

    def send(self, data: bytes, *, more: bool = True) -> None:
        """Send another part of the body."""
        if self._chunked_request:
            data = (b"%x\r\n%s\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
        self.wire.write(data)

    def read_head(self, seconds: float) -> Response:
        """Wait for the final head; interim ones are kept."""
        deadline = time.monotonic() + seconds
        while not self.response.status:
            status, fields = self._head(deadline)
            if 100 <= status < 200 and status != 101:
                self.response.interim.append((status, fields))
            else:
                self.response.status, self.response.headers = status, fields
                self._frame()
        return self.response

    def _head(self, deadline: float) -> tuple[int, list[tuple[bytes, bytes]]]:
        while (end := self.wire.buffer.find(b"\r\n\r\n")) < 0:
            if not self.wire.fill(deadline):
                raise Broken("the connection ended before a response")
        head = bytes(self.wire.buffer[:end])
        del self.wire.buffer[: end + 4]
        first, *lines = head.split(b"\r\n")
        matched = _STATUS_LINE.fullmatch(first)
        if matched is None:
            raise Broken(f"no status line: {first[:80]!r}")
        fields = []
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise Broken(f"no header field: {line[:80]!r}")
            fields.append((name, value.strip(b" \t")))
        return int(matched[1]), fields

    def _frame(self) -> None:
        response = self.response
        lengths = set(response.all(b"content-length"))
        codings = b",".join(response.all(b"transfer-encoding")).lower()
        if self._method == "HEAD" or response.status in (204, 304) or response.status == 101:
            self._end(complete=True)
            response.on_length = True
        elif codings:
            if codings.strip() != b"chunked" or lengths:
                raise Broken(f"transfer-encoding {codings!r}, content-length {sorted(lengths)!r}")
            self._chunked = response.on_length = True
        elif lengths:
            if len(lengths) > 1 or not (length := lengths.pop()).isdigit():
                raise Broken(f"content-length {sorted(lengths)!r}")
            self._left = int(length)
            response.on_length = True

    def _end(self, *, complete: bool) -> None:
        self.response.ended = True
        self.response.complete = complete

    def read_body(self, size: int, seconds: float) -> Response:
        """Wait until the body has this many bytes, or has ended."""
        deadline = time.monotonic() + seconds
        self.read_head(seconds)
        while not self.response.ended and len(self.response.body) < size:
            self._step(deadline)
        return self.response

    def read_all(self, seconds: float) -> Response:
        """Wait for the end of the response."""
        deadline = time.monotonic() + seconds
        self.read_head(seconds)
        while not self.response.ended:
            self._step(deadline)
        return self.response

    def _step(self, deadline: float) -> None:
        if self._chunked:
            self._chunk(deadline)
        elif self._left == 0:
            self._end(complete=True)
        elif self.wire.buffer:
            part = bytes(self.wire.buffer[: self._left])
            del self.wire.buffer[: len(part)]
            self.response.body += part
            if self._left is not None:
                self._left -= len(part)
        elif not self.wire.fill(deadline):
            self._end(complete=self._left is None)

    def _chunk(self, deadline: float) -> None:
        line = self._line(deadline)
        if line is None:
            return
        try:
            length = int(line.partition(b";")[0], 16)
        except ValueError:
            raise Broken(f"no chunk: {line[:80]!r}") from None
        if not length:
            self._trailers(deadline)
            return
        buffer = self.wire.buffer
        while length:
            part = bytes(buffer[:length])
            del buffer[: len(part)]
            self.response.body += part
            length -= len(part)
            if length and not part and not self.wire.fill(deadline):
                self._end(complete=False)
                return
        if self._line(deadline):
            raise Broken("a chunk is longer than it says")

    def _trailers(self, deadline: float) -> None:
        while True:
            line = self._line(deadline)
            if line is None:
                return
            if not line:
                self._end(complete=True)
                return
            name, _, value = line.partition(b":")
            self.response.trailers.append((name, value.strip()))

    def _line(self, deadline: float) -> bytes | None:
        # None if the connection ends instead.
        while (end := self.wire.buffer.find(b"\r\n")) < 0:
            if not self.wire.fill(deadline):
                self._end(complete=False)
                return None
        line = bytes(self.wire.buffer[:end])
        del self.wire.buffer[: end + 2]
        return line

    def quiet(self, seconds: float) -> bool:
        """Return whether nothing comes for a while."""
        return self.wire.quiet(seconds)

    def reset(self) -> None:
        """Close with RST."""
        self.wire.reset()

    def close(self) -> None:
        """Close with FIN."""
        self.wire.close()
