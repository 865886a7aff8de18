"""`daphne_ng.serving.loading`: which application a path names, and one clear line for everything that can be wrong with it."""

import asyncio
import itertools
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from daphne_ng.errors import ApplicationLoadError, ConfigurationError
from daphne_ng.serving.loading import (
    call_factory,
    check_application,
    directory_of_file,
    import_target,
    read_environment,
    search_directories,
)

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


def load_application(path: str, *, factory: bool = False) -> Any:
    """As the command line does it."""
    target = import_target(path)
    return check_application(call_factory(target, path) if factory else target, path)


def refusal(path: str, **options: bool) -> str:
    with pytest.raises(ApplicationLoadError) as caught:
        load_application(path, **options)
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


def test_without_a_colon_and_an_application_the_attribute_is_app(module: Module) -> None:
    name = module("async def app(scope, receive, send): pass\n")
    both = module("async def app(scope, receive, send): pass\n" + ASGI)

    assert load_application(name).__name__ == "app"
    assert load_application(both).__name__ == "application"


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


def test_an_unknown_module_is_named_with_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("/no/such/place")
    assert refusal("no_such_module:app") == (
        "no module named 'no_such_module'; searched '/no/such/place' (see --app-dir) and what is installed"
    )


def test_an_address_is_no_module() -> None:
    assert refusal("127.0.0.1:8000") == "no module named '127'; an address to listen on is given with --bind"


def test_a_dot_in_place_of_the_colon_is_seen(module: Module) -> None:
    name = module(ASGI)
    assert refusal(f"{name}.application") == (
        f"no module named '{name}.application'; '{name}' is not a package; is it '{name}:application'?"
    )


@pytest.mark.parametrize("source", ["async def view(request): pass\n", "def view(a, b, c, d): pass\n"])
def test_a_callable_with_other_arguments_is_no_application(module: Module, source: str) -> None:
    name = module(source)
    arguments = source[source.index("(") : source.index(")") + 1]
    assert refusal(f"{name}:view") == f"takes {arguments}, not (scope, receive, send), so it is no ASGI application"


def test_an_unknown_submodule_is_named() -> None:
    assert refusal("json.no_such_module:app") == "no module named 'json.no_such_module'"


def test_a_path_with_directories_and_no_suffix_is_neither_a_module_nor_a_file(module: Module) -> None:
    assert refusal("./project/asgi:application") == (
        "'./project/asgi' is neither a module's name nor a file's ending in '.py'"
    )


@pytest.mark.parametrize(
    "path", ["", ":app", "module:", "main.py:", "module:a..b", "a.py:b.", ".relative:app", "a..b:app"]
)
def test_a_path_that_is_no_path_is_refused(path: str) -> None:
    assert refusal(path) == "should read like 'package.module:name'"


def test_a_missing_attribute_is_named_with_a_likely_one(module: Module) -> None:
    name = module("async def application(scope, receive, send): pass\n")

    assert refusal(f"{name}:aplication") == f"'{name}' has no attribute 'aplication'; is it 'application'?"


def test_without_either_default_attribute_a_name_is_asked_for(module: Module) -> None:
    name = module("async def main(scope, receive, send): pass\n")

    assert refusal(name) == f"'{name}' has neither an 'application' nor an 'app'; name it after a colon"


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

    assert refusal(name) == "takes no arguments, so it is no ASGI application; if it makes one, give --factory"


def test_without_a_path_the_message_does_without() -> None:
    with pytest.raises(ApplicationLoadError, match="^application: is of type 'int'"):
        check_application(3)


# -- factories -----------------------------------------------------------------------------------------------------


def test_a_factory_is_called_for_the_application(module: Module) -> None:
    name = module(f"def create(*, debug=False):\n    {ASGI}    return application\n")

    assert load_application(f"{name}:create", factory=True).__name__ == "application"


def test_a_class_may_be_a_factory(module: Module) -> None:
    name = module("class App:\n    async def __call__(self, scope, receive, send): pass\n")

    assert type(load_application(f"{name}:App", factory=True)).__name__ == "App"


def test_what_a_factory_made_is_checked_as_any_application(module: Module) -> None:
    name = module(
        "def nothing(): pass\n"
        "def flask():\n    def application(environ, start_response): pass\n    return application\n"
    )

    made = "what the factory made is of type 'NoneType', which cannot be called"
    assert refusal(f"{name}:nothing", factory=True) == made
    assert refusal(f"{name}:flask", factory=True).startswith("is a WSGI application")


@pytest.mark.filterwarnings("error")
def test_an_asynchronous_factory_is_refused(module: Module) -> None:
    name = module("async def create(): pass\n")

    assert refusal(f"{name}:create", factory=True) == "is an asynchronous factory; it must be a plain function"


def test_an_application_is_no_factory(module: Module) -> None:
    name = module(ASGI + "number = 3\n")

    assert refusal(name, factory=True) == (
        "needs arguments, so it is no factory; if it is the application itself, leave --factory out"
    )
    assert refusal(f"{name}:number", factory=True) == "is of type 'int', which is no factory: it cannot be called"


def test_a_factory_that_raises_is_told_with_its_line(module: Module) -> None:
    name = module("def create():\n    {}['SECRET_KEY']\n")

    assert refusal(f"{name}:create", factory=True) == f"the factory failed at {name}.py:2: KeyError: 'SECRET_KEY'"


def test_a_type_error_inside_a_factory_is_the_factorys(module: Module) -> None:
    name = module("def create():\n    return len()\n")

    assert refusal(f"{name}:create", factory=True).startswith(f"the factory failed at {name}.py:2: TypeError: len() ")


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Returns a function that writes files below the current directory; ``NEW`` in a name is one of its own."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)

    def write(*names: str, source: str = ASGI) -> str:
        new = f"loadable_{next(_numbers)}"
        for name in names:
            path = tmp_path / name.replace("NEW", new)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("" if path.name == "__init__.py" else source)
        return new

    return write


@pytest.mark.parametrize("form", ["NEW.py:application", "./NEW.py:application", "NEW.py"])
def test_a_file_is_imported_by_its_stem(tree: Callable[..., str], form: str) -> None:
    name = tree("NEW.py")

    application: Any = load_application(form.replace("NEW", name))
    assert application.__module__ == name
    assert sys.modules[name].__file__ == str(pathlib.Path.cwd() / f"{name}.py")


def test_a_file_finds_what_lies_beside_it(tree: Callable[..., str]) -> None:
    other = tree("src/NEW.py")
    name = tree("src/NEW.py", source=f"from {other} import application as app\n")

    application: Any = load_application(f"src/{name}.py:app")
    assert application.__module__ == other
    assert sys.path[0] == str(pathlib.Path.cwd() / "src")
    assert directory_of_file(f"src/{name}.py:app") == sys.path[0]


def test_a_file_of_a_package_is_imported_as_a_part_of_it(tree: Callable[..., str]) -> None:
    name = tree("src/NEW/__init__.py", "src/NEW/web/__init__.py", "src/NEW/settings.py")
    source = f"from ..settings import application\nassert __name__ == '{name}.web.asgi'\n"
    (pathlib.Path("src") / name / "web" / "asgi.py").write_text(source)

    application: Any = load_application(f"src/{name}/web/asgi.py")
    assert application.__module__ == f"{name}.settings"
    assert sys.path[0] == str(pathlib.Path.cwd() / "src")


def test_the_file_of_a_package_itself_is_the_package(tree: Callable[..., str]) -> None:
    name = tree("NEW/__init__.py")
    (pathlib.Path(name) / "__init__.py").write_text(ASGI)

    application: Any = load_application(f"{name}/__init__.py:application")
    assert application.__module__ == name


def test_a_module_whose_name_ends_in_py_is_still_a_module(tree: Callable[..., str], monkeypatch: Any) -> None:
    name = tree("NEW/__init__.py", "NEW/py.py")
    monkeypatch.syspath_prepend(".")

    application: Any = load_application(f"{name}.py:application")
    assert application.__module__ == f"{name}.py"
    assert directory_of_file(f"{name}.py:application") is None


def test_a_file_that_is_not_there_is_named(tree: Callable[..., str]) -> None:
    assert refusal("./no/such.py:app") == "there is no file './no/such.py'"
    assert refusal("no_such.py:app") == "no module named 'no_such'; there is no file 'no_such.py' either"


def test_a_file_that_would_be_another_module_is_refused(tree: Callable[..., str]) -> None:
    tree("json.py", "sys.py")
    import json

    assert (
        refusal("json.py:app") == f"'json.py' would be the module 'json', which is {json.__file__!r}; rename the file"
    )
    assert refusal("sys.py:app") == "'sys.py' would be the module 'sys', which is built in; rename the file"


def test_a_file_whose_stem_holds_a_dot_is_refused(tree: Callable[..., str]) -> None:
    tree("a.b.py")

    assert refusal("a.b.py:app") == "a module's name cannot hold a dot; rename 'a.b.py'"


def test_a_file_that_fails_names_its_line(tree: Callable[..., str]) -> None:
    name = tree("src/NEW.py", source="import os\nraise OSError('no')\n")

    assert refusal(f"src/{name}.py") == f"importing '{name}' failed at src/{name}.py:2: OSError: no"


# -- directories and variables ---------------------------------------------------------------------------------------


def test_directories_come_first_in_their_order_and_only_once(tree: Callable[..., str]) -> None:
    here = pathlib.Path.cwd()
    for _ in range(2):
        search_directories(["a", "b"])
    assert sys.path[:2] == [str(here / "a"), str(here / "b")]
    assert str(here / "a") not in sys.path[2:]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Callable[[bytes], str]:
    """Returns a function that writes the file; the variables are removed at the end."""
    monkeypatch.setenv("TEST_KEPT", "before")
    for name in ("TEST_PLAIN", "TEST_QUOTED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def write(content: bytes) -> str:
        path = tmp_path / "dev.env"
        path.write_bytes(content)
        return str(path)

    return write


def test_a_file_of_variables_adds_what_is_not_set(
    environment: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_environment(environment(b"# a comment\nTEST_PLAIN=caf\xc3\xa9\nexport TEST_QUOTED='a b'\nTEST_KEPT=after\n"))

    assert (os.environ["TEST_PLAIN"], os.environ["TEST_QUOTED"]) == ("caf\u00e9", "a b")
    assert os.environ["TEST_KEPT"] == "before"


def test_a_file_of_variables_that_cannot_be_read_is_named(environment: Callable[[bytes], str]) -> None:
    with pytest.raises(ConfigurationError, match="^--env-file: cannot read '/no/such': No such file or directory$"):
        read_environment("/no/such")
    with pytest.raises(ConfigurationError, match="^--env-file: '.*' is not UTF-8"):
        read_environment(environment(b"TEST_PLAIN=\xff\n"))


def test_without_dotenv_a_file_of_variables_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)

    with pytest.raises(ConfigurationError, match=r"^--env-file needs python-dotenv: pip install 'daphne-ng\[env\]'$"):
        read_environment("x")


# -- classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "    async def __call__(self, scope, receive, send): pass\n",
            "is the class 'App', and an instance of it is meant; --factory makes one",
        ),
        (
            "    def __init__(self, debug): pass\n    async def __call__(self, scope, receive, send): pass\n",
            "is the class 'App', and an instance of it is meant",
        ),
        (
            "    def __init__(self, scope): pass\n",
            "is a class whose instances cannot be called, so it is no ASGI application",
        ),
        (
            "    async def __call__(self, request): pass\n",
            "is a class that takes neither (scope, receive, send) nor ASGI 2's (scope), so it is no ASGI application",
        ),
        (
            "    def __init__(self, scope): pass\n    def __await__(self): yield\n",
            "is a class that does not take (scope, receive, send)",
        ),
    ],
)
def test_a_class_whose_instance_is_meant_is_refused(module: Module, body: str, reason: str) -> None:
    name = module(f"class App:\n{body}")

    assert refusal(f"{name}:App") == reason


def test_a_class_of_asgi_2_is_wrapped(module: Module) -> None:
    name = module(
        "class App:\n    def __init__(self, scope): pass\n    async def __call__(self, receive, send): pass\n"
    )

    assert callable(load_application(f"{name}:App"))


def test_a_class_whose_instances_are_awaited_is_an_application(module: Module) -> None:
    name = module(
        "class App:\n"
        "    def __init__(self, scope, receive, send): pass\n"
        "    def __await__(self): return self.work().__await__()\n"
        "    async def work(self): return 'served'\n"
    )
    application: Any = load_application(f"{name}:App")

    async def serve() -> Any:
        return await application({}, None, None)

    assert asyncio.run(serve()) == "served"
