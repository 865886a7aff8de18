"""When certificates are asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daphne_ng.acme.failure import Failure
from daphne_ng.acme.schedule import ORDERS_IN_A_ROW, PAUSE_SECONDS, Schedule, Validity, renewal_time

HOUR = 3600.0
DAY = 24 * HOUR
NOW = 1_800_000_000.0
A, B = "a.example.org", "b.example.org"


def schedule(*names: str, spread: float = 0.0) -> Schedule:
    made = Schedule(lambda: spread)
    made.replace(names or (A, B))
    return made


def days(begun: float, total: float, serial: int = 0) -> Validity:
    return Validity(NOW - begun * DAY, NOW + (total - begun) * DAY, serial)


def test_a_name_without_a_certificate_is_due_at_once() -> None:
    assert schedule().due(NOW) == [A, B]


def test_a_good_certificate_is_kept_until_a_third_of_its_lifetime_is_left() -> None:
    plan = schedule(A)
    plan.certificate(A, days(0, 90))
    assert plan.due(NOW + 59.9 * DAY) == []
    assert plan.due(NOW + 60.1 * DAY) == [A]


def test_an_expired_certificate_is_due() -> None:
    plan = schedule(A)
    plan.certificate(A, days(91, 90))
    assert plan.due(NOW) == [A]


def test_certificates_of_the_same_day_are_renewed_over_some_days_and_never_much_later() -> None:
    times = [renewal_time(days(0, 90, serial)) for serial in range(5000)]
    assert min(times) == NOW + 60 * DAY
    assert NOW + 62.9 * DAY < max(times) < NOW + 63 * DAY


def test_a_lifetime_that_makes_no_sense_does_not_hurt() -> None:
    assert renewal_time(Validity(NOW, NOW - DAY)) == NOW - DAY


def test_the_authority_may_ask_for_an_earlier_renewal_but_not_for_a_later_one() -> None:
    plan = schedule(A, B)
    plan.certificate(A, days(0, 90))
    plan.certificate(B, days(0, 90))
    plan.suggest(A, NOW + 5 * DAY)
    plan.suggest(B, NOW + 89 * DAY)
    assert plan.due(NOW + 4 * DAY) == []
    assert plan.due(NOW + 6 * DAY) == [A]
    assert plan.due(NOW + 61 * DAY) == [A, B]
    plan.certificate(A, days(0, 90, serial=1))  # what was said of the old one is over
    assert plan.due(NOW + 6 * DAY) == []


def test_what_is_missing_comes_before_what_ends_first() -> None:
    plan = schedule("x.example.org", "y.example.org", "z.example.org")
    plan.certificate("x.example.org", days(80, 90))
    plan.certificate("y.example.org", days(85, 90))
    assert plan.due(NOW) == ["z.example.org", "y.example.org", "x.example.org"]


def test_a_name_that_fails_waits_ever_longer_up_to_six_hours() -> None:
    plan, waits = schedule(A), []
    for _ in range(9):
        waits.append(plan.failed(A, Failure("no"), NOW))
    assert waits == [60, 180, 540, 1620, 4860, 14580, 21600, 21600, 21600]


def test_five_attempts_fall_into_the_first_hour() -> None:
    plan, now, attempts = schedule(A), NOW, 0
    while now < NOW + HOUR:
        assert plan.due(now) == [A]
        attempts += 1
        now += plan.failed(A, Failure("no"), now)
    assert attempts == 5


def test_failures_of_years_do_not_overflow() -> None:
    plan = schedule(A)
    assert {plan.failed(A, Failure("no"), NOW) for _ in range(5000)} >= {6 * HOUR}


def test_waits_are_spread_so_that_servers_do_not_come_back_together() -> None:
    assert schedule(A, spread=0.999).failed(A, Failure("no"), NOW) == pytest.approx(75, abs=0.1)


def test_a_name_that_fails_does_not_hold_up_the_others() -> None:
    plan = schedule(A, B)
    plan.failed(A, Failure("no"), NOW)
    assert plan.due(NOW) == [B]
    assert plan.due(NOW + 59) == [B]
    assert plan.due(NOW + 61) == [B, A]  # behind those that have not failed


def test_an_authority_that_cannot_be_reached_holds_up_all() -> None:
    plan = schedule(A, B)
    assert plan.failed(A, Failure("down", everyone=True), NOW) == 60
    assert plan.due(NOW + 59) == []
    assert plan.due(NOW + 61) == [A, B]
    assert plan.failed(None, Failure("down", everyone=True), NOW) == 180


def test_the_authority_says_when_to_come_back() -> None:
    plan = schedule(A)
    assert plan.failed(A, Failure("busy", retry_after=7200), NOW) == 7200
    assert plan.failed(A, Failure("busy", retry_after=1), NOW) == 180
    assert plan.failed(A, Failure("busy", retry_after=1e9), NOW) == 7 * DAY


def test_a_rate_limit_is_waited_for_an_hour_at_least() -> None:
    plan = schedule(A, B)
    assert plan.failed(A, Failure("too many", rate_limited=True, retry_after=5), NOW) == HOUR
    assert plan.failed(B, Failure("too many", rate_limited=True, retry_after=3 * HOUR), NOW) == 3 * HOUR


def test_success_forgets_failures() -> None:
    plan = schedule(A)
    plan.failed(A, Failure("no"), NOW)
    plan.failed(A, Failure("no"), NOW)
    plan.succeeded(A, days(0, 90), NOW)
    assert plan.due(NOW + DAY) == []
    assert plan.failed(A, Failure("no"), NOW) == 60


def test_a_certificate_that_is_old_when_it_comes_is_not_asked_for_again_at_once() -> None:
    plan = schedule(A)
    plan.succeeded(A, days(-90, 90), NOW)  # our clock is wrong
    plan.certificate(A, None)  # somebody has put the old file back
    assert plan.due(NOW + 5 * HOUR) == []
    assert plan.wait(NOW, DAY) == 6 * HOUR
    assert plan.due(NOW + 6 * HOUR) == [A]


def test_a_handful_of_orders_is_followed_by_a_pause() -> None:
    names = [f"n{number}.example.org" for number in range(12)]
    plan, now, rounds = schedule(*names), NOW, []
    for _ in range(3):
        due = plan.due(now)
        rounds.append(len(due))
        for name in due:
            plan.ordered(now)
            plan.succeeded(name, days(0, 90), now)
        assert plan.due(now) == []
        now += PAUSE_SECONDS
    assert rounds == [ORDERS_IN_A_ROW, ORDERS_IN_A_ROW, 2]


def test_it_knows_how_long_nothing_will_be_due() -> None:
    plan = schedule(A, B)
    assert plan.wait(NOW, 60) == 0
    plan.certificate(A, days(0, 90))
    plan.certificate(B, days(0, 90))
    assert plan.wait(NOW, 60) == 60
    assert plan.wait(NOW + 60 * DAY - 10, 60) == pytest.approx(10)
    plan.failed(None, Failure("down", everyone=True), NOW + 60 * DAY)
    assert plan.wait(NOW + 60 * DAY + 1, 600) == pytest.approx(59)
    assert schedule("x").wait(NOW, 60) == 0
    empty = Schedule()
    assert empty.wait(NOW, 60) == 60


def test_names_come_and_go_and_what_is_known_of_the_others_stays() -> None:
    plan = schedule(A, B)
    plan.certificate(A, days(0, 90))
    plan.failed(B, Failure("no"), NOW)
    plan.replace([A, B, "c.example.org"])
    assert plan.due(NOW) == ["c.example.org"]
    assert plan.ends(A) == NOW + 90 * DAY
    assert plan.ends(B) is None
    plan.replace([A])
    plan.replace([A, B])
    assert plan.due(NOW) == [B]


def test_what_others_wrote_becomes_one_line_of_printable_text() -> None:
    text = str(Failure("a\r\n2026 ERROR forged\x1b[31m" + "x" * 1000))
    assert text.startswith("a 2026 ERROR forged [31mxxx")
    assert text.isprintable()
    assert len(text) == 400


# -- one process goes on for another


def resumed(waits: Any, *names: str) -> Schedule:
    made = Schedule(lambda: 0.0)
    made.resume(json.loads(json.dumps(waits)))
    made.replace(names)
    return made


def test_another_process_goes_on_with_the_same_waits() -> None:
    plan = schedule(A, B)
    for _ in range(3):
        plan.failed(A, Failure("no"), NOW)
    plan.succeeded(B, days(0, 90), NOW)
    other = resumed(plan.waits(), A, B, "c.example.org")
    assert other.due(NOW) == ["c.example.org"]
    assert other.due(NOW + 541) == ["c.example.org", A]
    assert B in other.due(NOW + 6 * HOUR + 1)  # it has not looked at the file
    assert other.failed(A, Failure("no"), NOW) == 27 * 60
    assert resumed(plan.waits(), B).due(NOW) == []


def test_a_wait_of_all_and_the_orders_in_a_row_are_taken_over() -> None:
    plan = schedule(A)
    plan.failed(None, Failure("down", everyone=True), NOW)
    assert resumed(plan.waits(), A, B).due(NOW + 59) == []
    plan = schedule(A)
    for _ in range(ORDERS_IN_A_ROW - 1):
        plan = resumed(plan.waits(), A, B)
        plan.ordered(NOW)
        assert plan.due(NOW)
    assert resumed(plan.waits(), A, B).due(NOW) == [A]
    plan.ordered(NOW)
    assert resumed(plan.waits(), A, B).due(NOW + PAUSE_SECONDS - 1) == []


@pytest.mark.parametrize(
    "waits",
    [
        {},
        {"everyone": [0, 0], "names": [], "in_a_row": 0},
        {"everyone": [0], "names": {}, "in_a_row": 0},
        {"everyone": None, "names": {}, "in_a_row": 0},
        {"everyone": [0, NOW + DAY], "names": {A: [1, "x"]}, "in_a_row": 0},
        {"everyone": [0, NOW + DAY], "names": {}, "in_a_row": []},
    ],
)
def test_waits_of_another_shape_are_left_out(waits: Any) -> None:
    assert resumed(waits, A).due(NOW) == [A]
