"""Who makes place for whom, without a socket."""

from __future__ import annotations

import asyncio
import socket
import sys
from unittest.mock import Mock

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_server.connections.places import MOST_LEAVING, Guest, Leaver, Leaving, Places, cut, is_delivered, unsent

PATIENCE = 30


@attrs.define(eq=False)
class Visitor(Guest, Leaver):
    """A connection that makes place unless it is busy."""

    is_busy: bool = False
    is_gone: bool = False

    def make_place(self) -> bool:
        self.is_gone = not self.is_busy
        return self.is_gone

    def abort(self) -> None:
        self.is_gone = True


def seated(places: Places, count: int) -> list[Visitor]:
    visitors = [Visitor() for _ in range(count)]
    for visitor in visitors:
        places.wait(visitor)
    return visitors


def gone(visitors: list[Visitor]) -> list[bool]:
    return [visitor.is_gone for visitor in visitors]


def test_nobody_goes_while_there_are_places() -> None:
    places = Places(3)
    visitors = seated(places, 2)
    assert places.find(2)
    assert gone(visitors) == [False, False]
    assert (places.made, places.refused) == (0, 0)


def test_without_a_limit_there_is_always_a_place() -> None:
    places = Places()
    visitors = seated(places, 1)
    assert places.find(10**9)
    assert gone(visitors) == [False]


def test_whoever_has_waited_longest_goes_and_nobody_else() -> None:
    places = Places(3)
    visitors = seated(places, 3)
    assert places.find(3)
    assert gone(visitors) == [True, False, False]
    assert places.find(3)
    assert gone(visitors) == [True, True, False]
    assert (places.made, places.waiting) == (2, 1)


def test_a_request_gives_the_last_place_in_the_line() -> None:
    places = Places(3)
    visitors = seated(places, 3)
    places.leave(visitors[0])
    places.wait(visitors[0])
    assert places.find(3)
    assert gone(visitors) == [False, True, False]


def test_waiting_twice_is_waiting_since_the_first_time() -> None:
    places = Places(2)
    visitors = seated(places, 2)
    places.wait(visitors[0])
    assert places.find(2)
    assert gone(visitors) == [True, False]


def test_who_is_busy_after_all_is_passed_over_and_asked_again_when_it_waits_again() -> None:
    places = Places(2)
    visitors = seated(places, 2)
    visitors[0].is_busy = True
    assert places.find(2)
    assert gone(visitors) == [False, True]
    assert not places.find(2)
    visitors[0].is_busy = False
    places.wait(visitors[0])
    assert places.find(2)
    assert gone(visitors) == [True, True]
    assert (places.made, places.refused) == (2, 1)


def test_nobody_goes_for_whom_there_is_no_place_anyway() -> None:
    places = Places(2)
    visitors = seated(places, 2)
    for visitor in visitors:
        visitor.is_busy = True
    assert not places.find(2)
    assert gone(visitors) == [False, False]


@given(st.lists(st.tuples(st.sampled_from(["comes", "asks", "is answered"]), st.integers(0, 30))))
def test_who_goes_has_always_waited_longest_and_has_no_request(steps: list[tuple[str, int]]) -> None:
    places, waiting, asking = Places(4), list[Visitor](), list[Visitor]()
    for step, number in steps:
        match step:
            case "comes" if len(waiting) + len(asking) == 4:
                assert places.find(4) is bool(waiting)
                if waiting:
                    assert waiting.pop(0).is_gone
            case "comes":
                assert places.find(len(waiting) + len(asking))
                waiting += seated(places, 1)
            case "asks" if waiting:
                asking.append(waiting.pop(number % len(waiting)))
                places.leave(asking[-1])
            case "is answered" if asking:
                waiting.append(asking.pop(number % len(asking)))
                places.wait(waiting[-1])
            case _:
                pass
        assert not any(gone(waiting + asking))
        assert places.waiting == len(waiting)


def test_so_many_are_told_to_go_and_of_more_the_first_are_cut_off() -> None:
    leaving = Leaving()
    visitors = [Visitor() for _ in range(MOST_LEAVING + 2)]
    for visitor in visitors[:MOST_LEAVING]:
        leaving.add(visitor)
    leaving.discard(visitors[1])
    leaving.add(visitors[-2])
    assert not any(gone(visitors))
    leaving.add(visitors[-1])
    assert gone(visitors) == [True] + [False] * (MOST_LEAVING + 1)
    leaving.abort()
    assert gone(visitors) == [visitor is not visitors[1] for visitor in visitors]


def test_a_wire_that_has_forgotten_what_it_had_to_send_has_nothing() -> None:
    """Asyncio's transport of TLS is so when both sides have closed it."""
    forgetful, other = Mock(spec=asyncio.Transport), Mock(spec=asyncio.Transport)
    forgetful.get_write_buffer_size.side_effect = AttributeError
    other.get_write_buffer_size.return_value = 7
    assert unsent(forgetful, None, other) == 7


def test_under_tls_what_is_below_is_cut() -> None:
    wire, below = Mock(spec=asyncio.Transport), Mock(spec=asyncio.Transport)
    cut(wire, below)
    below.abort.assert_called_once_with()
    wire.abort.assert_not_called()
    cut(wire, None)
    wire.abort.assert_called_once_with()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what it has not sent yet")
def test_what_the_kernel_keeps_for_want_of_room_is_not_delivered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listening.getsockname())
        writer, _ = listening.accept()
        with writer:
            writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_048_576)
            writer.setblocking(False)
            wire = Mock(spec=asyncio.Transport)
            wire.get_write_buffer_size.return_value = 0
            wire.get_extra_info.return_value = writer
            assert is_delivered(wire, None)
            left = writer.send(bytes(1_000_000))
            assert not is_delivered(wire, None)
            reader.settimeout(PATIENCE)
            while left:
                left -= len(reader.recv(65_536))
            assert is_delivered(wire, None)
