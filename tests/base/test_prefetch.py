"""lib/base/prefetch.py: order, and what is left undone after an error."""

import threading
import time

import pytest

from lib.base.prefetch import ITEMS_PER_TASK, THREADS, prefetched, prefetched_in_batches


def test_results_come_in_the_order_of_the_items():
    def slowest_first(number: int) -> int:
        time.sleep(0.02 / (number + 1))
        return number * number

    assert list(prefetched(slowest_first, range(9), ahead=4)) == [(number, number**2) for number in range(9)]


@pytest.mark.parametrize("count", [0, 1, ITEMS_PER_TASK, 3 * ITEMS_PER_TASK + 1])
def test_batches_give_each_item_its_result_in_order(count):
    squares = prefetched_in_batches(lambda number: number**2, range(count))
    assert list(squares) == [(number, number**2) for number in range(count)]


def test_after_an_error_nothing_more_is_begun():
    begun, end = [], threading.Event()

    def fail_at_once(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise ValueError
        end.wait(0.2)

    with pytest.raises(ValueError):
        list(prefetched(fail_at_once, range(500), ahead=400))
    assert len(begun) <= 2 * THREADS + 1
