"""The reactor: Twisted's asyncio reactor on uvloop, with our transports under every endpoint.

`DaphneReactor` stays an ordinary Twisted reactor. It differs from ``AsyncioSelectorReactor`` in this:

* its event loop is uvloop's where uvloop exists, unless another is asked for (`daphne_ng.net.sockets.loops`);
* what it listens on or adopts is built from `daphne_ng.net.sockets.ports` and `daphne_ng.net.sockets.transports`;
* `DaphneReactor.attach` makes it run inside an asyncio loop that is already running, and `DaphneReactor.detach`
  ends that without stopping the loop;
* it never imports the global reactor, so that several can live in one process, each in its thread.

Importing this module installs nothing. `install` does, once, when called.

Private names of Twisted that this module relies on: ``_asyncioEventloop``, ``_readers``, ``_writers``,
``_continuousPolling`` (the asyncio reactor's tables), ``_disconnectSelectable``, ``_signals`` and
``_signalsFactory`` (signal handling), ``_startedBefore`` and ``_registerAsIOThread`` (its life).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import select
import socket
import sys
from typing import Any

from twisted.internet import error
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.posixbase import PosixReactorBase

from daphne_ng.errors import ReactorError
from daphne_ng.net.sockets.files import FilePolling
from daphne_ng.net.sockets.listening import ListenOptions
from daphne_ng.net.sockets.loops import kind_of_loop, new_event_loop
from daphne_ng.net.sockets.ports import TCPPort
from daphne_ng.net.sockets.transports import DirectDescriptor, TCPServer

if sys.platform != "win32":
    from daphne_ng.net.sockets.ports import UNIXPort
    from daphne_ng.net.sockets.signals import ReactorSignals
    from daphne_ng.net.sockets.transports import UNIXServer

__all__ = [
    "DaphneReactor",
    "current",
    "event_loop_of",
    "forget",
    "install",
    "is_running",
    "make_ready",
    "new_event_loop",
]

logger = logging.getLogger("daphne_ng.net.reactor")

# Twisted's endpoints pass this number when the user gave no backlog.
_TWISTED_DEFAULT_BACKLOG = 50


_DEFAULTS = ListenOptions()
# The errors of a loop that does not take a descriptor.
_REFUSALS = (OSError, RuntimeError, ValueError)


class DaphneReactor(AsyncioSelectorReactor):
    """Twisted's asyncio reactor with write-through transports.

    Args:
        eventloop: The loop to run on. Without one: the loop that is running in this thread, or else a
            new one, which `close` then closes.
        kind: Which loop a new one is; see `daphne_ng.net.sockets.loops.new_event_loop`.
    """

    dead_poll_sweep_seconds = 5.0
    """The interval of the search for descriptors that uvloop silently stopped watching; see `_sweep`."""

    # Twisted annotates them as dictionaries of types.
    _readers: dict[Any, int]
    _writers: dict[Any, int]

    def __init__(self, eventloop: asyncio.AbstractEventLoop | None = None, kind: str = "auto") -> None:
        self._owns_loop = False
        if eventloop is None:
            try:
                eventloop = asyncio.get_running_loop()
            except RuntimeError:
                eventloop = new_event_loop(kind)
                self._owns_loop = True
        self._attached = False
        self._closed = False
        self._detached: asyncio.Future[None] | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._needs_sweep = kind_of_loop(eventloop) == "uvloop"
        super().__init__(eventloop)
        self._continuousPolling = FilePolling(self)

    # -- readers and writers
    #
    # Each method may be broken off anywhere, near the recursion limit of an application that calls send(). The
    # connection is then dropped, which removes its descriptor from both tables, ours and the loop's. So the loop's is
    # changed while ours has the descriptor: a descriptor that ours does not have is watched for ever, and uvloop aborts
    # the process when its number comes back.

    def addReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``; our own descriptors are called by the loop without anything in between."""
        if not isinstance(reader, DirectDescriptor):
            super().addReader(reader)
        elif reader not in self._readers:
            fd = self._readers[reader] = reader.fileno()  # type: ignore[attr-defined]
            try:
                self._asyncioEventloop.add_reader(fd, reader.read_ready)
            except _REFUSALS as refusal:
                if not isinstance(refusal, RecursionError):
                    del self._readers[reader]
                raise
        if self._needs_sweep and self._sweep_timer is None:
            self._sweep_timer = self._asyncioEventloop.call_later(self.dead_poll_sweep_seconds, self._sweep)

    def addWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""
        try:
            self._add_writer(writer)
        except RuntimeError as refusal:
            # uvloop has stopped watching the descriptor, see _sweep, and knows it only in this way.
            if writer not in self._readers or isinstance(refusal, RecursionError):
                raise
            self.removeReader(writer)
            self._add_writer(writer)
            self.addReader(writer)

    def _add_writer(self, writer: Any) -> None:
        if not isinstance(writer, DirectDescriptor):
            super().addWriter(writer)
        elif writer not in self._writers:
            fd = self._writers[writer] = writer.fileno()  # type: ignore[attr-defined]
            try:
                self._asyncioEventloop.add_writer(fd, writer.write_ready)
            except _REFUSALS as refusal:
                if not isinstance(refusal, RecursionError):
                    del self._writers[writer]
                raise

    def removeReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        fd = self._readers.get(reader)
        if fd is None:
            if not isinstance(reader, DirectDescriptor):  # those are watched by the loop, or not at all
                self._continuousPolling.removeReader(reader)
        else:
            self._asyncioEventloop.remove_reader(fd)
            del self._readers[reader]

    def removeWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""
        fd = self._writers.get(writer)
        if fd is None:
            if not isinstance(writer, DirectDescriptor):  # those are watched by the loop, or not at all
                self._continuousPolling.removeWriter(writer)
        else:
            self._asyncioEventloop.remove_writer(fd)
            del self._writers[writer]

    # A descriptor with a pending error (a reset) has its reader called once more by uvloop, which then stops watching
    # it without a word. If that call found data, which the kernel hands out before the error, the reset would never be
    # seen. So every few seconds one poll() over all readers looks for errors.
    def _sweep(self) -> None:
        self._sweep_timer = None
        poll = select.poll()
        by_fd = {}
        for reader, fd in self._readers.items():
            by_fd[fd] = reader
            poll.register(fd, 0)  # errors are always reported
        if not by_fd:
            return
        self._sweep_timer = self._asyncioEventloop.call_later(self.dead_poll_sweep_seconds, self._sweep)
        for fd, events in poll.poll(0):
            if events & select.POLLERR:
                reader = by_fd[fd]
                if reader in self._readers:
                    # Add it again: its next call finds the rest of the data, and at last the error.
                    self.removeReader(reader)
                    self.addReader(reader)

    # -- listening

    def listenTCP(
        self, port: Any, factory: Any, backlog: int = 50, interface: str = "", *, options: ListenOptions = _DEFAULTS
    ) -> Any:
        """See ``IReactorTCP``."""
        listener = TCPPort(port, factory, _backlog(backlog, options), interface, self)
        return _started(listener, options)

    def listenUNIX(
        self,
        address: Any,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: Any = 0,
        *,
        options: ListenOptions = _DEFAULTS,
    ) -> Any:
        """See ``IReactorUNIX``."""
        listener = UNIXPort(address, factory, _backlog(backlog, options), mode, self, wantPID)
        return _started(listener, options)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any, *, options: ListenOptions = _DEFAULTS
    ) -> Any:
        """See ``IReactorSocket``. The socket is duplicated; its backlog and its file stay as they are."""
        self._check_family(addressFamily)
        listener: Any
        if sys.platform != "win32" and addressFamily == socket.AF_UNIX:
            listener = UNIXPort._fromListeningDescriptor(self, fileDescriptor, factory)
        else:
            listener = TCPPort._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        return _started(listener, options)

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See ``IReactorSocket``."""
        self._check_family(addressFamily)
        if sys.platform != "win32" and addressFamily == socket.AF_UNIX:
            return UNIXServer._fromConnectedSocket(fileDescriptor, factory, self)
        return TCPServer._fromConnectedSocket(fileDescriptor, addressFamily, factory, self)

    def _check_family(self, family: int) -> None:
        if family not in self._supportedAddressFamilies:
            raise error.UnsupportedAddressFamily(family)

    def listenSSL(
        self,
        port: Any,
        factory: Any,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
        *,
        options: ListenOptions = _DEFAULTS,
    ) -> Any:
        """See ``IReactorSSL``. Twisted's own imports, and so installs, the global reactor.

        TLS is in the transport, except where `contextFactory` makes connections instead of contexts.
        """
        factory, options = self.tls_parts(contextFactory, factory, options)
        listener = self.listenTCP(port, factory, backlog, interface, options=options)
        listener._type = "TLS"
        return listener

    def tls_parts(self, contextFactory: Any, factory: Any, options: ListenOptions) -> tuple[Any, ListenOptions]:
        """Return the factory and the options with which a plain port serves TLS with these contexts."""
        # Imported late: without pyOpenSSL there is no TLS, and all else works.
        from daphne_ng.net.tls.factories import makes_connections, source_of

        if makes_connections(contextFactory):
            from twisted.protocols.tls import TLSMemoryBIOFactory

            above = TLSMemoryBIOFactory(contextFactory, False, factory, clock=self)  # type: ignore[arg-type]
            return above, options.replace(tls=None)
        return factory, options.replace(tls=source_of(contextFactory, factory))

    def connectSSL(
        self, host: Any, port: Any, factory: Any, contextFactory: Any, timeout: Any = 30, bindAddress: Any = None
    ) -> Any:
        """See ``IReactorSSL``."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        tls_factory = TLSMemoryBIOFactory(contextFactory, True, factory, clock=self)  # type: ignore[arg-type]
        return self.connectTCP(host, port, tls_factory, timeout, bindAddress)

    # -- running

    def run(self, installSignalHandlers: bool = True) -> None:
        """Run until `stop`. In any thread but the main one `installSignalHandlers` must be false."""
        try:
            super().run(installSignalHandlers=installSignalHandlers)
        finally:
            self._signals.uninstall()

    def renew(self, eventloop: asyncio.AbstractEventLoop | None = None, kind: str = "auto") -> None:
        """Move to another loop, on which the reactor can run, also where it has run before.

        Delayed calls come along, and references to this reactor stay good. A loop that the reactor has made is closed.

        Args:
            eventloop: The loop to run on from now on. Without one, a new one, which `close` then closes.
            kind: Which loop a new one is; see `daphne_ng.net.sockets.loops.new_event_loop`.

        Raises:
            ReactorError: The reactor is running.
        """
        if self._started or self._closed:
            raise ReactorError("a reactor that runs, or was closed, cannot be renewed")
        waiting = [reader for reader in self._internalReaders if reader in self._readers]
        for reader in waiting:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.removeReader(reader)
        for handle in (self._sweep_timer, self._timerHandle):
            if handle is not None:
                handle.cancel()
        self._sweep_timer = self._timerHandle = self._scheduledAt = None
        if self._owns_loop and not self._asyncioEventloop.is_closed():
            self._asyncioEventloop.close()
        self._owns_loop = eventloop is None
        self._asyncioEventloop = new_event_loop(kind) if eventloop is None else eventloop
        self._needs_sweep = kind_of_loop(self._asyncioEventloop) == "uvloop"
        for reader in waiting:
            self.addReader(reader)
        if self._startedBefore:
            self._forget_run()
        self._reschedule()

    def startRunning(self, installSignalHandlers: bool = True) -> None:
        """See ``ReactorBase``; only the global reactor, or the only one, makes its thread the I/O thread."""
        self._registerAsIOThread = current() in (None, self)
        super().startRunning(installSignalHandlers=installSignalHandlers)

    def iterate(self, timeout: float = 0) -> None:
        """See ``IReactorCore``."""
        super().iterate(timeout)

    def stop(self) -> None:
        """See ``IReactorCore``. The stock method leaves a delayed call behind when a delayed call calls it."""
        PosixReactorBase.stop(self)
        # The shutdown triggers fire after the calls that are due now.
        self._asyncioEventloop.call_soon(self._onTimer)

    def crash(self) -> None:
        """Stop without firing shutdown triggers. While attached the asyncio loop goes on."""
        if self._attached:
            self._attached = False
            PosixReactorBase.crash(self)
        else:
            super().crash()

    def attach(self) -> None:
        """Run inside the asyncio loop that is running in this thread.

        Fires the startup triggers and returns; endpoints, ``callLater`` and ``callFromThread`` then work beside the
        rest of the asyncio program. Installs no signal handlers. The caller calls `detach` when it is done.

        Raises:
            ReactorError: This reactor's loop is not the one running here, or the reactor runs already.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._asyncioEventloop:
            raise ReactorError("a reactor can attach only to its own asyncio loop, while that is running")
        if self._started:
            raise ReactorError("the reactor is running already")
        self._attached = True
        self.startRunning(installSignalHandlers=False)

    def detach(self) -> asyncio.Future[None]:
        """Fire the shutdown triggers and stop, while the asyncio loop goes on.

        As with ``stop()``, what still reads or writes through this reactor is disconnected. The reactor can
        attach again afterwards.

        Returns:
            A future that is done when every shutdown trigger has run. It never fails and need not be awaited.
        """
        future = self._detached
        if future is not None:
            return future
        future = self._asyncioEventloop.create_future()
        if not self._started:
            future.set_result(None)
            return future
        if not self._attached:
            raise ReactorError("the reactor was not attached; stop it with stop()")
        self._detached = future
        self.addSystemEventTrigger("after", "shutdown", self._finish_detach)
        if not self._stopped:
            self.stop()
        return future

    def _finish_detach(self) -> None:
        future, self._detached = self._detached, None
        self._forget_run()
        if future is not None and not future.done():
            future.set_result(None)

    def _forget_run(self) -> None:
        # An event that fires uses its triggers up. The reactor's own two are set once, in its __init__.
        self.addSystemEventTrigger("during", "shutdown", self.crash)
        self.addSystemEventTrigger("during", "shutdown", self.disconnectAll)
        self._startedBefore = False

    def close(self) -> None:
        """Give back what the reactor holds: its waker, its timers, and its loop if the reactor made that.

        To be called when the reactor has stopped. It cannot run again.
        """
        if self._closed:
            return
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._needs_sweep = False
        if self._timerHandle is not None:
            self._timerHandle.cancel()  # type: ignore[unreachable]
        self.disconnectAll()
        for reader in list(self._internalReaders):
            self._removeInternalReader(reader)
            reader.connectionLost(None)
        if self._owns_loop and not self._asyncioEventloop.is_closed():
            self._asyncioEventloop.close()

    # -- signals

    def _signalsFactory(self) -> Any:
        return super()._signalsFactory() if sys.platform == "win32" else ReactorSignals(self)


def _backlog(backlog: int, options: ListenOptions) -> int:
    return options.backlog if backlog == _TWISTED_DEFAULT_BACKLOG else backlog


def _started(listener: Any, options: ListenOptions) -> Any:
    listener.options = options
    listener.startListening()
    return listener


def current() -> Any:
    """Return the global reactor if one is installed, else None. Installs nothing."""
    return sys.modules.get("twisted.internet.reactor")


def event_loop_of(reactor: Any) -> asyncio.AbstractEventLoop:
    """Return the asyncio loop that `reactor` runs on.

    Raises:
        ReactorError: It does not run on one.
    """
    loop = getattr(reactor, "_asyncioEventloop", None)
    if loop is None:
        raise ReactorError(f"{type(reactor).__name__} does not run on an asyncio event loop")
    assert isinstance(loop, asyncio.AbstractEventLoop)
    return loop


def is_running(reactor: Any) -> bool:
    """Tell whether a reactor runs, or is about to."""
    return bool(getattr(reactor, "running", False) or getattr(reactor, "_started", False))


def make_ready(reactor: Any, kind: str = "auto") -> None:
    """See that a reactor can be run: `DaphneReactor` can be any number of times, on a new loop if it has to.

    Args:
        reactor: It does not run.
        kind: Which loop a new one is.

    Raises:
        ReactorError: It is another one, and has run.
    """
    ran = reactor._startedBefore
    closed = event_loop_of(reactor).is_closed()
    if not (ran or closed):
        return
    if not isinstance(reactor, DaphneReactor):
        why = "has run in this process" if ran else "is on an event loop that was closed"
        raise ReactorError(f"{type(reactor).__name__} {why}, and cannot run again; daphne-ng's own reactor can")
    reactor.renew(None if closed or reactor._owns_loop else reactor._asyncioEventloop, kind)


_WAY_OUT = (
    "Serve with the command line, or call daphne_ng.net.reactor.install() before anything imports "
    "twisted.internet.reactor"
)


def install(*, kind: str = "auto", stock: bool = False) -> Any:
    """Make a `DaphneReactor` the global reactor and return it, or return the one that can serve in its place.

    A reactor that is not on asyncio and does not run yet is replaced, with a warning. A new reactor is on the loop that
    is running in this thread, or else on a new one.

    Args:
        kind: Which loop, if it is a new one; see `daphne_ng.net.sockets.loops.new_event_loop`. A `DaphneReactor` that
            does not run yet, on a loop of another kind that it has made, gets a new one.
        stock: Whether it must be Twisted's own ``AsyncioSelectorReactor``, for code that compares the class.

    Raises:
        ReactorError: A reactor runs that is not on asyncio; or the one that is installed is on a loop of another kind,
            or no stock one.
        ConfigurationError: There is no uvloop, and `kind` asks for it.
    """
    installed = current()
    if installed is not None and not isinstance(installed, AsyncioSelectorReactor):
        name = type(installed).__name__
        if is_running(installed):
            raise ReactorError(f"{name} runs in this process, and not on asyncio, which ASGI needs. {_WAY_OUT}")
        logger.warning(
            "%s was installed already, and is not on asyncio, which ASGI needs: it is replaced, and what has imported "
            "it before holds a reactor that never runs. %s",
            name,
            _WAY_OUT,
        )
        forget()
        installed = None
    if installed is None:
        return _install_new(kind, stock)
    loop = event_loop_of(installed)
    ours = isinstance(installed, DaphneReactor)
    if stock and ours:
        raise ReactorError(
            "daphne-ng's reactor is installed already, and not Twisted's own: call "
            "daphne_ng.net.reactor.install(stock=True) in its place"
        )
    if kind not in ("auto", kind_of_loop(loop)):
        if not ours or is_running(installed) or not installed._owns_loop:
            raise ReactorError(f"--loop {kind}: a reactor is installed already, on a loop of {kind_of_loop(loop)}'s")
        installed.renew(kind=kind)
        asyncio.set_event_loop(event_loop_of(installed))
    return installed


def _install_new(kind: str, stock: bool) -> Any:
    from twisted.internet.main import installReactor

    reactor: Any
    if stock:
        try:
            eventloop = asyncio.get_running_loop()
        except RuntimeError:
            eventloop = new_event_loop(kind)
        reactor = AsyncioSelectorReactor(eventloop)
        if sys.platform != "win32":
            # Twisted's own does not hear of children that exit where the loop is uvloop's; see `DaphneReactor`.
            reactor._signalsFactory = functools.partial(ReactorSignals, reactor)
    else:
        reactor = DaphneReactor(kind=kind)
    loop = event_loop_of(reactor)
    if not loop.is_running():
        # Code that asks asyncio for "the" loop before the start gets this one, as with Twisted's install().
        asyncio.set_event_loop(loop)
    installReactor(reactor)
    return reactor


def forget() -> None:
    """Have no global reactor any more. A module that has imported the old one keeps it."""
    package = sys.modules.get("twisted.internet")
    sys.modules.pop("twisted.internet.reactor", None)
    if package is not None:
        with contextlib.suppress(AttributeError):
            del package.reactor
