"""`daphne_ng.sources.renewing`: the file read again."""

import pathlib

import pytest

from daphne_ng.cli import CommandLineInterface
from daphne_ng.errors import ConfigurationError
from daphne_ng.sources.merging import Sources
from daphne_ng.sources.names import names
from daphne_ng.sources.renewing import FIXED, renewed


def test_new_workers_get_the_file_but_for_what_is_fixed(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "d.toml"
    path.write_text("port = 80\nhttp_timeout = 1")
    path.chmod(0o600)
    old = Sources(CommandLineInterface().parser, ["--config", str(path)], {})
    path.write_text("port = 81\nhttp_timeout = 2\nworkers = 2")
    fresh, changed = renewed(old)
    assert changed == ["port", "workers"]
    assert (fresh.options.port, fresh.options.http_timeout, fresh.options.workers) == (80, 2, "1")
    assert old.options.http_timeout == 1
    path.write_text("prot = 81")
    with pytest.raises(ConfigurationError, match="is it port"):
        renewed(fresh)


def test_what_is_fixed_are_keys() -> None:
    assert set(FIXED) <= set(names())
