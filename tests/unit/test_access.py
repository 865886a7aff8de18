"""`daphne_ng.access`: Daphne's line format, what a client cannot do to it, and when lines are written."""

import datetime as dt
import io
import logging
import pathlib
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_ng.access import (
    BUFFER_MAX_CHARS,
    FLUSH_SECONDS,
    AccessLogGenerator,
    LineWriter,
    LoggingAccessLog,
    escape,
    open_access_log,
)
from daphne_ng.errors import ConfigurationError

REQUEST = {
    "path": "/items?page=2",
    "status": 200,
    "method": "GET",
    "client": "10.0.0.1:1234",
    "time_taken": 0.5,
    "size": 512,
}
LINE = re.compile(r'^(\S+) (\S+) (\S+) \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d)\] "([^"\\]|\\x[0-9A-F]{2})*" (\S+) (\S+)\n$')


class FakeLoop:
    """Keeps what ``call_later`` is given; `fire` runs it."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((delay, callback))

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for _, callback in timers:
            callback()


class CountingStream(io.StringIO):
    """Counts the writes."""

    writes = 0

    def write(self, text: str, /) -> int:
        self.writes += 1
        return super().write(text)


class BrokenStream(io.StringIO):
    """A disk that is full until somebody makes room."""

    full = True

    def write(self, text: str, /) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def logged(protocol: str, action: str, **details: object) -> str:
    stream = io.StringIO()
    AccessLogGenerator(stream)(protocol, action, details)
    return stream.getvalue()


# -- the format ------------------------------------------------------------------------------------------------


def test_a_request_is_one_ncsa_line() -> None:
    line = logged("http", "complete", **REQUEST)

    assert re.sub(r"\[.*?\]", "[date]", line) == '10.0.0.1:1234 - - [date] "GET /items?page=2" 200 512\n'
    match = LINE.match(line)
    assert match is not None
    written = dt.datetime.strptime(match[4], "%d/%b/%Y:%H:%M:%S")
    assert abs(dt.datetime.now() - written) < dt.timedelta(seconds=5)


@pytest.mark.parametrize(
    ("action", "verb"),
    [
        ("connecting", "WSCONNECTING"),
        ("connected", "WSCONNECT"),
        ("rejected", "WSREJECT"),
        ("disconnected", "WSDISCONNECT"),
    ],
)
def test_a_websocket_event_has_its_own_verb_and_neither_status_nor_size(action: str, verb: str) -> None:
    line = logged("websocket", action, path="/chat", client="::1:9")

    assert re.sub(r"\[.*?\]", "[date]", line) == f'::1:9 - - [date] "{verb} /chat" - -\n'


@pytest.mark.parametrize(("protocol", "action"), [("http", "started"), ("websocket", "complete"), ("ftp", "complete")])
def test_an_unknown_action_has_no_line(protocol: str, action: str) -> None:
    assert logged(protocol, action, **REQUEST) == ""


def test_what_is_unknown_is_a_dash() -> None:
    line = logged("http", "complete", **(REQUEST | {"client": None, "status": None, "size": None}))

    assert line.startswith("- - - [")
    assert line.endswith('" - -\n')


def test_an_empty_body_is_a_dash() -> None:
    assert logged("http", "complete", **(REQUEST | {"size": 0})).endswith(" 200 -\n")


def test_write_entry_takes_daphnes_arguments() -> None:
    stream = io.StringIO()
    AccessLogGenerator(stream).write_entry(
        host="h",
        date=dt.datetime(2020, 2, 3, 4, 5, 6),
        request="GET /",
        status=404,
        length=7,
        ident="i",
        user="u",
    )

    assert stream.getvalue() == 'h i u [03/Feb/2020:04:05:06] "GET /" 404 7\n'


def test_write_entry_can_be_overridden() -> None:
    class Mine(AccessLogGenerator):
        seen: list[dict[str, object]] = []

        def write_entry(self, **entry: object) -> None:  # type: ignore[override]
            self.seen.append(entry)

    Mine(io.StringIO())("http", "complete", REQUEST)

    (entry,) = Mine.seen
    assert isinstance(entry.pop("date"), dt.datetime)
    assert entry == {"host": "10.0.0.1:1234", "request": "GET /items?page=2", "status": 200, "length": 512}


def test_a_subclass_need_not_call_the_constructor() -> None:
    class Mine(AccessLogGenerator):
        def __init__(self) -> None:
            self.stream = io.StringIO()

    log = Mine()
    log("http", "complete", REQUEST)

    assert isinstance(log.stream, io.StringIO)
    assert log.stream.getvalue().startswith("10.0.0.1:1234 - - [")


def test_the_stream_may_be_exchanged() -> None:
    log = AccessLogGenerator(io.StringIO())
    log.stream = other = io.StringIO()
    log("http", "complete", REQUEST)

    assert other.getvalue()


# -- what a client cannot do -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/plain?a=b&c=%22#~!", "/plain?a=b&c=%22#~!"),
        ('/"', r"/\x22"),
        ("/\\", r"/\x5C"),
        ("/\r\n", r"/\x0D\x0A"),
        ("/\x1b[31m", r"/\x1B[31m"),
        ("/\x7f\x00", r"/\x7F\x00"),
        ("/é", r"/\xC3\xA9"),
        ("/\u2028", r"/\xE2\x80\xA8"),
        (b"/\xff".decode("utf-8", "surrogateescape"), r"/\xFF"),
        ("/\ud800", r"/\xED\xA0\x80"),
    ],
)
def test_everything_but_plain_ascii_is_escaped_byte_by_byte(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_a_path_cannot_start_a_line_of_its_own() -> None:
    forged = '/x" 200 1\n1.2.3.4 - - [01/Jan/2020:00:00:00] "GET /admin'

    assert logged("http", "complete", **(REQUEST | {"path": forged})).count("\n") == 1


def test_a_forwarded_address_cannot_hold_a_space_or_a_line_end() -> None:
    line = logged("http", "complete", **(REQUEST | {"client": '1.2.3.4 - - [x] "GET /"\n:0'}))

    assert line.startswith(r"1.2.3.4\x20-\x20-\x20[x]\x20\x22GET\x20/\x22\x0A:0 - - [")


@given(path=st.text(), method=st.text(), client=st.text(min_size=1))
def test_no_text_of_a_client_breaks_the_line(path: str, method: str, client: str) -> None:
    line = logged("http", "complete", **(REQUEST | {"path": path, "method": method, "client": client}))

    assert line.isascii()
    assert LINE.match(line)


# -- when lines are written --------------------------------------------------------------------------------------


def test_without_a_loop_every_line_is_written_at_once() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write("a\n")

    assert stream.getvalue() == "a\n"


def test_with_a_loop_lines_wait_for_one_timer_and_go_in_one_write() -> None:
    stream, loop = CountingStream(), FakeLoop()
    writer = LineWriter(stream)
    writer.schedule = loop.call_later
    for number in range(3):
        writer.write(f"{number}\n")

    assert stream.getvalue() == ""
    assert [delay for delay, _ in loop.timers] == [FLUSH_SECONDS]
    loop.fire()
    assert stream.getvalue() == "0\n1\n2\n"
    assert stream.writes == 1


def test_the_next_line_after_a_flush_sets_a_new_timer() -> None:
    loop = FakeLoop()
    writer = LineWriter(io.StringIO())
    writer.schedule = loop.call_later
    writer.write("a\n")
    loop.fire()
    assert loop.timers == []
    writer.write("b\n")
    assert len(loop.timers) == 1


def test_a_full_buffer_is_written_at_once() -> None:
    stream, loop = CountingStream(), FakeLoop()
    writer = LineWriter(stream)
    writer.schedule = loop.call_later
    line = "x" * 1023 + "\n"
    for _ in range(BUFFER_MAX_CHARS // len(line)):
        assert stream.writes == 0
        writer.write(line)

    assert stream.writes == 1
    assert len(stream.getvalue()) == BUFFER_MAX_CHARS


def test_losing_the_loop_writes_what_waits_and_later_lines_at_once() -> None:
    stream = io.StringIO()
    log = AccessLogGenerator(LineWriter(stream))
    log.attach(FakeLoop().call_later)
    log("http", "complete", REQUEST)
    assert stream.getvalue() == ""
    log.detach()
    assert stream.getvalue().count("\n") == 1
    log("http", "complete", REQUEST)
    assert stream.getvalue().count("\n") == 2


def test_a_second_loop_gets_its_own_timer() -> None:
    first, second = FakeLoop(), FakeLoop()
    writer = LineWriter(io.StringIO())
    writer.schedule = first.call_later
    writer.write("a\n")
    writer.schedule = second.call_later
    writer.write("b\n")

    assert len(second.timers) == 1


def test_a_terminal_waits_for_the_turn_of_the_loop_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert LineWriter(Terminal()).delay == 0


def test_attaching_a_loop_to_a_plain_stream_changes_nothing() -> None:
    stream, loop = io.StringIO(), FakeLoop()
    log = AccessLogGenerator(stream)
    log.attach(loop.call_later)
    log("http", "complete", REQUEST)
    log.detach()
    log.close()

    assert stream.getvalue().count("\n") == 1
    assert not stream.closed


def test_a_failing_write_is_reported_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stream = BrokenStream()
    writer = LineWriter(stream)
    writer.write("a\n")
    writer.write("b\n")

    assert [record.getMessage() for record in caplog.records] == [
        "The access log cannot be written, its lines are lost: [Errno 28] No space left on device"
    ]
    stream.full = False
    writer.write("c\n")
    assert stream.getvalue() == "c\n"
    stream.full = True
    writer.write("d\n")
    assert len(caplog.records) == 2


def test_writing_after_the_stream_was_closed_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    stream.close()
    writer.write("a\n")

    assert "closed file" in caplog.text


def test_closing_writes_what_waits_and_closes_only_an_owned_stream() -> None:
    class Kept(io.StringIO):
        text = ""

        def close(self) -> None:
            self.text = self.getvalue()
            super().close()

    for owned in (True, False):
        stream = Kept()
        writer = LineWriter(stream, owns_stream=owned)
        writer.schedule = FakeLoop().call_later
        writer.write("a\n")
        writer.close()
        writer.close()
        assert (stream.text if owned else stream.getvalue()) == "a\n"
        assert stream.closed is owned


def test_a_log_file_is_appended_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = AccessLogGenerator(open_access_log(str(path)))
    log.attach(FakeLoop().call_later)
    log("http", "complete", REQUEST)
    log.close()

    before, line = path.read_text().splitlines(keepends=True)
    assert before == "before\n"
    assert LINE.match(line)


def test_a_log_file_that_cannot_be_opened_is_a_configuration_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--access-log: cannot write to '.*': No such file or directory$"):
        open_access_log(str(tmp_path / "missing" / "access.log"))


def test_a_dash_is_standard_output_and_stays_open(capsys: pytest.CaptureFixture[str]) -> None:
    writer = open_access_log("-")
    writer.write("a\n")
    writer.close()
    print("b")

    assert capsys.readouterr().out == "a\nb\n"


# -- through logging ---------------------------------------------------------------------------------------------


def test_the_logger_gets_the_line_already_formatted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "daphne_ng.access")
    LoggingAccessLog()("http", "complete", REQUEST | {"path": "/100%s"})

    (record,) = caplog.records
    assert record.name == "daphne_ng.access"
    assert record.levelno == logging.INFO
    assert re.sub(r"\[.*?\]", "[date]", record.getMessage()) == '10.0.0.1:1234 - - [date] "GET /100%s" 200 512'
    assert not record.args


def test_a_formatter_can_reach_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "daphne_ng.access")
    LoggingAccessLog()("http", "complete", REQUEST | {"http_version": "2", "path": '/"'})

    formatter = logging.Formatter("{access[method]} {access[path]} {access[http_version]} {access[size]}", style="{")
    assert formatter.format(caplog.records[0]) == r"GET /\x22 2 512"


def test_websocket_events_go_to_the_logger_too(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.access")
    caplog.set_level(logging.INFO, "tests.access")
    log = LoggingAccessLog(logger)
    log.attach(FakeLoop().call_later)
    log("websocket", "connected", {"path": "/chat", "client": None})
    log("websocket", "unheard of", {"path": "/chat", "client": None})
    log.detach()
    log.close()

    (record,) = caplog.records
    assert record.access == {  # type: ignore[attr-defined]
        "protocol": "websocket",
        "action": "connected",
        "path": "/chat",
        "client": None,
        **dict.fromkeys(("method", "status", "size", "code", "bytes_received", "bytes_sent", "time_taken")),
        "http_version": None,
    }


def test_a_format_may_name_any_field_of_any_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "daphne_ng.access")
    log = LoggingAccessLog()
    log("http", "complete", REQUEST)
    for action in ("connecting", "connected", "rejected", "disconnected"):
        log("websocket", action, {"path": "/chat", "client": None})
    first = caplog.records[0].access  # type: ignore[attr-defined]
    formatter = logging.Formatter(" ".join(f"{{access[{name}]}}" for name in first), style="{")
    assert len({len(formatter.format(record).split(" ")) for record in caplog.records}) == 1
    assert all(record.access.keys() == first.keys() for record in caplog.records)  # type: ignore[attr-defined]


def test_how_a_websocket_ended_is_in_the_record_but_not_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    details = {
        "path": "/chat",
        "client": "h:1",
        "time_taken": 1.5,
        "code": 1001,
        "bytes_received": 10,
        "bytes_sent": 20,
        "http_version": "1.1",
    }
    caplog.set_level(logging.INFO, "daphne_ng.access")
    LoggingAccessLog()("websocket", "disconnected", details)

    (record,) = caplog.records
    known = {name: value for name, value in record.access.items() if value is not None}  # type: ignore[attr-defined]
    assert known == {"protocol": "websocket", "action": "disconnected", **details}
    assert record.getMessage().endswith('"WSDISCONNECT /chat" - -')
    assert logged("websocket", "disconnected", **details).endswith('"WSDISCONNECT /chat" - -\n')


def test_a_logger_above_info_costs_no_formatting() -> None:
    logger = logging.Logger("quiet", logging.WARNING)

    LoggingAccessLog(logger)("http", "complete", {})
