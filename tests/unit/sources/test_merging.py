"""`daphne_ng.sources.merging`: who wins, and what is said about the rest."""

import pathlib

import pytest

from daphne_ng.cli import CommandLineInterface
from daphne_ng.errors import ConfigurationError
from daphne_ng.sources.merging import FILE_VARIABLE, PASSED_VARIABLE, Sources
from daphne_ng.sources.reading import FileValues, Passed


@pytest.fixture(autouse=True)
def in_own_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)


def sources(text: str = "", *args: str, is_worker: bool = False, **variables: str) -> Sources:
    path = pathlib.Path("d.toml")
    path.write_text(text)
    path.chmod(0o600)
    environment = {f"DAPHNE_NG_{name}": value for name, value in variables.items()} | {FILE_VARIABLE: "d.toml"}
    return Sources(CommandLineInterface().parser, args, environment, is_worker)


def test_flags_win_over_variables_and_these_over_the_file() -> None:
    found = sources("port = 1\nbacklog = 1\nlimit_workers = 1", "--port=3", PORT="2", BACKLOG="2")
    assert (found.options.port, found.options.backlog, found.options.limit_workers) == (3, 2, 1)
    assert {dest: found.origins[dest] for dest in ("port", "backlog", "limit_workers")} == {
        "port": "flag",
        "backlog": "variable DAPHNE_NG_BACKLOG",
        "limit_workers": "d.toml, line 3",
    }
    assert "http_timeout" not in found.origins


def test_a_flag_wins_also_with_the_value_of_the_default() -> None:
    assert sources("port = 1\nfactory = true\nreload = true", "--backlog=2048", "--no-reload").options.reload is False
    assert sources("backlog = 1", "--backlog=2048").options.backlog == 2048


def test_a_list_takes_the_place_of_a_list() -> None:
    found = sources("bind = ['a', 'b']\nstatic = ['/a=/a']\napplication = 'm:a'", "--static=/b=/b")
    assert (found.options.hosts, found.options.host, found.options.static) == (["a", "b"], "b", ["/b=/b"])
    assert found.options.application == "m:a"
    assert sources("bind = ['a']", "-b", "c").options.hosts == ["c"]


def test_every_mistake_has_its_place() -> None:
    found = sources("prot = 1\nhead_timeout = -1\nlimit_request_head = 5\nlifespan = 'of'", BACKLOG="x", ROOT_PATH="")
    assert [str(mistake) for mistake in found.mistakes] == [
        "d.toml, line 1: prot: is no setting; is it port?",
        "d.toml, line 3: limit_request_head: is no setting; the key of --limit-request-head is head_max_bytes",
        "DAPHNE_NG_BACKLOG: must be a whole number, not 'x'",
        "d.toml, line 2: head_timeout: must be at least 0, not -1",
        "d.toml, line 4: lifespan: must be one of auto, on, off, not 'of'",
    ]
    with pytest.raises(ConfigurationError, match=r"prot.*and 4 more: see --check-config"):
        found.raise_first()


def test_links_of_kubernetes_are_ignored_with_one_hint() -> None:
    found = sources(
        PORT="tcp://10.0.0.1:80", PORT_80_TCP_ADDR="10.0.0.1", SERVICE_HOST="10.0.0.1", REDIS_SERVICE_PORT="1"
    )
    assert found.options.port is None
    assert found.mistakes == []
    assert len(found.hints) == 1
    assert "link to a Service of Kubernetes" in found.hints[0]
    assert "3 more" in found.hints[0]


def test_unknown_variables_are_named_and_reserved_ones_are_not() -> None:
    found = sources(BAKLOG="1", PURE="1", INSTALL_REACTOR="0")
    assert found.hints == ["DAPHNE_NG_BAKLOG is no setting and is ignored; is it DAPHNE_NG_BACKLOG?"]


def test_values_that_exclude_each_other_name_both_origins() -> None:
    found = sources("access_log_logger = true", ACCESS_LOG="x")
    assert [str(one) for one in found.mistakes] == [
        (
            "access_log and access_log_logger exclude each other "
            "(access_log: variable DAPHNE_NG_ACCESS_LOG; access_log_logger: d.toml, line 1)"
        )
    ]


def test_a_worker_reads_what_its_supervisor_has_read() -> None:
    text = Passed(FileValues("other", {"port": 7}, {"port": 1}), variables=False).to_text()
    environment = {PASSED_VARIABLE: text, "DAPHNE_NG_BACKLOG": "5", FILE_VARIABLE: "is not there"}
    found = Sources(CommandLineInterface().parser, [], environment, is_worker=True)
    assert (found.options.port, found.options.backlog) == (7, 2048)
    assert PASSED_VARIABLE not in environment


def test_the_example_of_the_docs_is_right() -> None:
    docs = pathlib.Path(__file__).parents[3] / "docs"
    text = (docs / "examples/configuration/daphne.toml").read_text()
    assert text in (docs / "how-to/configuration.md").read_text()
    found = sources(text)
    assert found.mistakes == []
    assert (found.options.http_timeout, found.options.headers) == (300, [(b"X-Frame-Options", b"DENY")])
