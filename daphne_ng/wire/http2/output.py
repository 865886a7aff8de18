"""What a connection has to write, in order, until the transport takes it."""

from __future__ import annotations

__all__ = ["Output"]


class Output:
    """The bytes of one connection that are to be written."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []
        """In order. Whoever appends to them without `write` counts them in `size`."""
        self.size = 0
        """Bytes in all parts."""

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self.parts.append(data)
        self.size += len(data)

    def take(self) -> bytes:
        """Take all there is."""
        parts = self.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.size = 0
        return data if isinstance(data, bytes) else bytes(data)
