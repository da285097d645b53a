"""Reading ahead with threads, which suffice: decoding and morphology release Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(os.cpu_count() or 1, 16)


def prefetched(function: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in order, with up to `ahead` results computed before they are asked for.

    After an error or Ctrl-C only the results being computed are waited for.
    """
    pool = ThreadPoolExecutor(THREADS)
    try:
        waiting = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > ahead:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
