"""`daphne_ng.testing`, as far as no process is needed: the rest is in ``tests/integration/test_testing.py``."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daphne_ng import testing
from daphne_ng.config import Config, settings
from daphne_ng.errors import ConfigurationError
from daphne_ng.testing import BaseDaphneTestingInstance, DaphneProcess, DaphneTestingInstance, TestApplication


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Never called."""


def get_application() -> Any:
    return application


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TestApplication, "setup_storage", str(tmp_path / "setup"))
    monkeypatch.setattr(TestApplication, "result_storage", str(tmp_path / "result"))


# -- what the server is given ------------------------------------------------------------------------------------------


def test_an_instance_hands_on_what_differs_from_the_defaults() -> None:
    assert BaseDaphneTestingInstance(application=application).get_keywords() == {}
    instance = BaseDaphneTestingInstance(True, 3, 512, 0, 100, application=application)
    assert instance.get_keywords() == {
        "http_timeout": 3,
        "request_buffer_size": 512,
        "websocket_max_message_size": 0,
        "websocket_max_frame_size": 100,
        "proxy_forwarded_address_header": "X-Forwarded-For",
        "proxy_forwarded_port_header": "X-Forwarded-Port",
        "proxy_forwarded_proto_header": "X-Forwarded-Proto",
    }
    assert instance.get_application() is application


def test_a_noting_server_lets_daphnes_client_in_that_sends_no_host() -> None:
    config = DaphneTestingInstance(http_timeout=1).get_keywords()["config"]
    assert (config.require_host, config.date_header) == (False, False)


def test_the_limits_are_those_of_any_server_but_for_its_end() -> None:
    usual = Config()
    for process in (DaphneProcess("localhost", get_application), DaphneProcess("localhost", get_application, {})):
        config = process._server(application).config
        changed = {name for name, _ in settings() if getattr(config, name) != getattr(usual, name)}
        ends = {"graceful_timeout", "shutdown_application_timeout", "shutdown_close_timeout"}
        assert changed == ends | {"lifespan_shutdown_timeout"}


def test_the_process_has_the_attributes_of_daphnes() -> None:
    process = DaphneProcess("localhost", get_application, {"server_name": "x"}, port=None)
    assert (process.host, process.get_application, process.kwargs) == (
        "localhost",
        get_application,
        {"server_name": "x"},
    )
    assert (process.setup, process.teardown, process.port.value, process.ready.is_set()) == (None, None, 0, False)
    assert process.errors.empty()
    assert DaphneProcess("localhost", get_application, port=8123).port.value == 8123


def test_an_instance_leaves_its_process_out_when_it_is_pickled() -> None:
    instance = BaseDaphneTestingInstance(application=get_application)
    instance.process = threading.Lock()  # type: ignore[assignment]  # nothing that could be pickled
    copy = pickle.loads(pickle.dumps(instance))
    assert not hasattr(copy, "process")
    assert copy.host == "127.0.0.1"


def test_an_application_in_another_process_uses_the_files_of_the_one_that_sent_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = TestApplication.setup_storage, TestApplication.result_storage
    sent = pickle.dumps(TestApplication(lock=None))
    monkeypatch.setattr(TestApplication, "setup_storage", "there")
    monkeypatch.setattr(TestApplication, "result_storage", "there too")
    pickle.loads(sent)
    assert (TestApplication.setup_storage, TestApplication.result_storage) == here


# -- the application that notes ---------------------------------------------------------------------------------------


def served(kind: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Serve one connection, and return what was sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "fails":
            raise ValueError("not this")
        sent.append(message)

    scope = {"type": kind, "path": "/", "http_version": "1.1", "extensions": {}, "state": {}}
    asyncio.run(TestApplication(threading.Lock())(scope, receive, send))
    return sent


@pytest.mark.parametrize(("kind", "noted"), [("http", {"http_version": "1.1"}), ("websocket", {})])
def test_it_notes_the_scope_as_daphne_has_it_and_every_message(kind: str, noted: dict[str, str]) -> None:
    messages: list[dict[str, Any]] = [{"type": "first"}, {"type": f"{kind}.disconnect"}]
    TestApplication.save_setup([{"type": "answer"}])
    assert served(kind, list(messages)) == [{"type": "answer"}]
    result = TestApplication.load_result()
    assert result == {"scope": {"type": kind, "path": "/", **noted}, "messages": messages}
    assert TestApplication.load_setup() == {"response_messages": []}  # used up


def test_it_notes_what_it_may_not_send_and_the_instance_raises_it() -> None:
    instance = DaphneTestingInstance()
    instance.add_send_messages([{"type": "fails"}])
    served("http", [{"type": "http.request"}])
    with pytest.raises(ValueError, match="not this"):
        instance.get_received()
    TestApplication.delete_result()
    with pytest.raises(ValueError, match="No results available yet"):
        instance.get_received()
    TestApplication.delete_result()  # twice is no mistake


def test_the_lifespan_is_none_of_its_business() -> None:
    with pytest.raises(NotImplementedError):
        served("lifespan", [])


def test_notes_of_another_user_are_not_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    TestApplication.save_result({}, [])
    monkeypatch.setattr(testing, "_OWNER", testing._OWNER + 1)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        TestApplication.load_result()


# -- the plugin of pytest, and the setting of Django -------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
def test_the_plugin_installs_before_anything_else_if_the_ini_file_says_so(
    wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daphne_ng import compat, pytest_plugin

    calls: list[str] = []
    monkeypatch.setattr(compat, "install_as_daphne", lambda: calls.append("installed"))

    class Config:
        def getini(self, name: str) -> bool:
            assert name == "daphne_ng_install_as_daphne"
            return wanted

    hook = pytest_plugin.pytest_load_initial_conftests(Config())  # type: ignore[arg-type]
    next(hook)
    assert calls == ["installed"] * wanted
    with pytest.raises(StopIteration) as stop:
        hook.send("result")
    assert stop.value.value == "result"


def test_where_the_plugin_comes_too_late_pytest_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from daphne_ng import compat, pytest_plugin

    class Config:
        def getini(self, name: str) -> bool:
            return True

    def fail() -> None:
        raise ConfigurationError("daphne is imported already")

    monkeypatch.setattr(compat, "install_as_daphne", fail)
    with pytest.raises(pytest.UsageError, match="daphne is imported already"):
        next(pytest_plugin.pytest_load_initial_conftests(Config()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "said"), [(None, []), ("daphne", ["serves live tests with"]), ("", ["cannot be imported without"])]
)
def test_the_plugin_says_whose_server_live_tests_get_if_it_is_not_ours(
    found: str | None, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from daphne_ng import pytest_plugin

    monkeypatch.delitem(sys.modules, "daphne_ng.checks", raising=False)
    assert pytest_plugin.pytest_report_collectionfinish() == []  # the project does not use the app
    checks = SimpleNamespace(live_tests_of=lambda: found)
    monkeypatch.setitem(sys.modules, "daphne_ng.checks", checks)  # type: ignore[arg-type]
    lines = pytest_plugin.pytest_report_collectionfinish()
    option = "daphne_ng_install_as_daphne = true in the ini file makes it daphne-ng"
    assert lines == [f"channels.testing {words} Daphne; {option}" for words in said]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_app_installs_when_it_is_made_if_the_settings_say_so(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("django")
    from tests.support.django import set_up

    set_up()
    from django.test.utils import override_settings

    import daphne_ng
    from daphne_ng import compat
    from daphne_ng.apps import DaphneConfig

    calls: list[str] = []
    monkeypatch.setattr(compat, "install_as_daphne", lambda: calls.append("installed"))
    with override_settings(DAPHNE_NG_INSTALL_AS_DAPHNE=wanted):
        DaphneConfig("daphne_ng", daphne_ng)
    assert calls == ["installed"] * wanted


def test_a_failure_that_cannot_be_pickled_is_reported_as_text() -> None:
    class Queue(list[Any]):
        put: Callable[[Any, Any], None] = list.append  # type: ignore[assignment]

    class Local(Exception):  # of no module
        """Cannot be found by who unpickles it."""

    process = DaphneProcess("localhost", get_application)
    process.errors = Queue()
    process._report(LookupError("plain"))
    process._report(Local("odd"))
    (first, text), (second, _) = process.errors
    assert (type(first), str(first)) == (LookupError, "plain")
    assert text == "LookupError: plain\n"
    assert (type(second), str(second)) == (RuntimeError, "odd")
