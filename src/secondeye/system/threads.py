"""Run work in threads beside the caller: the same items in the same order, a bounded number ahead."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
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
