"""Threads: order, exceptions, a bounded number ahead, and an end when the consumer stops."""

import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from secondeye.system.threads import map_ordered, prefetch, tee


def threads() -> int:
    return threading.active_count()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_prefetch_yields_every_item_in_order(size: int) -> None:
    before = threads()
    assert list(prefetch(iter(range(20)), size)) == list(range(20))
    assert list(prefetch(iter([None, 0, ""]), size)) == [None, 0, ""]
    assert list(prefetch(iter(()), size)) == []
    assert threads() == before


def test_prefetch_runs_in_one_other_thread_and_not_far_ahead() -> None:
    started: list[int] = []

    def items() -> Iterator[threading.Thread]:
        for n in range(10):
            started.append(n)
            yield threading.current_thread()

    ahead = prefetch(items(), 2)
    first = next(ahead)
    assert first is not threading.current_thread() and len(started) <= 3
    assert {first} == set(ahead) and started == list(range(10))


def test_prefetch_raises_where_the_item_would_be() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyError("lost")

    before, stream = threads(), prefetch(items(), 5)
    assert list(islice(stream, 3)) == [0, 1, 2]
    with pytest.raises(KeyError, match="lost"):
        next(stream)
    assert threads() == before


def test_an_early_stop_closes_the_iterator_and_ends_the_thread() -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    before = threads()
    stream = prefetch(items(), 4)
    assert list(islice(stream, 5)) == [0, 1, 2, 3, 4]
    stream.close()
    assert closed == [True] and threads() == before


@pytest.mark.parametrize("count", [1, 3])
def test_map_ordered_is_map(count: int) -> None:
    before, taken = threads(), []

    def items() -> Iterator[int]:
        for n in range(12):
            taken.append(n)
            yield n

    squares = map_ordered(lambda n: n * n, items(), count)
    assert next(squares) == 0 and len(taken) <= count + 1
    assert list(squares) == [n * n for n in range(1, 12)]
    with pytest.raises(ZeroDivisionError):
        list(map_ordered(lambda n: 1 // n, [1, 0, 1], count))
    assert threads() == before


def test_tee_yields_every_item_to_each_whoever_asks_first() -> None:
    before = threads()
    one, other = tee(iter(range(20)), 2)
    assert list(islice(one, 5)) == list(range(5)) and list(islice(other, 8)) == list(range(8))
    ahead = [prefetch(each, 3) for each in (one, other)]
    assert [list(each) for each in ahead] == [list(range(5, 20)), list(range(8, 20))]
    assert threads() == before


def test_tee_raises_once_and_ends_the_others() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    one, other = tee(items(), 2)
    assert next(one) == 1
    with pytest.raises(ValueError, match="broken"):
        next(one)
    assert list(other) == [1]
