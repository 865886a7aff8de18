"""Whatever is on the wire of HTTP/2 is the same with its plain path (`daphne_ng.wire.http2.records`) and without."""

from __future__ import annotations

import pytest

from tests.support.h2 import Http2Server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what plays with a server both ways, but for a module that says which."""
    module = metafunc.module
    if getattr(module, "Http2Server", None) is Http2Server and not hasattr(module, "PLAIN_PATH"):
        metafunc.fixturenames.append("plain_path")
        metafunc.parametrize("plain_path", [True, False], ids=["plain", "h2"], indirect=True)


@pytest.fixture
def plain_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers take the plain path, or not."""
    monkeypatch.setattr(Http2Server, "plain_path", request.param)
