"""A server in a process of its own, for the tests of other projects. The names are those of ``daphne.testing``.

`DaphneProcess` is what ``channels.testing.ChannelsLiveServerTestCase`` starts. `BaseDaphneTestingInstance` is a context
manager around it; `DaphneTestingInstance` serves `TestApplication`, which notes what it gets and
answers what it is told.

Everything works with each of multiprocessing's start methods. With ``spawn`` and ``forkserver`` the application must be
picklable, as anything else that is handed to another process.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import pickle
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from daphne_ng.compat import InstallAsDaphne, is_installed

__all__ = ["BaseDaphneTestingInstance", "DaphneProcess", "DaphneTestingInstance", "TestApplication"]

# The seconds that terminate() leaves the applications and the interpreter. A test suite starts hundreds of servers.
# Until then the limits are those of any server, and a consumer's disconnect() may take its time.
_END: dict[str, Any] = {
    "graceful_timeout": 0.0,
    "shutdown_application_timeout": 0.2,
    "shutdown_close_timeout": 0.2,
    "lifespan_shutdown_timeout": 1.0,
}
_EXIT_SECONDS = 0.5

_OWNER: int = os.getuid() if hasattr(os, "getuid") else 0


class DaphneProcess(multiprocessing.Process):
    """A process that serves one application on one TCP port.

    Args:
        host: Address to listen on.
        get_application: Called in the process; returns the ASGI application.
        kwargs: Keywords for `daphne_ng.server.Server`; ``config`` may be among them.
        setup: Called in the process before it serves.
        teardown: Called in the process when it has served.
        port: Port to listen on; 0 or None for a free one.
    """

    def __init__(
        self,
        host: str,
        get_application: Callable[[], Any],
        kwargs: dict[str, Any] | None = None,
        setup: Callable[[], object] | None = None,
        teardown: Callable[[], object] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__()
        self.host = host
        self.get_application = get_application
        self.kwargs = kwargs or {}
        self.setup = setup
        self.teardown = teardown
        self.port = multiprocessing.Value("i", port or 0)
        """Shared; its ``value`` is the port, once `ready` is set."""
        self.ready = multiprocessing.Event()
        """Set when the process listens."""
        self.errors: Any = multiprocessing.Queue()
        """Gets ``(exception, traceback as text)`` if serving failed."""
        self.server: Any = None
        """In the process itself: the server."""

    # A spawned process unpickles this before anything else is imported. Whoever has `import daphne` mean daphne-ng
    # needs that to hold there too, and before the class of this object is looked up: it may be a subclass in a module
    # that imports daphne.
    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)
        restore, arguments, *state = reduced
        return (_restored, (InstallAsDaphne(is_installed()), restore, *arguments), *state)

    def start(self) -> None:
        """Start the process."""
        if multiprocessing.get_start_method() == "fork":
            # Once here, not in every process.
            importlib.import_module("daphne_ng.server")
        super().start()

    def run(self) -> None:
        """Serve until SIGTERM. Called in the new process."""
        try:
            # First, for the application may import it.
            _reinstall_reactor(self.kwargs.get("config"))
            application = self.get_application()
            self.server = server = self._server(application)
            if self.setup is not None:
                self.setup()
            try:
                server.run()
            finally:
                if self.teardown is not None:
                    self.teardown()
        except BaseException as error:
            self._report(error)
        finally:
            # A thread of the application's that never ends, such as a sync view that waits, must not keep the process.
            watchdog = threading.Timer(_EXIT_SECONDS, os._exit, [0])
            watchdog.daemon = True
            watchdog.start()

    def resolve_port(self) -> None:
        """Set `port` and `ready` when `server` listens. For a `run` that a project has written after Daphne's."""
        from daphne_ng.net import reactor as reactors

        if self.server is not None and self.server.listening_addresses:
            self.port.value = self.server.listening_addresses[0][1]
            self.ready.set()
        else:
            reactors.current().callLater(0.1, self.resolve_port)

    def _server(self, application: Any) -> Any:
        # Only here is the server imported: whoever imports this module to subclass it starts none.
        from daphne_ng.config import Config
        from daphne_ng.endpoints import build_endpoint_description_strings
        from daphne_ng.server import Server

        keywords = dict(self.kwargs)
        told = keywords.pop("ready_callable", None)
        server: Any = None

        def ready() -> None:
            self.port.value = server.listening_addresses[0][1]
            self.ready.set()
            if told is not None:
                told()

        keywords.setdefault("config", Config(**_END))
        port: int = self.port.value
        server = Server(
            application=application,
            endpoints=build_endpoint_description_strings(host=self.host, port=port),
            ready_callable=ready,
            **keywords,
        )
        server.hooks = dataclasses.replace(server.hooks, listen_failed=self._report)
        return server

    def _report(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 (our own; many exceptions can be pickled, but not read again)
        except Exception:  # then the reader cannot have the object
            error = RuntimeError(str(error))
        self.errors.put((error, text))


def _restored(install: InstallAsDaphne, restore: Callable[..., Any], *arguments: Any) -> Any:
    return restore(*arguments)


# Private in Daphne, and yet what a `run` after Daphne's begins with.
def _reinstall_reactor(config: Any = None) -> None:
    from daphne_ng.config import Config
    from daphne_ng.net import reactor as reactors
    from daphne_ng.serving.running import install_reactor

    # A forked process has its parent's, whose descriptors are the parent's too.
    reactors.forget()
    install_reactor(config or Config())


class BaseDaphneTestingInstance:
    """Serves an application while a ``with`` block runs; ``host`` and ``port`` say where.

    Args:
        xff: Whether X-Forwarded-For, -Port and -Proto count.
        http_timeout: See `daphne_ng.config.Config`.
        request_buffer_size: Accepted for Daphne's callers.
        websocket_max_message_size: See `daphne_ng.config.Config`.
        websocket_max_frame_size: See `daphne_ng.config.Config`.
        application: The ASGI application.
    """

    startup_timeout: float = 10
    """Seconds that the server has to listen."""

    process: DaphneProcess
    port: int

    def __init__(
        self,
        xff: bool = False,
        http_timeout: float | None = None,
        request_buffer_size: int | None = None,
        websocket_max_message_size: int | None = None,
        websocket_max_frame_size: int | None = None,
        *,
        application: Any,
    ) -> None:
        self.xff = xff
        self.http_timeout = http_timeout
        self.host = "127.0.0.1"
        self.request_buffer_size = request_buffer_size
        self.websocket_max_message_size = websocket_max_message_size
        self.websocket_max_frame_size = websocket_max_frame_size
        self.application = application

    def get_application(self) -> Any:
        """Return the application. Called in the process."""
        return self.application

    def get_keywords(self) -> dict[str, Any]:
        """Return the keywords for the server."""
        keywords: dict[str, Any] = {}
        for name in ("http_timeout", "request_buffer_size"):
            if value := getattr(self, name):
                keywords[name] = value
        for name in ("websocket_max_message_size", "websocket_max_frame_size"):
            if (value := getattr(self, name)) is not None:
                keywords[name] = value
        if self.xff:
            keywords["proxy_forwarded_address_header"] = "X-Forwarded-For"
            keywords["proxy_forwarded_port_header"] = "X-Forwarded-Port"
            keywords["proxy_forwarded_proto_header"] = "X-Forwarded-Proto"
        return keywords

    def __enter__(self) -> BaseDaphneTestingInstance:
        self.process = process = DaphneProcess(
            host=self.host,
            get_application=self.get_application,
            kwargs=self.get_keywords(),
            setup=self.process_setup,
            teardown=self.process_teardown,
        )
        process.start()
        deadline = time.monotonic() + self.startup_timeout
        while not process.ready.wait(0.1):
            if process.is_alive() and time.monotonic() < deadline:
                continue
            reason = "nothing was reported"
            with contextlib.suppress(Exception):  # the queue is empty
                reason = process.errors.get(timeout=0.1)[1]
            process.terminate()
            process.join()
            raise RuntimeError(f"the server did not start within {self.startup_timeout:g} s: {reason}")
        self.port = process.port.value
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.join()
        del self.process

    # The process gets bound methods, and with them this object, which may hold the process itself.
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "process"}

    def process_setup(self) -> None:
        """Called in the process before it serves."""

    def process_teardown(self) -> None:
        """Called in the process when it has served."""

    def get_received(self) -> Any:
        """Return what the application got, if it takes notes."""


class DaphneTestingInstance(BaseDaphneTestingInstance):
    """Serves `TestApplication`. Takes what `BaseDaphneTestingInstance` does, but for the application."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lock = multiprocessing.Lock()
        super().__init__(*args, **kwargs, application=TestApplication(lock=self.lock))

    def get_keywords(self) -> dict[str, Any]:
        """As the base class, and HTTP/1.1 without Host is served: Daphne's own test client sends none.

        There is no Date among the headers either, which leaves those that the application sends.
        """
        from daphne_ng.config import Config

        return super().get_keywords() | {"config": Config(require_host=False, date_header=False, **_END)}

    def __enter__(self) -> BaseDaphneTestingInstance:
        TestApplication.delete_setup()
        TestApplication.delete_result()
        # `get_received` can be asked until the end of the test suite.
        atexit.unregister(TestApplication.delete_files)
        atexit.register(TestApplication.delete_files, TestApplication.setup_storage, TestApplication.result_storage)
        return super().__enter__()

    def get_received(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the scope and all messages that the application got so far.

        Raises:
            ValueError: It got none yet.
            Exception: What the application raised.
        """
        try:
            with self.lock:
                result = TestApplication.load_result()
        except FileNotFoundError:
            raise ValueError("No results available yet.") from None
        if "exception" in result:
            raise result["exception"]
        return result["scope"], result["messages"]

    def add_send_messages(self, messages: list[dict[str, Any]]) -> None:
        """Have the application send these the next time it gets a message."""
        TestApplication.save_setup(response_messages=messages)


class TestApplication:
    """An ASGI application that notes what it gets in a file, and sends what another file says.

    Args:
        lock: Held while the notes are written.
    """

    __test__ = False  # pytest collects what is called Test

    # Test suites that run side by side have each its own.
    setup_storage = os.path.join(tempfile.gettempdir(), f"daphne-ng-{_OWNER}-{os.getpid()}-setup.testio")
    result_storage = os.path.join(tempfile.gettempdir(), f"daphne-ng-{_OWNER}-{os.getpid()}-result.testio")

    # Daphne's scopes have none of these, and its tests allow no others.
    _left_out: ClassVar[dict[str, frozenset[str]]] = {
        "http": frozenset({"state", "extensions"}),
        "websocket": frozenset({"state", "extensions", "http_version"}),
    }

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.messages: list[dict[str, Any]] = []
        self._storage = self.setup_storage, self.result_storage

    # In a process of its own, which uses the files of the one that started it.
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        TestApplication.setup_storage, TestApplication.result_storage = self._storage

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one connection: note each message, and send what there is to send."""
        if scope["type"] == "lifespan":
            raise NotImplementedError("it notes requests only")
        noted = {name: value for name, value in scope.items() if name not in self._left_out[scope["type"]]}
        messages: list[dict[str, Any]] = []
        self.messages = messages
        try:
            while True:
                message = await receive()
                messages.append(message)
                with self.lock:
                    # A test that sees the message may say at once what is to be sent for the next: that stays.
                    self.save_result(noted, messages)
                    setup = self.load_setup()
                    self.delete_setup()
                for answer in setup["response_messages"]:
                    await send(answer)
                if message["type"] in ("http.disconnect", "websocket.disconnect"):
                    return
        except Exception as error:
            self.save_exception(error)

    @classmethod
    def save_setup(cls, response_messages: list[dict[str, Any]]) -> None:
        """Write what is to be sent."""
        _write(cls.setup_storage, {"response_messages": response_messages})

    @classmethod
    def load_setup(cls) -> Any:
        """Read what is to be sent."""
        try:
            return _read(cls.setup_storage)
        except FileNotFoundError:
            return {"response_messages": []}

    @classmethod
    def save_result(cls, scope: dict[str, Any], messages: list[dict[str, Any]]) -> None:
        """Write what was received."""
        _write(cls.result_storage, {"scope": scope, "messages": messages})

    @classmethod
    def save_exception(cls, exception: BaseException) -> None:
        """Write what went wrong."""
        _write(cls.result_storage, {"exception": exception})

    @classmethod
    def load_result(cls) -> Any:
        """Read what was received, or what went wrong."""
        return _read(cls.result_storage)

    @classmethod
    def delete_setup(cls) -> None:
        """Forget what is to be sent."""
        Path(cls.setup_storage).unlink(missing_ok=True)

    @classmethod
    def delete_result(cls) -> None:
        """Forget what was received."""
        Path(cls.result_storage).unlink(missing_ok=True)

    @staticmethod
    def delete_files(*paths: str) -> None:
        """Leave nothing behind."""
        for path in paths:
            Path(path).unlink(missing_ok=True)


# Whole or not at all: the other process may read at any time.
def _write(path: str, content: Any) -> None:
    part = f"{path}.{os.getpid()}"
    with open(part, "wb") as file:
        pickle.dump(content, file)
    os.replace(part, path)


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_uid != _OWNER:
            raise PermissionError(f"{path} belongs to somebody else")  # whoever may write it could have code run here
        return pickle.load(file)  # noqa: S301
