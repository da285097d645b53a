"""Reading ahead with threads, which suffice: decoding and morphology release Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(os.cpu_count() or 1, 16)
ITEMS_PER_TASK = 64  # items of a function so quick that handing one to a thread takes as long


def prefetched(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = 4 * THREADS
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in order, with up to `ahead` results computed before they are asked for.

    Fewer take less memory where results are large. After an error or Ctrl-C only results being computed are waited for.
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


def prefetched_in_batches(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Do as `prefetched` does, handing 64 items at a time to a thread: for functions that take microseconds."""
    batches = [items[first : first + ITEMS_PER_TASK] for first in range(0, len(items), ITEMS_PER_TASK)]
    for batch, results in prefetched(lambda batch: [function(item) for item in batch], batches):
        yield from zip(batch, results, strict=True)
