"""`daphne_ng.loading`: which application a path names, and one clear line for everything that can be wrong with it."""

import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.errors import ApplicationLoadError
from daphne_ng.loading import check_application, load_application

Module = Callable[..., str]

ASGI = "async def application(scope, receive, send): pass\n"

_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Returns a function that writes a module and returns its (new) name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"loadable_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def refusal(path: str) -> str:
    with pytest.raises(ApplicationLoadError) as caught:
        load_application(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"application {path!r}: ")
    return text.removeprefix(f"application {path!r}: ")


# -- what loads --------------------------------------------------------------------------------------------------


def test_a_path_names_a_module_and_an_attribute(module: Module) -> None:
    name = module("async def app(scope, receive, send): pass\n")

    assert load_application(f"{name}:app").__name__ == "app"


def test_the_attribute_may_be_dotted(module: Module) -> None:
    name = module("class holder:\n    class inner:\n        async def app(scope, receive, send): pass\n")

    assert load_application(f"{name}:holder.inner.app").__name__ == "app"


def test_without_a_colon_the_attribute_is_application(module: Module) -> None:
    name = module(ASGI)

    assert load_application(name) is load_application(f"{name}:application")


def test_an_object_with_an_async_call_is_an_application(module: Module) -> None:
    name = module("class App:\n    async def __call__(self, scope, receive, send): pass\napplication = App()\n")

    assert type(load_application(name)).__name__ == "App"


def test_an_asgi_2_application_becomes_a_single_callable(module: Module) -> None:
    name = module(
        "class application:\n"
        "    def __init__(self, scope): self.scope = scope\n"
        "    async def __call__(self, receive, send): await send(self.scope)\n"
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    call: Any = load_application(name)({"type": "x"}, None, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        call.send(None)
    assert sent == [{"type": "x"}]


def test_a_callable_that_has_no_signature_is_let_through() -> None:
    class Odd:
        @property
        def __signature__(self) -> Any:
            raise NameError("annotation")

        async def __call__(self, *anything: Any) -> None: ...

    odd = Odd()

    assert check_application(odd) is odd


# -- what cannot be found ------------------------------------------------------------------------------------------


def test_an_unknown_module_is_named() -> None:
    assert refusal("no_such_module:app") == "no module named 'no_such_module'"


def test_an_unknown_submodule_is_named() -> None:
    assert refusal("json.no_such_module:app") == "no module named 'json.no_such_module'"


def test_a_module_with_its_suffix_gets_a_hint(module: Module) -> None:
    name = module(ASGI)

    assert refusal(f"{name}.py:application").endswith(f"; without the '.py': '{name}:application'")


def test_a_files_path_is_told_from_a_modules_name() -> None:
    assert "'./project/asgi.py' is a path" in refusal("./project/asgi.py:application")


@pytest.mark.parametrize("path", ["", ":app", "module:", "module:a..b", ".relative:app", "a..b:app"])
def test_a_path_that_is_no_path_is_refused(path: str) -> None:
    assert refusal(path) == "should read like 'package.module:name'"


def test_a_missing_attribute_is_named_with_a_likely_one(module: Module) -> None:
    name = module("async def application(scope, receive, send): pass\n")

    assert refusal(f"{name}:aplication") == f"'{name}' has no attribute 'aplication'; is it 'application'?"


def test_the_default_attribute_points_to_app(module: Module) -> None:
    name = module("async def app(scope, receive, send): pass\n")

    assert refusal(name) == f"'{name}' has no attribute 'application'; is it 'app'?"


def test_a_missing_attribute_of_an_attribute_names_its_owner(module: Module) -> None:
    name = module("class holder: pass\n")

    assert refusal(f"{name}:holder.zzz") == "'holder' has no attribute 'zzz'"


def test_an_attribute_that_raises_is_reported(module: Module) -> None:
    name = module("def __getattr__(name):\n    if name == 'app': raise OSError('offline')\n    raise AttributeError\n")

    assert refusal(f"{name}:app") == f"reading 'app' failed at {name}.py:2: OSError: offline"


# -- what fails inside ---------------------------------------------------------------------------------------------


def test_an_import_that_fails_inside_names_the_import_and_the_line(module: Module) -> None:
    name = module("import os\n\nimport not_installed\n")

    assert refusal(f"{name}:app") == (
        f"importing '{name}' failed at {name}.py:3: ModuleNotFoundError: No module named 'not_installed'"
    )


def test_a_failing_import_two_modules_down_names_the_innermost_line(module: Module) -> None:
    inner = module("x = 1\nfrom os import no_such_name\n")
    outer = module(f"import {inner}\n")

    text = refusal(f"{outer}:app")
    assert f"importing '{outer}' failed at {inner}.py:2: ImportError: cannot import name 'no_such_name'" in text


def test_a_module_that_fails_to_import_its_own_submodule_is_not_called_unknown(module: Module) -> None:
    name = module("import importlib\n\nimportlib.import_module(__name__ + '.views')\n")

    text = refusal(f"{name}:app")
    assert text.startswith(f"importing '{name}' failed at {name}.py:3: ModuleNotFoundError: No module named")


def test_another_exception_is_named_with_its_line_and_kept_as_the_cause(module: Module) -> None:
    name = module("def settings():\n    raise KeyError('SECRET')\nsettings()\n")

    assert refusal(f"{name}:app") == f"importing '{name}' failed at {name}.py:2: KeyError: 'SECRET'"
    with pytest.raises(ApplicationLoadError) as caught:
        load_application(f"{name}:app")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_message_of_several_lines_becomes_one(module: Module) -> None:
    name = module("raise ValueError('first\\n\\n   second')\n")

    assert refusal(name).endswith("ValueError: first second")


def test_an_exception_without_a_message_is_named_alone(module: Module) -> None:
    name = module("raise RuntimeError\n")

    assert refusal(name).endswith(f"{name}.py:1: RuntimeError")


def test_a_syntax_error_names_its_own_line(module: Module) -> None:
    name = module("x = 1\ndef broken(:\n")

    assert refusal(name) == f"importing '{name}' failed at {name}.py:2: SyntaxError: invalid syntax"


def test_a_module_that_exits_exits(module: Module) -> None:
    name = module("raise SystemExit(5)\n")

    with pytest.raises(SystemExit):
        load_application(name)


# -- what is no application ----------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_called_is_refused_with_its_type(module: Module) -> None:
    name = module("import json\ntext = 'x'\n")

    assert refusal(f"{name}:text") == "is of type 'str', which cannot be called"
    assert refusal(f"{name}:json") == "is a module, which cannot be called"


def test_a_wsgi_function_is_told_apart(module: Module) -> None:
    name = module("def application(environ, start_response): pass\n")

    assert refusal(name) == "is a WSGI application, not an ASGI one; asgiref.wsgi.WsgiToAsgi can wrap it"


def test_a_wsgi_object_is_told_apart(module: Module) -> None:
    name = module("class Flask:\n    def __call__(self, environ, start_response): pass\napplication = Flask()\n")

    assert "is a WSGI application" in refusal(name)


def test_djangos_wsgi_application_gets_djangos_remedy() -> None:
    wsgi = pytest.importorskip("django.core.handlers.wsgi")
    handler = wsgi.WSGIHandler.__new__(wsgi.WSGIHandler)

    with pytest.raises(ApplicationLoadError, match=r"django\.core\.asgi\.get_asgi_application\(\)"):
        check_application(handler, "project.wsgi:application")


def test_a_function_without_arguments_is_taken_for_a_factory(module: Module) -> None:
    name = module("def application(): pass\n")

    assert refusal(name).startswith("takes no arguments, so it is no ASGI application")


def test_without_a_path_the_message_does_without() -> None:
    with pytest.raises(ApplicationLoadError, match="^application: is of type 'int'"):
        check_application(3)
