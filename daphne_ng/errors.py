"""Every exception that daphne-ng raises.

The tree::

    DaphneError
     +-- ConfigurationError                 a setting is wrong; raised before listening
     |    +-- ApplicationLoadError          the application cannot be imported or is not callable
     |    +-- EndpointError                 an endpoint string or descriptor cannot be listened on
     |    +-- ReactorError                  the installed reactor cannot serve
     +-- LifespanError                      the application failed or refused to start
     +-- WireError                          the peer broke the protocol; knows its HTTP status
     +-- ProxyHeaderError                   a connection does not begin with a proxy's header, as it must
     +-- TransportClosed (also OSError)     the peer or the server ended the exchange
     |    +-- ClientDisconnected            what ``send()`` raises after a disconnect (ASGI 2.4)
     +-- ApplicationError                   the application broke ASGI
          +-- UnexpectedMessage             wrong ``type``, wrong state, missing or mistyped key
          +-- InvalidHeader                 a name or value that must not go on the wire
          +-- BodyLengthMismatch            more body than the Content-Length announced

Pure code raises; one method per connection turns a `WireError` into an answer.
"""

from __future__ import annotations

__all__ = [
    "ApplicationError",
    "ApplicationLoadError",
    "BodyLengthMismatch",
    "ClientDisconnected",
    "ConfigurationError",
    "DaphneError",
    "EndpointError",
    "InvalidHeader",
    "LifespanError",
    "ProxyHeaderError",
    "ReactorError",
    "TransportClosed",
    "UnexpectedMessage",
    "WireError",
]


class DaphneError(Exception):
    """Base of every exception defined here."""


class ConfigurationError(DaphneError):
    """A setting is wrong. The message names the setting and fits one line."""

    settings: tuple[str, ...] = ()
    """The fields of `Config` that contradict each other, if it is about several."""


class ApplicationLoadError(ConfigurationError):
    """The application cannot be imported, found or called."""


class EndpointError(ConfigurationError):
    """An endpoint string is wrong, or nothing can be listened on there."""


class ReactorError(ConfigurationError):
    """The reactor that is installed or running cannot serve ASGI applications."""


class LifespanError(DaphneError):
    """The application's startup failed, timed out, or is required and missing."""


class WireError(DaphneError):
    """The peer broke the protocol.

    Args:
        status: The HTTP status to answer with, where an answer is still possible.
        detail: A constant sentence; never holds bytes that the peer sent.
        headers: Fields that the answer must bear, such as Allow with 405; names in lower case.
    """

    def __init__(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class ProxyHeaderError(DaphneError):
    """A connection does not begin with a correct header of the PROXY protocol.

    Nobody is there yet to whom an answer would mean something. The message is a constant sentence.
    """


class TransportClosed(DaphneError, OSError):
    """Nothing more can be sent on this connection or stream."""


class ClientDisconnected(TransportClosed):
    """The exchange has ended: the client left, or the server gave it up.

    An application may let it escape; the runner swallows its own.
    """


class ApplicationError(DaphneError):
    """The application broke the ASGI specification."""


class UnexpectedMessage(ApplicationError, ValueError):
    """A message that ASGI does not allow here. Names the message and the state.

    Also a `ValueError`, which is what Daphne raised.
    """


class InvalidHeader(ApplicationError, ValueError):
    """A header name or value that would be malformed, or split the response."""


class BodyLengthMismatch(ApplicationError):
    """The body is longer than the Content-Length that the application gave."""
