"""How what comes from elsewhere, and how many of it, is put into a line of the log or of an error."""

from __future__ import annotations

from typing import Final

__all__ = ["counted", "http2_support", "message_of", "one_line", "printable"]

_TEXT_MAX: Final = 300


def printable(text: str, longest: int = _TEXT_MAX) -> str:
    """Return text for one line: ASCII without control characters, and no longer than so many characters.

    Args:
        text: Anything, by anybody.
        longest: Of what is left whole; three dots stand for the rest.
    """
    shown = ascii(text[:longest])[1:-1]
    return shown if len(text) <= longest and len(shown) <= longest else f"{shown[:longest]}..."


def message_of(error: BaseException) -> str:
    """Return the message of an exception on one line, or its type if it has none; whatever its ``__str__`` does."""
    try:
        words = str(error)[: 4 * _TEXT_MAX].split()
    except Exception:  # it is the application's
        words = []
    text = " ".join(words)
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:_TEXT_MAX])
    return (shown if len(text) <= _TEXT_MAX else f"{shown}...") or type(error).__name__


def one_line(error: BaseException) -> str:
    """Return the type of an exception and its message on one line."""
    name, message = type(error).__name__, message_of(error)
    return name if message == name else f"{name}: {message}"


def counted(number: int, what: str) -> str:
    """Return a number with its noun, such as ``1 request`` or ``2 requests``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def http2_support(with_tls: bool, without_tls: bool) -> str:
    """Return what the start says of HTTP/2, in Daphne's words as far as they go."""
    if with_tls:
        return "enabled" if without_tls else "enabled (with TLS only: --no-h2c)"
    return "enabled (without TLS only: --no-http2)" if without_tls else "not enabled (--no-http2 and --no-h2c)"
