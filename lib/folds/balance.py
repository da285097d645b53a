"""Dividing vectors into parts with about equal sums."""

import numpy as np

EXACT = 2**50  # whole numbers below it add and multiply exactly in float64, with room to spare
RESTARTS_TIMES_VECTORS = 4000  # bounds the time: one restart for thousands of vectors
MOST_RESTARTS = 16  # 64 come 1 % closer to even, for four times the time
JITTER = 0.1  # relative; makes the restarts differ in the order of vectors of about the same length
SWAPPED = 500  # shortest vectors of a part that are tried in swaps


def partition(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Part of each vector, int (vectors,), 0 to count - 1, such that the parts' sums are about equal.

    `vectors` is float64 (vectors, dimensions), at least `count` of them, of whole numbers from 0 and the first of each
    above 0; the squared length of their total is below EXACT, so that no rounding depends on the machine. No part is
    empty. Parts are numbered by their first vector.

    As the total is given, the sums are equal where the sum of their squared lengths is least. It is made small by a
    greedy start, longest vectors first, then by moving and swapping vectors until nothing helps; best of several
    restarts.
    """
    rng = np.random.default_rng(seed)
    lengths = np.linalg.norm(vectors, axis=1)
    lowest, best = np.inf, np.empty(len(vectors), int)
    for _ in range(np.clip(RESTARTS_TIMES_VECTORS // len(vectors), 1, MOST_RESTARTS)):
        order = np.argsort(-lengths * (1 + JITTER * rng.standard_normal(len(vectors))), kind="stable")
        ordered = vectors[order]
        squares = np.square(ordered).sum(axis=1)
        parts, sums = _start(ordered, count)
        while _move(ordered, squares, parts, sums) or _swap(ordered, squares, parts, sums):
            pass
        cost = np.square(sums).sum()
        if cost < lowest:
            lowest, best[order] = cost, parts
    first = [np.argmax(best == part) for part in range(count)]
    return np.argsort(np.argsort(first))[best]


def _start(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each vector in turn where the sum of squares rises least: parts (vectors,), sums (count, dimensions)."""
    parts = np.empty(len(vectors), int)
    sums = np.zeros((count, vectors.shape[1]))
    for number, vector in enumerate(vectors):
        parts[number] = np.argmin(sums @ vector)
        sums[parts[number]] += vector
    return parts, sums


def _move(vectors: np.ndarray, squares: np.ndarray, parts: np.ndarray, sums: np.ndarray) -> bool:
    """Make the one move of a vector, in place, that lowers the sum of squares most; False if none does."""
    along = vectors @ sums.T
    present = np.arange(len(vectors)), parts
    change = along - along[present][:, None] + squares[:, None]  # half the change; the other half is the same
    change[present] = 0
    moved, target = np.unravel_index(change.argmin(), change.shape)
    if change[moved, target] >= 0:
        return False
    sums[parts[moved]] -= vectors[moved]
    sums[target] += vectors[moved]
    parts[moved] = target
    return True


def _swap(vectors: np.ndarray, squares: np.ndarray, parts: np.ndarray, sums: np.ndarray) -> bool:
    """For each pair of parts, swap the two vectors, in place, that lower the sum of squares most; False if none do."""
    swapped = False
    for a in range(len(sums)):
        for b in range(a + 1, len(sums)):
            of_a = np.flatnonzero(parts == a)[-SWAPPED:]  # the longest vectors come first
            of_b = np.flatnonzero(parts == b)[-SWAPPED:]
            difference = sums[b] - sums[a]
            leaving = vectors[of_a] @ difference + squares[of_a]
            coming = squares[of_b] - vectors[of_b] @ difference
            # leaving[:, None] + coming - 2 * vectors[of_a] @ vectors[of_b].T, in half the time as one product
            left = np.column_stack([-2 * vectors[of_a], leaving, np.ones(len(of_a))])
            right = np.column_stack([vectors[of_b], np.ones(len(of_b)), coming])
            change = left @ right.T
            row, column = np.unravel_index(change.argmin(), change.shape)
            if change[row, column] < 0:
                i, j = of_a[row], of_b[column]
                sums[a] += vectors[j] - vectors[i]
                sums[b] += vectors[i] - vectors[j]
                parts[i], parts[j] = b, a
                swapped = True
    return swapped
