"""`daphne_ng.serving.draining` with ports that are none. What a whole drain does is in ``tests/integration``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from daphne_ng.config import Config
from daphne_ng.serving.draining import Drain


class Port:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.stopped = False

    def stopListening(self) -> Any:
        self.stopped = True
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_port_that_does_not_close_holds_up_no_other_and_the_end_not_for_long(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nobody: Any = None
    ports = [Port(Deferred()), Port(OSError("on purpose")), Port(Deferred()), Port(None)]
    late = list(ports)
    drain = Drain(Config(close_timeout=60, shutdown_close_timeout=0.05), nobody, nobody, nobody, nobody, nobody, nobody)
    asyncio.run(drain._close_ports(ports))
    assert all(port.stopped for port in late)
    assert ports == []
    assert "on purpose" in caplog.text
    assert caplog.text.count("could not be closed within 0.05 s") == 2
