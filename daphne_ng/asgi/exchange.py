"""What a run of the application is, whatever it serves: `HttpExchange` and `WebSocketExchange` build on it.

An `Exchange` stands between a port and ASGI messages. It owns the application's task, tells apart the ways in which
that ends, and sees to it that after the end of the exchange the task ends too. `Host` is what it needs of the server:
`daphne_ng.asgi.runner.Runner`, which makes exchanges run and so stands above them.

The state of an exchange is an int that only grows, but for a start that was refused; each kind of exchange has its own,
and they have `DONE` in common. The calls of the port stand in ``try`` statements that are the same everywhere and are
written out each time: see `Exchange._break_off`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar

from daphne_ng._types import ASGIApplication, Headers, Message
from daphne_ng.config import Config
from daphne_ng.errors import ClientDisconnected, UnexpectedMessage
from daphne_ng.files import FileReaders
from daphne_ng.port import ResponsePort, WebSocketPort
from daphne_ng.port.answers import error_answer
from daphne_ng.port.head import RequestHead
from daphne_ng.port.info import ConnectionInfo
from daphne_ng.wording import message_of, one_line, printable

__all__ = [
    "BURST_MAX_BYTES",
    "DONE",
    "MESSAGE_BURST_BYTES",
    "NOTICE_SECONDS",
    "SPARE_FRAMES",
    "Exchange",
    "Host",
    "bytes_of_body",
    "list_in",
    "misplaced",
    "send_error",
    "sentence_of",
    "stack_lines",
    "stack_of",
    "validated_start",
    "waiting_place",
]

BURST_MAX_BYTES: Final = 512 * 1024
"""What one exchange may send before others get a turn of the loop."""

MESSAGE_BURST_BYTES: Final = 512
"""What a message counts in a burst beyond its payload: a thousand small ones take a few milliseconds."""

DONE: Final = 5
"""The last state of every exchange: all that it had to send has been sent."""

NOTICE_SECONDS: Final = 0.1
"""How long an application that is about to be cancelled may take to end by itself."""

SPARE_FRAMES: Final = 100
"""How many frames the stack gets beyond the recursion limit for the end of what the limit has broken off."""


class Host(Protocol):
    """What an exchange needs of the server that it runs in. `daphne_ng.asgi.runner.Runner` has it."""

    application: ASGIApplication
    config: Config
    loop: asyncio.AbstractEventLoop
    log: logging.Logger
    tell_of_client: Callable[..., None]
    record: Callable[[Any], None] | None
    record_websocket: Callable[[Any, str], None] | None
    generator_abandoned: Callable[[], None] | None
    interrupted: Callable[[], None] | None
    exchanges: set[Exchange[Any]]
    idle: asyncio.Event | None
    file_readers: FileReaders

    def check_idle(self) -> None:
        """Wake whatever waits for the last exchange to end. Called by an exchange that has removed itself."""


# A subclass must not annotate the attribute again instead: mypyc would have the garbage collector count it twice.
_Port = TypeVar("_Port", bound=ResponsePort | WebSocketPort)


class Exchange(Generic[_Port]):
    """A request or WebSocket being served.

    Args:
        runner: Runs the application.
        head: The request.
        info: Its connection.
        port: Where what the application sends goes.
        scope: The ASGI scope.
    """

    # Defaults on the class: most exchanges never touch most of these, and setting them all for each request shows.
    task: asyncio.Task[None] | None = None
    began_at = 0.0
    _state = 0
    # The reason why nothing can be sent or received any more, once that is so; whether the end came from elsewhere than
    # the application; and whether the application knows of it, from receive() or send(), or by its cancellation.
    _gone: str | None = None
    _cut_off = False
    _knows_end = False
    # The application once the task has had its first step, and then what the application's call has given: a coroutine,
    # mostly. None before, and after its end.
    _awaited: Any = None
    # Whether a failure of the application after that is worth a warning.
    _late_failure_warns = False
    _burst = 0
    _overdue_timer: asyncio.TimerHandle | None = None
    task_ended: Callable[[], None] | None = None
    """Called once, when the application's task has ended or is known never to begin; for a protocol that counts them.
    HTTP/1.1 leaves it alone."""

    def __init__(
        self, runner: Host, head: RequestHead, info: ConnectionInfo, port: _Port, scope: dict[str, Any]
    ) -> None:
        self._runner = runner
        self._port = port
        self.head = head
        self.info = info
        self.scope = scope

    # -- what differs ------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The ``receive`` callable of the application."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """The ``send`` callable of the application."""
        raise NotImplementedError

    def cancel(self, reason: str, notice: float = 0.0) -> None:
        """Give the exchange up.

        Args:
            reason: A clause in ASCII, such as "the server is shutting down"; the client may read it.
            notice: Seconds between the application's disconnect and its cancellation.
        """
        raise NotImplementedError

    def is_over(self) -> bool:
        """Tell whether nothing can be sent any more."""
        raise NotImplementedError

    # Answer with an error of the server's, or make the failure show. Does nothing after the end.
    def _fail(self, status: int, detail: str = "") -> None:
        raise NotImplementedError

    # The application returned, and its exchange is not over.
    def _returned(self) -> None:
        raise NotImplementedError

    # The first word of `describe`.
    def _title(self) -> str:
        raise NotImplementedError

    # -- the application's task --------------------------------------------------------------------------

    async def run(self) -> None:
        """Run the application to its end. Raises nothing but what must end the process."""
        runner = self._runner
        self._awaited = application = runner.application
        try:
            self._awaited = awaitable = application(self.scope, self.receive, self.send)
            await awaitable
        except (ClientDisconnected, asyncio.CancelledError) as end:
            if self._gone is None:
                self._failed(end)
        except KeyboardInterrupt:
            self._fail(500)
            if runner.interrupted is None:
                raise
            runner.log.warning("The application raised KeyboardInterrupt, which ends the server: %s", self.describe())
            runner.interrupted()
        except GeneratorExit:
            self._fail(500)
            raise
        except BaseException as error:
            # SystemExit too: one request must not take everybody else's down with it.
            if self._gone is None or not self._fails_for_the_end(error):
                self._failed(error)
        else:
            if self._state != DONE and self._gone is None:
                self._returned()
        finally:
            self._ended()

    def _failed(self, error: BaseException) -> None:
        # Daphne's words, for which logs are searched.
        self._runner.log.error(
            "Exception inside application: %s (%s from %s)",
            message_of(error),
            self._subject(),
            self.info.client_name,
            exc_info=error,
        )
        self._fail(500)

    # Whether an exception that escaped after the end of the exchange comes of that end. Frameworks raise what they like
    # when they are told of it, so what tells is that it was cut off, and that the application knew: then the failure is
    # a line, for it may still be a defect in the clean-up. Where the application made the end itself, or did not know
    # yet, only what is made of our own exceptions counts.
    def _fails_for_the_end(self, error: BaseException) -> bool:
        if _only_tells_of_the_end(error):
            return True
        warns = False
        if not _made_of_disconnects(error):
            if not (self._cut_off and self._knows_end):
                return False
            warns = self._late_failure_warns
        runner = self._runner
        tell = runner.log.warning if warns else runner.tell_of_client
        tell("Application ended with %s after the end of %s", _with_place(error), self.describe())
        runner.log.debug("What it raised after the disconnect:", exc_info=error)
        return True

    # The application's task has ended, or never will begin.
    def _ended(self) -> None:
        self.task = None
        self._awaited = None
        if self._overdue_timer is not None:
            self._overdue_timer.cancel()
            self._overdue_timer = None
        runner = self._runner
        runner.exchanges.discard(self)
        if runner.idle is not None:
            runner.check_idle()
        if self.task_ended is not None:
            self._tell_ended()

    def _tell_ended(self) -> None:
        tell, self.task_ended = self.task_ended, None
        if tell is not None:
            tell()

    def _cancel_task(self) -> None:
        self._knows_end = True
        task = self.task
        if task is None:
            self._tell_ended()  # it was not started at all
            return
        task.cancel()
        if self._awaited is None:
            # Cancelled before its first step a task runs nothing, not even a ``finally``.
            self._ended()

    # The application sees the disconnect first. An application that waits for several things at once, as Django's
    # handler does, would leave their exceptions behind if it were cancelled in the middle.
    def _cancel_task_after(self, notice: float) -> None:
        task = self.task
        if notice <= 0 or task is None or self._awaited is None:
            self._cancel_task()
            return
        if self._overdue_timer is not None:
            self._overdue_timer.cancel()
        self._overdue_timer = self._runner.loop.call_later(notice, self._cancel_task)

    # A call of the port was broken off in the middle of its work. The caller has raised the recursion limit for this
    # call, and each caller does so in its own frame: there may be no room on the stack for another one. The connection
    # ends on a later turn, where the whole stack is free.
    def _break_off(self) -> None:
        self._runner.loop.call_soon(self._broken_off)

    def _broken_off(self) -> None:
        self._runner.log.error("Dropped the connection of %s: a call of the server was broken off", self.describe())
        self._port.break_off()

    # The exchange is over: give the application the configured time to see that.
    def _arm_overdue(self) -> None:
        task = self.task
        if task is not None and not task.done():
            runner = self._runner
            timeout = max(runner.config.application_close_timeout, 0)
            self._overdue_timer = runner.loop.call_later(timeout, self._overdue)

    def _overdue(self) -> None:
        self._overdue_timer = None
        task = self.task
        if task is None or task.done():
            return
        self._runner.log.warning(
            "Application instance for %s took too long to shut down and was killed. %s",
            self.describe(),
            waiting_place(self.stack()),
        )
        self._knows_end = True
        task.cancel()

    # -- for the logs ------------------------------------------------------------------------------------

    def stack(self) -> list[Any]:
        """Return the frames of the application's chain of awaits, innermost last; empty before it begins.

        They are reached from what `run` awaits, since a compiled coroutine has no frame and does not tell.
        """
        return stack_of(self._awaited)

    def describe(self) -> str:
        """Name the exchange in a log line: what it is, path and age; safe to print."""
        age = f", {self._runner.loop.time() - self.began_at:.1f} s old" if self.began_at else ""
        return f"{self._subject()}{age}"

    def _subject(self) -> str:
        return f"{self._title()} {printable(self.head.path)}"


def validated_start(kind: str, status: Any, headers: Any) -> tuple[int, Headers]:
    """Return the status and the headers of a start as ``(int, list)``.

    Raises:
        UnexpectedMessage: The status is no int from 200 to 999, or the headers are no iterable.
    """
    if not isinstance(status, int) or isinstance(status, bool):
        raise UnexpectedMessage(f"'status' of {kind} must be an int, not {type(status).__name__}")
    if not 200 <= status <= 999:
        raise UnexpectedMessage(f"'status' of {kind} must be from 200 to 999, not {int(status)}")
    try:
        return int(status), list(headers)
    except TypeError:
        raise UnexpectedMessage(
            f"'headers' of {kind} must be an iterable of pairs, not {type(headers).__name__}"
        ) from None


def bytes_of_body(kind: str, body: Any) -> bytes:
    """Return a body as bytes, of which ASGI applications send a few other kinds.

    Raises:
        UnexpectedMessage: It is none of them.
    """
    if not isinstance(body, bytes | bytearray | memoryview):
        raise UnexpectedMessage(f"'body' of {kind} must be bytes, not {type(body).__name__}")
    return bytes(body)


def list_in(message: Message, key: str) -> list[Any]:
    """Return an optional iterable of a message as a list.

    Raises:
        UnexpectedMessage: It is no iterable, or raised.
    """
    value = message.get(key, ())
    try:
        return list(value)
    except TypeError:
        raise UnexpectedMessage(
            f"{key!r} of {message['type']} must be an iterable, not {type(value).__name__}"
        ) from None
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        # A generator of the application's failed, which is no failure of the server's.
        raise UnexpectedMessage(f"{key!r} of {message['type']} raised {type(error).__name__}") from error


def misplaced(kind: str, where: str) -> UnexpectedMessage:
    """Return the exception for a message that is not allowed, which says why.

    Args:
        kind: Its type.
        where: What has been sent before, as a clause.
    """
    if kind in _UNSUPPORTED:
        return UnexpectedMessage(f"{kind} is not supported{_UNSUPPORTED[kind]}; scope['extensions'] has what is")
    return UnexpectedMessage(f"{kind} is not allowed {where}")


# Messages of extensions that ASGI knows and no scope of ours lists, and why it does not.
_UNSUPPORTED: Final = {
    "http.response.debug": ": it is for test clients",
    "http.response.push": ": browsers have dropped it",
}


def send_error(port: ResponsePort, status: int, detail: str) -> None:
    """Send a whole response of the server's own.

    Args:
        port: Where it goes; nothing was sent there yet.
        status: The status.
        detail: A sentence in ASCII for its body, or empty.
    """
    fields, text = error_answer(status, detail)
    port.start(status, fields, text, True, False)


def sentence_of(clause: str) -> str:
    """Make a sentence of a clause."""
    return f"{clause[:1].upper()}{clause[1:]}."


# Whether an exception is the server's own, or a group of such.
def _only_tells_of_the_end(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only_tells_of_the_end(one) for one in error.exceptions)
    return isinstance(error, ClientDisconnected | asyncio.CancelledError)


# Whether an exception of the server's own is behind it, or behind all of a group.
def _made_of_disconnects(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only_tells_of_the_end(one) or _made_of_disconnects(one) for one in error.exceptions)
    # An application that unwraps what a library raised (``raise error.__cause__``) makes a ring of the two.
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, ClientDisconnected):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


# An exception, and the place where it was raised; of a group the first one.
def _with_place(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if not _only_tells_of_the_end(one)), error.exceptions[0])
    line = one_line(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is not None:
        code = place.tb_frame.f_code
        line += f" (in {code.co_qualname}, {code.co_filename}:{place.tb_lineno})"
    return line


def waiting_place(stack: list[Any]) -> str:
    """Say in one sentence where a task waits: in the innermost frame of its `stack_of`."""
    if not stack:
        return "It waits at an unknown place."
    frame = stack[-1]
    return f"It waits in {frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})."


def stack_of(awaitable: Any) -> list[Any]:
    """Return the frames of a chain of awaits, innermost last. A task's `get_stack()` has the outermost alone."""
    frames = []
    for _ in range(100):
        inner = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if inner is not None:
            frames.append(inner)
        following = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
        if following is None:
            break
        awaitable = following
    return frames


def stack_lines(stack: list[Any]) -> Iterator[str]:
    """Yield a line for each frame of a `stack_of`."""
    for frame in stack:
        yield f"    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
