"""`daphne_ng.asgi.lifespan`: checklist 5, 6, 11 and 41-46."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from daphne_ng import stopping
from daphne_ng.asgi.lifespan import Lifespan
from daphne_ng.errors import LifespanError, UnexpectedMessage
from daphne_ng.stopping import StopNotice
from tests.support.asgi import LOG, on_loop, settle

STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


class Application:
    """Answers as told, and writes down what it was sent."""

    def __init__(self, *answers: dict[str, Any], after: dict[str, float] | None = None) -> None:
        self.answers = list(answers)
        self.delays = after or {}
        self.received: list[str] = []
        self.scope: dict[str, Any] = {}
        self.runs = 0
        self.loop: Any = None
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        self.scope = scope
        self.loop = asyncio.get_running_loop()
        try:
            for answer in self.answers:
                message = await receive()
                self.received.append(message["type"])
                await asyncio.sleep(self.delays.get(message["type"], 0))
                await send(answer)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize("mode", ["auto", "on"])
@on_loop
async def test_41_to_46_a_whole_life(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    application = Application(STARTED, STOPPED)
    lifespan = Lifespan(application, mode, LOG)
    await lifespan.startup(60)
    assert application.runs == 1
    assert application.loop is asyncio.get_running_loop()
    assert application.scope["type"] == "lifespan"
    assert application.scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert application.received == ["lifespan.startup"]
    await settle()
    assert application.received == ["lifespan.startup"]
    await lifespan.shutdown(30)
    assert application.received == ["lifespan.startup", "lifespan.shutdown"]
    assert caplog.records == []


@on_loop
async def test_42_what_the_application_puts_into_the_state_is_kept() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"] == {}
        await receive()
        scope["state"]["pool"] = pool
        await send(STARTED)
        await receive()

    pool = object()
    lifespan = Lifespan(application, "auto", LOG)
    assert lifespan.state is None
    await lifespan.startup(60)
    assert lifespan.state == {"pool": pool}
    await lifespan.shutdown(30)


@on_loop
async def test_43_startup_waits_for_the_answer() -> None:
    application = Application(STARTED, STOPPED, after={"lifespan.startup": 59})
    lifespan = Lifespan(application, "auto", LOG)
    began = asyncio.get_running_loop().time()
    await lifespan.startup(60)
    assert asyncio.get_running_loop().time() - began == pytest.approx(59)
    await lifespan.shutdown(30)


@on_loop
async def test_43_a_timeout_of_zero_waits_for_any_length() -> None:
    lifespan = Lifespan(
        Application(STARTED, STOPPED, after={"lifespan.startup": 9999, "lifespan.shutdown": 9999}), "auto", LOG
    )
    await lifespan.startup(0)
    await lifespan.shutdown(0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"type": "lifespan.startup.failed", "message": "no database"}, "no database"),
        ({"type": "lifespan.startup.failed"}, "it gave no reason"),
        ({"type": "lifespan.startup.failed", "message": ""}, "it gave no reason"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "on"])
@on_loop
async def test_44_a_failed_startup_stops_the_server(mode: str, answer: dict[str, Any], reason: str) -> None:
    application = Application(answer)
    lifespan = Lifespan(application, mode, LOG)
    with pytest.raises(LifespanError, match=reason):
        await lifespan.startup(60)
    await lifespan.shutdown(30)
    assert application.received == ["lifespan.startup"]
    assert lifespan.state is None


@pytest.mark.parametrize("mode", ["auto", "on"])
@on_loop
async def test_43_a_startup_without_an_answer_times_out_and_is_cancelled(mode: str) -> None:
    application = Application(STARTED, after={"lifespan.startup": 9999})
    with pytest.raises(LifespanError, match="longer than 60 s"):
        await Lifespan(application, mode, LOG).startup(60)
    assert application.cancelled


async def raising(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("No application configured\nfor scope type 'lifespan'")


async def raising_later(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("later")


async def returning(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize("application", [raising, raising_later])
@on_loop
async def test_45_an_application_that_raises_is_served_without_a_lifespan(
    application: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Checklist 11 and 45: Django and Channels raise for a scope type that they do not know."""
    caplog.set_level(logging.DEBUG)
    lifespan = Lifespan(application, "auto", LOG)
    await lifespan.startup(60)
    assert lifespan.state is None
    await lifespan.shutdown(30)
    [line] = lines(caplog, logging.INFO)
    assert line.startswith("The application has no lifespan (ValueError: ")
    assert "\n" not in line
    [detail] = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert detail.exc_info
    assert len(caplog.records) == 2


@on_loop
async def test_45_an_application_that_returns_is_served_without_a_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    lifespan = Lifespan(returning, "auto", LOG)
    await lifespan.startup(60)
    assert lifespan.state is None
    await lifespan.shutdown(30)
    assert caplog.records == []


@pytest.mark.parametrize("application", [raising, raising_later, returning])
@on_loop
async def test_45_a_lifespan_that_is_required_must_be_there(application: Any) -> None:
    with pytest.raises(LifespanError, match="--lifespan on") as caught:
        await Lifespan(application, "on", LOG).startup(60)
    assert "\n" not in str(caught.value)


@on_loop
async def test_off_does_not_call_the_application() -> None:
    application = Application(STARTED)
    lifespan = Lifespan(application, "off", LOG)
    await lifespan.startup(60)
    await lifespan.shutdown(30)
    assert application.runs == 0
    assert lifespan.state is None


@pytest.mark.parametrize("message", ["pool did not close", ""])
@on_loop
async def test_46_a_failed_shutdown_is_logged(message: str, caplog: pytest.LogCaptureFixture) -> None:
    lifespan = Lifespan(Application(STARTED, {"type": "lifespan.shutdown.failed", "message": message}), "auto", LOG)
    await lifespan.startup(60)
    await lifespan.shutdown(30)
    assert lines(caplog, logging.ERROR) == [f"The application's shutdown failed: {message or 'it gave no reason'}"]


@on_loop
async def test_46_shutdown_waits_and_then_times_out(caplog: pytest.LogCaptureFixture) -> None:
    application = Application(STARTED, STOPPED, after={"lifespan.shutdown": 9999})
    lifespan = Lifespan(application, "auto", LOG)
    await lifespan.startup(60)
    began = asyncio.get_running_loop().time()
    await lifespan.shutdown(30)
    assert 30 <= asyncio.get_running_loop().time() - began <= 32
    assert application.cancelled
    [line] = lines(caplog, logging.ERROR)
    assert "longer than 30 s" in line


@on_loop
async def test_46_an_exception_in_the_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        raise LookupError("in shutdown")

    lifespan = Lifespan(application, "auto", LOG)
    await lifespan.startup(60)
    await lifespan.shutdown(30)
    [line] = lines(caplog, logging.ERROR)
    assert "in shutdown" in line


@on_loop
async def test_46_a_lifespan_that_died_early_is_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        raise LookupError("too early")

    lifespan = Lifespan(application, "auto", LOG)
    await lifespan.startup(60)
    await settle()
    await lifespan.shutdown(30)
    [line] = lines(caplog, logging.ERROR)
    assert "too early" in line


@on_loop
async def test_46_an_application_that_returns_without_an_answer_ends_the_shutdown() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()

    lifespan = Lifespan(application, "auto", LOG)
    await lifespan.startup(60)
    await lifespan.shutdown(30)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "lifespan.shutdown.complete"},
        {"type": "http.response.start", "status": 200},
        {"type": "lifespan.startup.finished"},
        {"type": None},
        {},
        None,
    ],
    ids=repr,
)
@on_loop
async def test_05_a_message_that_is_not_allowed_raises_out_of_send(message: Any) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(UnexpectedMessage):
            await send(message)
        await send({**STARTED, "extra": 1})  # 6: extra keys never raise
        with pytest.raises(UnexpectedMessage):
            await send(STARTED)
        await receive()
        await send(STOPPED)
        seen.append(True)

    seen: list[bool] = []
    lifespan = Lifespan(application, "on", LOG)
    await lifespan.startup(60)
    await lifespan.shutdown(30)
    assert seen == [True]


@on_loop
async def test_a_startup_that_is_cancelled_leaves_no_task_behind() -> None:
    """``serve()`` cancelled while the application starts: its task was destroyed while pending."""
    application = Application(STARTED, after={"lifespan.startup": 9999})
    lifespan = Lifespan(application, "auto", LOG)
    starting = asyncio.ensure_future(lifespan.startup(60))
    await settle()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await lifespan.shutdown(30)
    assert application.cancelled


# -- the notice --------------------------------------------------------------------------------------------------


ASKED = {**STARTED, "shutdown_notice": True}


def asking(received: list[str], *, answer: dict[str, Any] = ASKED) -> Any:
    """Return an application that writes down its messages until the shutdown."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["extensions"] == {"lifespan.shutdown.notice": {}}
        await receive()
        await send(answer)
        while not received or received[-1] != "lifespan.shutdown":
            received.append((await receive())["type"])
        await send(STOPPED)

    return application


@on_loop
async def test_an_application_that_asks_for_the_notice_gets_it_once_before_the_shutdown() -> None:
    received: list[str] = []
    lifespan = Lifespan(asking(received), "on", LOG)
    await lifespan.startup(60)
    await settle()
    assert lifespan.notify()
    await settle()
    assert received == ["lifespan.shutdown.notice"]
    await lifespan.shutdown(30)
    assert received == ["lifespan.shutdown.notice", "lifespan.shutdown"]


@on_loop
async def test_an_application_that_listens_late_gets_the_notice_first() -> None:
    received: list[str] = []
    lifespan = Lifespan(asking(received), "on", LOG)
    await lifespan.startup(60)
    assert lifespan.notify()
    await lifespan.shutdown(30)
    assert received == ["lifespan.shutdown.notice", "lifespan.shutdown"]


@pytest.mark.parametrize("answer", [STARTED, {**STARTED, "shutdown_notice": False}], ids=["no key", "False"])
@on_loop
async def test_an_application_that_does_not_ask_gets_no_notice(answer: dict[str, Any]) -> None:
    """Starlette takes any second message for the shutdown, and would close its pools under requests that run."""
    received: list[str] = []
    lifespan = Lifespan(asking(received, answer=answer), "on", LOG)
    await lifespan.startup(60)
    assert not lifespan.notify()
    await settle()
    assert received == []
    await lifespan.shutdown(30)
    assert received == ["lifespan.shutdown"]


@on_loop
async def test_a_startup_that_failed_or_is_not_over_and_an_end_that_is_over_give_no_notice() -> None:
    lifespan = Lifespan(asking([]), "off", LOG)
    assert not lifespan.notify()
    await lifespan.startup(60)
    assert not lifespan.notify()
    failed = Lifespan(Application({"type": "lifespan.startup.failed", "shutdown_notice": True}), "on", LOG)
    with pytest.raises(LifespanError):
        await failed.startup(60)
    assert not failed.notify()
    ended = Lifespan(asking([]), "on", LOG)
    await ended.startup(60)
    await ended.shutdown(30)
    assert not ended.notify()


@pytest.mark.parametrize("own", [None, "the application's own"])
@on_loop
async def test_requests_find_the_notice_in_the_state_and_the_startup_an_empty_one(own: str | None) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"] == {}
        await receive()
        if own is not None:
            scope["state"]["server_stopping"] = own
        await send(STARTED)
        await receive()

    notice = StopNotice()
    lifespan = Lifespan(application, "auto", LOG, notice)
    await lifespan.startup(60)
    assert lifespan.state == {"server_stopping": own or notice}
    await lifespan.shutdown(30)


@on_loop
async def test_the_application_runs_in_the_context_that_the_server_has_made() -> None:
    contexts: list[bool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        contexts.append(stopping.is_supported())
        await receive()
        await send(STARTED)
        await receive()

    notice = StopNotice()
    lifespan = Lifespan(application, "on", LOG, notice, stopping.context_of_server(notice))
    await lifespan.startup(60)
    await lifespan.shutdown(30)
    assert contexts == [True]
