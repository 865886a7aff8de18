"""`daphne_ng.sources.printing`: the settings as TOML."""

import pathlib
import tomllib

import pytest

from daphne_ng.cli import CommandLineInterface
from daphne_ng.errors import ConfigurationError
from daphne_ng.sources.merging import Sources
from daphne_ng.sources.printing import printed


def read(*args: str) -> Sources:
    return Sources(CommandLineInterface().parser, args, {})


def test_what_is_printed_can_be_fed_back(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o700)
    args = ("m:a", "--port=80", "-b", "[::1]", "--static=/a=/b", "--header=X-A: \x07\"b'\\", "--root-path=/%41")
    first = read(*args, "--reload", "--close-timeout=1m", "--log-level=info", "--proxy-headers")
    path = tmp_path / "d.toml"
    path.write_text(printed(first))
    path.chmod(0o600)
    second = read("--config", str(path))
    assert second.mistakes == []
    known = CommandLineInterface()
    assert known._config(second.options) == known._config(first.options)
    assert known._endpoints(second.options, known._config(second.options)) == known._endpoints(
        first.options, known._config(first.options)
    )
    assert tomllib.loads(printed(second)) == tomllib.loads(printed(first))


def test_every_value_has_its_origin() -> None:
    lines = printed(read("--port=80")).splitlines()
    assert "port = 80  # flag" in lines
    assert "backlog = 2048  # default" in lines
    assert "# asgi_threads  # default: none" in lines


def test_secrets_are_left_out() -> None:
    text = printed(read("--header=X-Api-Token: 12345"))
    assert "12345" not in text
    assert "# headers is left out: it may hold a secret  # flag" in text


def test_what_completes_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    with pytest.raises(ConfigurationError, match="daphne-ng\\[completion\\]"):
        CommandLineInterface().run(["--print-completion", "bash"])
