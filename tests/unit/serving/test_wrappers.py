"""Certificates that are read again: one reading at a time, however often it is asked for."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from daphne_ng.config import Config
from daphne_ng.serving.wrappers import ServerWrappers


class Slow:
    """A source whose files take long."""

    def __init__(self) -> None:
        self.readings: list[bool] = []
        self.go_on = threading.Event()

    def refresh(self, force: bool = False) -> None:
        """Wait until the test lets it."""
        self.readings.append(force)
        assert self.go_on.wait(10)


@pytest.mark.real("a thread reads the files")
def test_signals_that_come_while_files_are_read_are_one_more_reading() -> None:
    async def scenario() -> None:
        wrappers, source = ServerWrappers(Config(ssl_reload_interval=0), [], asyncio.get_running_loop()), Slow()
        wrappers.follow(source)
        wrappers.start()
        for _ in range(50):
            wrappers.reload()
        source.go_on.set()
        async with asyncio.timeout(10):
            while len(source.readings) < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert source.readings == [True, True]
        wrappers.reload()
        async with asyncio.timeout(10):
            while len(source.readings) < 3:
                await asyncio.sleep(0.01)
        wrappers.stop()

    asyncio.run(scenario())


@pytest.mark.real("a thread reads the files")
def test_none_begins_after_the_stop() -> None:
    async def scenario() -> None:
        wrappers, source = ServerWrappers(Config(ssl_reload_interval=0), [], asyncio.get_running_loop()), Slow()
        wrappers.follow(source)
        wrappers.start()
        wrappers.reload()
        wrappers.reload()
        wrappers.stop()
        source.go_on.set()
        await asyncio.sleep(0.1)
        assert source.readings == [True]

    asyncio.run(scenario())


def test_a_directory_without_certificates_is_worth_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "certs").mkdir()
        ServerWrappers(Config(ssl_cert_dir="~/certs"), [b"http/1.1"], asyncio.get_running_loop()).tls()
        assert f"there is no .pem file in '{tmp_path / 'certs'}'" in caplog.text

    asyncio.run(scenario())
