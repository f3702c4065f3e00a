"""Run work in threads beside the caller: the same items in the same order, a bounded number ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Lock
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    items: Iterator[Item],  # advanced in one other thread
    size: int,  # items to compute ahead, at least 1
) -> Generator[Item, None, None]:
    """Yield the items of an iterator that runs in a thread.

    An exception of the iterator is raised where its item would be yielded. Closing this generator ends the
    thread and closes the iterator.
    """
    ahead: deque[Future[list[Item]]] = deque()
    thread = ThreadPoolExecutor(1)
    try:
        for _ in range(size):
            ahead.append(thread.submit(_next, items))
        while item := ahead.popleft().result():
            ahead.append(thread.submit(_next, items))
            yield item[0]
    finally:
        thread.shutdown(cancel_futures=True)
        if close := getattr(items, "close", None):
            close()


def _next(items: Iterator[Item]) -> list[Item]:
    """Return the next item in a list; an empty list at the end."""
    return list(islice(items, 1))


def tee(items: Iterator[Item], count: int) -> list[Generator[Item, None, None]]:
    """Return `count` generators that each yield all items, and may be advanced in different threads.

    An item is kept until the last of them has taken it. An exception of the iterator is raised by the
    generator that asked for the item; the others end there.
    """
    waiting: list[deque[Item]] = [deque() for _ in range(count)]
    lock = Lock()

    def read(mine: deque[Item]) -> Generator[Item, None, None]:
        while True:
            with lock:
                if not mine:
                    found = _next(items)
                    for each in waiting:
                        each.extend(found)
                if not mine:
                    return
                item = mine.popleft()
            yield item
            del item  # or it would be kept until the next one is asked for

    return [read(mine) for mine in waiting]


def map_ordered(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield the function's result for every item, in order, computed in `threads` threads.

    Takes `threads` more items than it has yielded results. With one thread it is computed by the caller.
    """
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
