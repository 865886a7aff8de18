"""The port: what protocols and exchanges say to each other, and of what. See `daphne_ng.port.interfaces`."""

from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.port.interfaces import RequestSink, ResponsePort, WebSocketPort, WebSocketSink

__all__ = ["ConnectionInfo", "RequestHead", "RequestSink", "ResponsePort", "WebSocketPort", "WebSocketSink"]
