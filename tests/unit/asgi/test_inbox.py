"""`daphne_ng.asgi.inbox`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daphne_ng.asgi.inbox import MESSAGE_COST_BYTES, Inbox, MessageInbox
from tests.support.asgi import on_loop, settle

NO_LOOP: Any = None


def test_parts_come_out_in_order_and_joined() -> None:
    inbox = Inbox(100, 10, NO_LOOP)
    for part in (b"a", b"b", b"c"):
        assert inbox.put(part) is False
    assert inbox.buffered == 3
    assert inbox.take() == (b"abc", False)
    assert inbox.buffered == 0


def test_a_single_part_is_not_copied() -> None:
    inbox = Inbox(100, 10, NO_LOOP)
    part = bytes(50)
    inbox.put(part)
    assert inbox.take()[0] is part


def test_reaching_the_high_mark_asks_for_a_pause_until_the_low_mark() -> None:
    inbox = Inbox(10, 4, NO_LOOP)
    assert inbox.put(b"x" * 9) is False
    assert inbox.put(b"x") is True
    assert inbox.put(b"x" * 5) is True
    assert inbox.take() == (b"x" * 10, False)  # five are left
    assert inbox.take() == (b"xxxxx", True)
    assert inbox.put(b"x") is False


def test_one_take_hands_out_no_more_than_the_high_mark_of_many_parts() -> None:
    inbox = Inbox(10, 4, NO_LOOP)
    for _ in range(4):
        inbox.put(b"1234567")
    sizes = []
    while inbox.buffered:
        data, _ = inbox.take()
        sizes.append(len(data))
    assert sum(sizes) == 28
    assert max(sizes) <= 10


def test_the_resume_is_reported_once() -> None:
    inbox = Inbox(4, 2, NO_LOOP)
    inbox.put(b"1234")
    assert inbox.take() == (b"1234", True)
    inbox.put(b"1")
    assert inbox.take() == (b"1", False)


@on_loop
async def test_every_waiter_is_woken_by_a_part_an_end_and_a_close() -> None:
    for change in (lambda inbox: inbox.put(b"x"), Inbox.end, Inbox.close):
        inbox = Inbox(10, 4, asyncio.get_running_loop())
        waiters = [asyncio.ensure_future(inbox.wait()) for _ in range(3)]
        await settle()
        assert not any(waiter.done() for waiter in waiters)
        change(inbox)
        await asyncio.wait_for(asyncio.gather(*waiters), 1)


@on_loop
async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    inbox = Inbox(10, 4, asyncio.get_running_loop())
    waiter = asyncio.ensure_future(inbox.wait())
    await settle()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert inbox._waiters == []
    inbox.put(b"x")


# -- messages --------------------------------------------------------------------------------------------------


def test_messages_come_out_one_by_one_in_order() -> None:
    inbox = MessageInbox(65536, 100, NO_LOOP)
    message = b"x" * 50
    assert inbox.put(message, 50) is False
    assert inbox.put("é", 2) is False
    assert inbox.buffered == 52 + 2 * MESSAGE_COST_BYTES
    taken, _ = inbox.take()
    assert taken is message
    assert inbox.take() == ("é", False)
    assert inbox.buffered == 0


def test_empty_messages_ask_for_a_pause_too() -> None:
    inbox = MessageInbox(10 * MESSAGE_COST_BYTES, 4 * MESSAGE_COST_BYTES, NO_LOOP)
    assert [inbox.put(b"", 0) for _ in range(11)] == [False] * 9 + [True] * 2
    assert [inbox.take()[1] for _ in range(11)] == [False] * 6 + [True] + [False] * 4


def test_a_message_beyond_the_high_mark_pauses_and_resumes_alone() -> None:
    inbox = MessageInbox(1000, 0, NO_LOOP)
    assert inbox.put("x" * 5000, 5000) is True
    assert inbox.take() == ("x" * 5000, True)


def test_after_its_end_the_rest_can_be_taken_and_after_its_close_nothing() -> None:
    inbox = MessageInbox(1000, 0, NO_LOOP)
    inbox.put("a", 1)
    inbox.end()
    assert inbox.ended
    assert inbox.take() == ("a", False)
    inbox.put("b", 1)
    inbox.close()
    assert inbox.ended
    assert inbox.put("x" * 5000, 5000) is False
    assert (inbox.parts, inbox.buffered) == ([], 0)


@on_loop
async def test_a_message_is_handed_to_who_waits_longest() -> None:
    inbox = MessageInbox(1000, 0, asyncio.get_running_loop())
    gone, first, second = (inbox.waiter() for _ in range(3))
    gone.cancel()
    assert inbox.put("x", 100_000) is False, "it is as good as taken"
    assert inbox.handed
    assert first.result() == ("x", 100_000)
    assert not second.done()
    assert inbox.buffered == 0
    inbox.handed = False  # it has had its turn
    assert inbox.put(b"y", 1) is False
    assert second.result() == (b"y", 1)
    assert inbox.put("z", 1000) is True


@on_loop
async def test_only_one_message_is_handed_at_a_time() -> None:
    inbox = MessageInbox(1000, 0, asyncio.get_running_loop())
    first, second, third = (inbox.waiter() for _ in range(3))
    inbox.put("x", 1)
    inbox.put("y", 1)
    assert (second.result(), third.done()) == (None, False), (
        "who comes second takes it, when the first has had its turn"
    )
    assert inbox.parts == [("y", 1)]
    inbox.forget(second)
    assert third.result() is None, "it is for another"
    inbox.forget(first)
    assert not inbox.handed
    assert inbox.parts == [("x", 1), ("y", 1)]


@on_loop
async def test_a_message_handed_to_a_reader_that_is_cancelled_comes_first_again() -> None:
    inbox = MessageInbox(1000, 0, asyncio.get_running_loop())
    waiter = inbox.waiter()
    inbox.put("first", 5)
    inbox.put("second", 6)
    other = inbox.waiter()
    inbox.forget(waiter)
    assert other.result() is None, "there is something to take"
    assert inbox.buffered == 11 + 2 * MESSAGE_COST_BYTES
    assert inbox.take() == ("first", False)
    assert inbox.take() == ("second", False)
    inbox.forget(other)
    assert inbox.buffered == 0


@on_loop
async def test_the_end_wakes_every_waiter_for_a_message() -> None:
    for change in (MessageInbox.end, MessageInbox.close):
        inbox = MessageInbox(1000, 0, asyncio.get_running_loop())
        waiters = [inbox.waiter() for _ in range(3)]
        change(inbox)
        assert [waiter.result() for waiter in waiters] == [None, None, None]
        assert inbox._waiters == []
