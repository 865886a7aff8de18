"""`daphne_ng.sources.reading`: the file, and how it may be wrong."""

import os
import pathlib

import pytest

from daphne_ng.errors import ConfigurationError
from daphne_ng.sources.reading import FileValues, Passed, find_project, read_file


@pytest.fixture(autouse=True)
def in_own_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)


def write(text: str | bytes, name: str = "daphne.toml") -> str:
    path = pathlib.Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return name


def test_keys_have_hyphens_or_underscores_and_lines() -> None:
    file = read_file(write('# port = 1\nport = 80\n"close-timeout" = 3\n\n[static]\nuser = "/x"\n[headers]\nA = "b"\n'))
    assert file.values == {"port": 80, "close_timeout": 3, "static": {"user": "/x"}, "headers": {"A": "b"}}
    assert file.lines == {"port": 2, "close_timeout": 3, "static": 5, "headers": 7}
    assert file.origin("port") == "daphne.toml, line 2"


def test_a_pyproject_has_a_table() -> None:
    write("[project]\nport = 1\n[tool.daphne-ng]\nport = 2\n[tool.daphne-ng.static]\na = 'b'\n", "pyproject.toml")
    file = read_file("pyproject.toml")
    assert file.values == {"port": 2, "static": {"a": "b"}}
    assert file.lines == {"port": 4, "static": 5}


def test_a_pyproject_that_nobody_has_named_need_have_no_table() -> None:
    write("this is not TOML", "pyproject.toml")
    assert read_file("pyproject.toml", found=True) == FileValues()
    write("[tool.ruff]\n# daphne-ng", "pyproject.toml")
    assert read_file("pyproject.toml", found=True) == FileValues()
    with pytest.raises(ConfigurationError, match="has no table"):
        read_file("pyproject.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = ", "daphne.toml: is not TOML: Invalid value"),
        (b"a = 1\nb = '\xff'", "daphne.toml, line 2: is not UTF-8"),
        (b"#" * 50_000, "daphne.toml: is larger than 49152 bytes"),
        (b"a-b = 1\na_b = 2", "a_b: is there twice"),
        (b"a = " + b"[" * 20_000, "daphne.toml: is not TOML"),
    ],
)
def test_what_cannot_be_read_is_told(content: bytes, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_file(write(content))


def test_no_file_no_directory_and_no_pipe_is_read() -> None:
    os.mkfifo("pipe")
    for name, message in (("none", "No such file"), (".", "no ordinary file|directory"), ("pipe", "no ordinary file")):
        with pytest.raises(ConfigurationError, match=message):
            read_file(name)


def test_root_reads_no_file_that_others_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    write("port = 1")
    pathlib.Path("daphne.toml").chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigurationError, match="others than root can write"):
        read_file("daphne.toml")


def test_a_project_in_other_hands_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", os.getuid if os.getuid() else lambda: 0)
    assert find_project() is None
    write("", "pyproject.toml")
    monkeypatch.setattr(os, "geteuid", lambda: pathlib.Path("pyproject.toml").stat().st_uid or 1)
    assert find_project() == "pyproject.toml"
    pathlib.Path("pyproject.toml").chmod(0o666)
    assert find_project() is None


def test_workers_are_told_all_of_it() -> None:
    passed = Passed(FileValues("a", {"port": 1, "static": {"é": "b"}}, {"port": 3}), variables=False)
    assert Passed.from_text(passed.to_text()) == passed
