"""``python -m daphne_ng.compat``: what a project that used Daphne has to change, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daphne_ng import compat
from daphne_ng.advice import project as advice
from daphne_ng.advice import python as advice_python
from daphne_ng.advice import text as advice_text


@pytest.fixture(autouse=True)
def floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What daphne-ng needs, so that a new floor changes no test."""
    needed = {"twisted": "23.10", "autobahn": "24.4.2", "asgiref": "3.8.1"}
    monkeypatch.setattr(advice_text, "_floors", lambda: needed)


def advised(name: str, text: str) -> dict[int, advice_text.Advice]:
    path = Path(name)
    found = advice_python.advise(text) if path.suffix in (".py", ".spec") else None
    return advice_text.advise(text, path) if found is None else found


# (the file, one line of it, what that becomes)
CHANGED = [
    # commands
    (
        "start.sh",
        "daphne -b 0.0.0.0 -p 8000 proj.asgi:application",
        ["daphne-ng -b 0.0.0.0 -p 8000 proj.asgi:application"],
    ),
    ("start.sh", "exec daphne proj.asgi:application", ["exec daphne-ng proj.asgi:application"]),
    ("start.sh", 'exec daphne "$@"', ['exec daphne-ng "$@"']),
    ("start.sh", "$VENV/bin/daphne $APP", ["$VENV/bin/daphne-ng $APP"]),
    ("start.sh", "DAPHNE=/srv/venv/bin/daphne", ["DAPHNE=/srv/venv/bin/daphne-ng"]),
    ("start.sh", "a & daphne -p 1 a.asgi:app > daphne.log &", ["a & daphne-ng -p 1 a.asgi:app > daphne.log &"]),
    ("start.sh", "command -v daphne || exit 1", ["command -v daphne-ng || exit 1"]),
    ("start.sh", "killall daphne", ["killall daphne-ng"]),
    ("start.sh", "exec python -m daphne proj.asgi:application", ["exec python -m daphne_ng proj.asgi:application"]),
    (
        "start.sh",
        'python -c "import daphne; print(daphne.__version__)"',
        ['python -c "import daphne_ng; print(daphne_ng.__version__)"'],
    ),
    (
        "build.sh",
        "pyinstaller --hidden-import daphne.server --collect-all=daphne manage.py",
        ["pyinstaller --hidden-import daphne_ng.server --collect-all=daphne_ng manage.py"],
    ),
    ("start.bat", r"venv\Scripts\daphne.exe -p 8000 a.asgi:app", [r"venv\Scripts\daphne-ng.exe -p 8000 a.asgi:app"]),
    ("start.bat", "call daphne -p 8000 a.asgi:app", ["call daphne-ng -p 8000 a.asgi:app"]),
    ("start.ps1", "Start-Process daphne -ArgumentList 'x'", ["Start-Process daphne-ng -ArgumentList 'x'"]),
    (
        "start.ps1",
        r'& "$env:VENV\Scripts\daphne.exe" -p 8000 a.asgi:app',
        [r'& "$env:VENV\Scripts\daphne-ng.exe" -p 8000 a.asgi:app'],
    ),
    ("Procfile", "daphne: daphne -p $PORT proj.asgi:application", ["daphne: daphne-ng -p $PORT proj.asgi:application"]),
    ("Makefile", "\tdaphne $(APP)", ["daphne-ng $(APP)"]),
    (
        "Dockerfile",
        'CMD ["daphne", "-b", "0.0.0.0", "a.asgi:app"]',
        ['CMD ["daphne-ng", "-b", "0.0.0.0", "a.asgi:app"]'],
    ),
    ("Dockerfile", 'CMD ["python", "-m", "daphne", "a.asgi:app"]', ['CMD ["python", "-m", "daphne_ng", "a.asgi:app"]']),
    (
        "supervisor.conf",
        "command=/srv/venv/bin/daphne -u /run/daphne/daphne.sock --access-log /var/log/daphne/access.log a.asgi:app",
        [
            "command=/srv/venv/bin/daphne-ng -u /run/daphne/daphne.sock --access-log /var/log/daphne/access.log a.asgi:app"
        ],
    ),
    (
        "proj.service.j2",
        "ExecStart={{ venv }}/bin/daphne -u /run/daphne/daphne.sock {{ app }}.asgi:application",
        ["ExecStart={{ venv }}/bin/daphne-ng -u /run/daphne/daphne.sock {{ app }}.asgi:application"],
    ),
    (
        "proj.service",
        'ExecStart="{{ dir }}/.venv/bin/daphne" --bind ::',
        ['ExecStart="{{ dir }}/.venv/bin/daphne-ng" --bind ::'],
    ),
    ("docker-compose.yml", "    command: daphne a.asgi:app", ["command: daphne-ng a.asgi:app"]),
    (
        "docker-compose.yml",
        '    entrypoint: sh -c "manage.py migrate && daphne -b :: a.asgi:app"',
        ['entrypoint: sh -c "manage.py migrate && daphne-ng -b :: a.asgi:app"'],
    ),
    (".vscode/launch.json", '{"name": "daphne", "module": "daphne"}', ['{"name": "daphne", "module": "daphne_ng"}']),
    (".vscode/launch.json", '{"program": "/venv/bin/daphne"}', ['{"program": "/venv/bin/daphne-ng"}']),
    ("README.md", "Run `daphne proj.asgi:application`.", ["Run `daphne-ng proj.asgi:application`."]),
    # requirements
    ("requirements.txt", "daphne", ["daphne-ng"]),
    ("requirements/base.in", "daphne==4.1.2  # the server", ["daphne-ng  # the server"]),
    ("requirements.txt", "channels[daphne]>=4.1", ["channels>=4.1", "daphne-ng"]),
    ("requirements.txt", "channels[daphne,tests]==4.1.0", ["channels[tests]==4.1.0", "daphne-ng"]),
    ("setup.cfg", "    daphne>=4,<5", ["daphne-ng"]),
    ("setup.cfg", "    daphne", ["daphne-ng"]),
    (
        "setup.cfg",
        '    channels[daphne]~=4.1; python_version > "3.8"',
        ['channels~=4.1; python_version > "3.8"', 'daphne-ng; python_version > "3.8"'],
    ),
    ("environment.yml", "  - daphne=4.1.2", ["- daphne-ng"]),
    ("environment.yml", "    - channels[daphne]==4.1", ["- channels==4.1", "- daphne-ng"]),
    ("pyproject.toml", '    "daphne>=4,<5",', ['"daphne-ng",']),
    (
        "pyproject.toml",
        'dependencies = ["channels[daphne]>=4.1", "daphne-helpers"]',
        ['dependencies = ["channels>=4.1", "daphne-ng", "daphne-helpers"]'],
    ),
    ("Pipfile", 'daphne = "*"', ['daphne-ng = "*"']),
    ("Pipfile", 'channels = {extras = ["daphne"], version = "^4.1"}', ['channels = "^4.1"', 'daphne-ng = "*"']),
    (
        "Pipfile",
        'channels = {version = "*", extras = ["daphne", "tests"]}',
        ['channels = {version = "*", extras = ["tests"]}', 'daphne-ng = "*"'],
    ),
    ("Dockerfile", "RUN pip install daphne==4.1 channels[daphne]", ["RUN pip install daphne-ng channels daphne-ng"]),
    (".github/workflows/ci.yml", "      - run: uv add 'daphne>=4'", ["- run: uv add 'daphne-ng'"]),
    ("setup.py", 'setup(install_requires=["daphne", "x"])', ['setup(install_requires=["daphne-ng", "x"])']),
    ("setup.py", 'setup(install_requires=["channels[daphne]"])', ['setup(install_requires=["channels", "daphne-ng"])']),
    # logging
    ("logging.ini", "qualname=daphne.server", ["qualname=daphne_ng.server"]),
    ("settings.py", 'LOGGING = {"loggers": {"daphne": {}}}', ['LOGGING = {"loggers": {"daphne_ng": {}}}']),
    ("settings.py", 'LOGGERS = {"daphne.server": {}}', ['LOGGERS = {"daphne_ng.server": {}}']),
    (
        "settings.py",
        'LOGGING = {"loggers": {k: {} for k in ("daphne", "PIL")}}',
        ['LOGGING = {"loggers": {k: {} for k in ("daphne_ng", "PIL")}}'],
    ),
    ("settings.py", 'logging.getLogger("daphne").setLevel(20)', ['logging.getLogger("daphne_ng").setLevel(20)']),
    ("settings.py", 'LOGGING["loggers"]["daphne"] = {}', ['LOGGING["loggers"]["daphne_ng"] = {}']),
    # Python
    ("settings.py", 'INSTALLED_APPS = ["daphne", "x"]', ['INSTALLED_APPS = ["daphne_ng", "x"]']),
    (
        "settings.py",
        "THIRD_PARTY = ('daphne', 'django.contrib.admin')",
        ["THIRD_PARTY = ('daphne_ng', 'django.contrib.admin')"],
    ),
    ("settings.py", 'INSTALLED_APPS.insert(0, "daphne")', ['INSTALLED_APPS.insert(0, "daphne_ng")']),
    ("settings.py", 'INSTALLED_APPS += ["daphne"]', ['INSTALLED_APPS += ["daphne_ng"]']),
    ("settings.py", 'DEV = "daphne" in INSTALLED_APPS', ['DEV = "daphne_ng" in INSTALLED_APPS']),
    ("run.py", "import daphne.server as s, os", ["import daphne_ng.server as s, os"]),
    ("run.py", "from daphne.cli import CommandLineInterface", ["from daphne_ng.cli import CommandLineInterface"]),
    (
        "run.py",
        "import daphne.server; daphne.server.Server(a)",
        ["import daphne_ng.server; daphne_ng.server.Server(a)"],
    ),
    ("run.py", 'run(["daphne", "-b", "::", "a.asgi:app"])', ['run(["daphne-ng", "-b", "::", "a.asgi:app"])']),
    ("run.py", 'run([exe, "-m", "daphne", "a.asgi:app"])', ['run([exe, "-m", "daphne_ng", "a.asgi:app"])']),
    ("run.py", 'run("daphne -b :: a.asgi:app", shell=True)', ['run("daphne-ng -b :: a.asgi:app", shell=True)']),
    ("run.py", 'run(f"cd {x} && daphne -p {port} {app}")', ['run(f"cd {x} && daphne-ng -p {port} {app}")']),
    ("run.py", 'print("ä"); which("daphne")', ['print("ä"); which("daphne-ng")']),
    ("run.py", 'x = sys.argv[0].endswith("daphne")', ['x = sys.argv[0].endswith("daphne-ng")']),
    ("run.py", 'patch("daphne.server.Server")', ['patch("daphne_ng.server.Server")']),
    ("run.py", 'metadata.version("daphne")', ['metadata.version("daphne-ng")']),
    ("app.spec", "hiddenimports = ['daphne', 'daphne.apps']", ["hiddenimports = ['daphne_ng', 'daphne_ng.apps']"]),
    (
        "app.spec",
        "datas = collect_data_files('daphne') + copy_metadata('daphne')",
        ["datas = collect_data_files('daphne_ng') + copy_metadata('daphne-ng')"],
    ),
    ("{{x}}.py", "import {{x}}\nimport daphne", ["import daphne_ng"]),  # a template, which is no Python yet
]


@pytest.mark.parametrize(("name", "line", "becomes"), CHANGED, ids=[f"{name}: {line}" for name, line, _ in CHANGED])
def test_a_line_that_depends_on_daphne_is_given_as_it_will_be(name: str, line: str, becomes: list[str]) -> None:
    found = list(advised(name, line + "\n").values())
    assert [list(one.lines) for one in found] == [becomes]


LEFT = [
    ("docker-compose.yml", "  daphne:\n    container_name: daphne\n    depends_on:\n      - daphne\n      - redis"),
    ("docker-compose.yml", '      test: ["CMD", "curl", "-f", "http://daphne:8000/"]'),
    ("supervisor.conf", "[program:daphne]\nstdout_logfile=/var/log/daphne.log"),
    ("nginx.conf", "upstream daphne { server unix:/run/daphne/daphne.sock; }\nproxy_pass http://daphne;"),
    ("proj.service", "[Unit]\nDescription=daphne -p 1\nUser=daphne\nPIDFile=/run/daphne/pid\nSyslogIdentifier=daphne"),
    ("x.sh", "systemctl restart daphne\nsupervisorctl restart daphne -c x.conf\nsudo journalctl -u daphne -f"),
    ("x.sh", "docker exec -it daphne bash\ndocker compose up -d daphne\npkill -f daphne\npip uninstall -y daphne"),
    ("x.sh", "mkdir -p /run/daphne -m 755\nchown daphne:daphne /run/daphne\ntail -f /var/log/daphne.log -n 5"),
    ("x.sh", "# daphne -p 8000 a.asgi:app\ncd /opt/daphne && ls -l"),
    ("x.bat", "REM daphne -p 8000 a.asgi:app"),
    ("Makefile", "daphne:\n.PHONY: daphne"),
    ("README.md", "We use daphne. Restart daphne."),
    ("logging.yml", "handlers:\n  daphne:\n    class: x"),
    ("a.py", '"""Start it with daphne -p 8000 a.asgi:app"""\n# import daphne'),
    ("a.py", 'NAMES = {"fred": 1, "daphne": 2}\nSERVERS = ["daphne", "uvicorn"]'),
    ("a.py", 'url = "http://daphne:8000/"\nhost = "daphne.example.com"\nrun("supervisorctl restart daphne")'),
    ("a.py", 'x = "daphne" in sys.argv[0]\nLOGGING = {"handlers": {"daphne": {"filename": "/var/log/daphne/x.log"}}}'),
    ("a.py", "import daphnetools\nfrom .daphne import x\nfrom project.daphne import y"),
    ("requirements.txt", "daphne-helpers==1\ntwisted[conch]\ntwisted==26.1\nchannels>=4"),
]


@pytest.mark.parametrize(("name", "text"), LEFT, ids=[f"{name}: {text}" for name, text in LEFT])
def test_what_only_looks_like_the_program_is_left_alone(name: str, text: str) -> None:
    assert advised(name, text + "\n") == {}


TOLD = [
    ("settings.py", 'L = {"loggers": {"daphne.http_protocol": {}}}', "no such logger"),
    ("settings.py", 'L = {"loggers": {"daphne.nosuch": {}}}', "neither Daphne nor daphne-ng"),
    ("settings.py", 'L = {"loggers": {"daphne.access": {}}}', "--access-log-logger"),
    ("logging.yaml", "loggers:\n  daphne.ws_protocol:\n    level: INFO", "no such logger"),
    ("run.py", "from daphne.http_protocol import WebRequest", "Daphne's own classes"),
    ("run.py", "from daphne.server import Server, nosuch", "no nosuch in daphne_ng.server"),
    ("run.py", "import daphne.nosuch", "no daphne_ng.nosuch"),
    ("tests.py", "from channels.testing import ChannelsLiveServerTestCase", "Tests with a browser"),
    ("tests.py", "from channels.testing import WebsocketCommunicator", "Tests with a browser"),
    ("tests.py", "from channels.testing.websocket import WebsocketCommunicator", "Tests with a browser"),
    ("tests.py", "from channels import testing", "Tests with a browser"),
    ("tests.py", "import channels.testing", "Tests with a browser"),
    ("app.spec", "hiddenimports = ['daphne.http_protocol']", "Daphne's own classes"),
    ("requirements.txt", "Twisted[http2,tls]", "May go"),
    ("pyproject.toml", '    "twisted[tls,http2]>=22",', "May go"),
    ("requirements.txt", "twisted==22.10.0", "daphne-ng needs twisted>=23.10"),
    ("requirements.txt", "twisted[tls]==22.10.0", "daphne-ng needs twisted>=23.10"),
    ("environment.yml", "  - autobahn=22.4.2", "daphne-ng needs autobahn>=24.4.2"),
    ("requirements.txt", "daphne==4.1 \\", "hashes"),
    ("mypy.ini", "[mypy-daphne.*]", "types of its own"),
    ("pyproject.toml", 'module = "daphne.*"', "types of its own"),
    ("Dockerfile", "RUN apt-get install -y daphne", "with pip"),
    ("entrypoint.sh", 'if [[ "$1" == *"daphne" ]]; then', "name is daphne-ng"),
]


@pytest.mark.parametrize(("name", "text", "words"), TOLD, ids=[f"{name}: {text}" for name, text, _ in TOLD])
def test_what_somebody_has_to_decide_is_said(name: str, text: str, words: str) -> None:
    (found,) = advised(name, text + "\n").values()
    assert words in " ".join(found.notes)


def test_a_command_in_lines_of_its_own_is_seen_by_what_follows() -> None:
    words = "command:\n  - python\n  - -m\n  - daphne\n  - a.asgi:app\n"
    assert advised("compose.yaml", words)[4].lines == ("- daphne_ng",)
    assert advised("compose.yaml", "command:\n  - daphne\n  - -b\n")[2].lines == ("- daphne-ng",)
    assert advised("k8s.json", '"command": [\n  "daphne",\n  "-b",\n')[2].lines == ('"daphne-ng",',)
    text = 'TEXT = """\n[program:daphne]\ncommand=/srv/bin/daphne -p 8000 a.asgi:app\n"""\n'
    assert {number: one.lines for number, one in advised("a.py", text).items()} == {
        3: ("command=/srv/bin/daphne-ng -p 8000 a.asgi:app",)
    }


def test_tables_of_toml_are_told_apart() -> None:
    text = (
        '[tool.poetry.group.dev.dependencies]\ndaphne = {version = "^4", optional = true}\n'
        '[tool.pdm.scripts]\ndaphne = "daphne a.asgi:app"\n[dependency-groups]\ndev = ["daphne"]\n'
        '[tool.x]\nkeywords = ["daphne"]\n'
    )
    assert {number: one.lines for number, one in advised("pyproject.toml", text).items()} == {
        2: ('daphne-ng = {version = "*", optional = true}',),
        4: ('daphne = "daphne-ng a.asgi:app"',),
        6: ('dev = ["daphne-ng"]',),
    }


# -- the whole program -----------------------------------------------------------------------------------------------

PROJECT = {
    "requirements.txt": "channels[daphne]>=4.1\n",
    "poetry.lock": 'name = "daphne"\n',
    "deploy/proj.d": "[program:daphne]\ncommand=daphne -u /run/daphne.sock a.asgi:app\n# daphne\n",
    ".github/x.yml": "- run: daphne a.asgi:app\n",
    "README.md": "daphne\n",
    "node_modules/x/a.py": "import daphne\n",
    ".git/config.py": "import daphne\n",
    "env/pyvenv.cfg": "",
    "env/lib/a.py": "import daphne\n",
    "logo.svg": "daphne",
    "binary.json": "daphne \udcff",
    "large.txt": "daphne a.asgi:app\n" + " " * 600_000,
}

REPORT = """\
requirements.txt:1
  - channels[daphne]>=4.1
  + channels>=4.1
  + daphne-ng
.github/x.yml:1
  - - run: daphne a.asgi:app
  + - run: daphne-ng a.asgi:app
deploy/proj.d:2
  - command=daphne -u /run/daphne.sock a.asgi:app
  + command=daphne-ng -u /run/daphne.sock a.asgi:app
poetry.lock
  ! Made by a tool: make it again after the rest.

4 places to look at.
Requirements: `daphne-ng` stands for what docs/how-to/install.md says to install. Then
`pip uninstall daphne`, in images and on servers too: while it is there, `import daphne` means it.
Where code cannot be changed, call daphne_ng.compat.install_as_daphne() first: `import daphne` then
means daphne-ng.

Leave these: names of your own, which need not change with the program.
  deploy/proj.d:1  [program:daphne]

Too large to look at: large.txt
"""


def make(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))


def test_what_a_project_needs_to_change_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, PROJECT)
    os.mkfifo(tmp_path / "pipe")  # which nobody may wait for
    assert compat.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == REPORT


def test_a_project_without_daphne_has_nothing_to_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, {"settings.py": 'INSTALLED_APPS = ["daphne_ng"]\n', "x.sh": "daphne-ng a.asgi:app\n"})
    assert compat.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing here depends on Daphne.\n"


TESTED = {
    f"{app}/tests.py": "from asgiref.sync import sync_to_async\nfrom channels.testing import WebsocketCommunicator\n"
    for app in ("accounts", "chat", "game")
}
TESTING_REPORT = f"""\
accounts/tests.py:2
  - from channels.testing import WebsocketCommunicator
  ! {advice_python.TESTING}
  ! The same setting is for:
    chat/tests.py:2
    game/tests.py:2

1 place to look at.
Where code cannot be changed, call daphne_ng.compat.install_as_daphne() first: `import daphne` then
means daphne-ng.
"""


def test_tests_of_channels_are_one_place_because_one_setting_is_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, TESTED)
    assert compat.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == TESTING_REPORT
    monkeypatch.setattr(advice, "_LEFT_SHOWN", 2)
    assert compat.main([str(tmp_path)]) == 0
    assert "    chat/tests.py:2\n    and 1 more\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("proj/settings.py", "DAPHNE_NG_INSTALL_AS_DAPHNE = True\n"),
        ("pytest.ini", "[pytest]\ndaphne_ng_install_as_daphne = true\n"),
        ("pyproject.toml", '[tool.pytest.ini_options]\ndaphne_ng_install_as_daphne = "true"\n'),
        ("conftest.py", "import daphne_ng.compat\n\ndaphne_ng.compat.install_as_daphne()\n"),
    ],
)
def test_tests_of_channels_are_left_out_once_the_project_has_that_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, line: str
) -> None:
    make(tmp_path, {**TESTED, name: line})
    assert compat.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Nothing here depends on Daphne.\n"


def test_a_tree_without_end_is_left_at_a_limit_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "_FILES_MAX", 2)
    make(tmp_path, {f"{number}.sh": "daphne a.asgi:app\n" for number in range(4)})
    assert compat.main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "2 places to look at" in printed
    assert printed.endswith("Stopped after 2 files. Name a directory further down.\n")


def test_the_floors_are_those_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert set(advice_text._floors()) >= {"twisted", "autobahn", "pyopenssl", "asgiref", "h2"}
    assert advice_text.requirement("twisted==1.0") is not None


def test_it_is_a_program_for_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: daphne proj.asgi:application\n")
    program = [sys.executable, "-m", "daphne_ng.compat"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("Procfile:1\n")
    assert "1 place to look at" in done.stdout
    done = subprocess.run([*program, "nosuch"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "nosuch is not a directory\n")
    done = subprocess.run([*program, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "usage: python -m daphne_ng.compat [DIRECTORY]\n")
