"""Cut images in an order, or in a grid, into blocks: scenes where they show, else pieces of equal length.

Neighbouring frames of a video, slices of a volume and tiles of a map are alike, though their names do not say so.
Blocks keep most neighbours together; only those on either side of a cut through a scene are separated.
"""

import numpy as np

from lib.folds.id_patterns import Partition, Series
from lib.folds.likeness import Likeness, likeness_of_places
from lib.masks.statistics import group_members, group_numbers

CLOSE = {1: 2, 2: 1}  # places to either side that count as close: in an order (1 axis) and in a grid (2 axes)
NATURAL_GAP = 5  # gaps between runs of numbers are this many times longer than those within
SAME_SCENE = 3  # deviations above the median similarity of any two images; successive ones above are of one scene
ACROSS = 2  # images to either side of a cut that are compared
SAMPLED_PAIRS = 20_000  # drawn for the median


def places(series: Series) -> np.ndarray:
    """Positions as ranks within their key, (images, 1 or 2): gaps do not count, equal positions share a rank."""
    ranks = np.empty_like(series.positions)
    for members in group_members(series.keys):
        for axis in range(ranks.shape[1]):
            ranks[members, axis] = group_numbers(series.positions[members, axis])
    return ranks


def likeness_of_series(series: Series, neighbour: np.ndarray, images: np.ndarray, judges: np.ndarray) -> Likeness:
    """The likeness of images close to each other, compared with others of their key.

    `neighbour` holds, for each of the `images`, the most similar other one; it and `judges` are positions in `images`.
    """
    ranks = places(series)
    return likeness_of_places(series.keys[images], ranks[images], neighbour, CLOSE[ranks.shape[1]], judges)


def cut(series: Series, vectors: np.ndarray, most: int) -> list[Partition]:
    """Ways of cutting the series into blocks of at most `most` images.

    An order is cut at gaps in its numbers, if they stand out, and, as a second way, where successive images change.
    Blocks that are still too long are halved: in an order where the middle images are least alike, in a grid along the
    longer side.
    """
    if series.positions.shape[1] == 2:
        return [Partition(f"{series.name}, in blocks", _grid_blocks(series, most), is_cut=True)]
    order = np.lexsort((series.positions[:, 0], group_numbers(series.keys)))
    links = _links(vectors[order])
    new_key = series.keys[order][1:] != series.keys[order][:-1]
    cuts_by_name = {"cut where the images change": (links < _similarity_in_scene(vectors), True)}
    if (gaps := _natural_gaps(series.positions[order, 0], ~new_key)) is not None:
        cuts_by_name = {"cut at its gaps": (gaps, False)} | cuts_by_name
    partitions = []
    for words, (cuts, by_images) in cuts_by_name.items():
        runs = np.concatenate([[0], np.cumsum(cuts | new_key)])
        blocks = np.empty(len(order), int)
        blocks[order] = _halved(runs, links, most)
        is_cut = bool(blocks.max() > runs[-1])
        partitions.append(Partition(f"{series.name}, {words}", named(blocks), by_images=by_images, is_cut=is_cut))
    return partitions


def named(blocks: np.ndarray) -> np.ndarray:
    """Blocks 0, 1, ... as names of groups."""
    width = len(str(blocks.max(initial=0)))
    return np.array([f"block_{block:0{width}d}" for block in blocks])


def log_threshold(values: np.ndarray) -> tuple[float, float]:
    """The limit between small and large positive numbers (Otsu 1979, on logarithms), and the ratio of their geometric
    means.
    """
    logs = np.sort(np.log(values))
    counts = np.arange(1, len(logs))
    sums = np.cumsum(logs)[:-1]
    low, high = sums / counts, (logs.sum() - sums) / (len(logs) - counts)
    best = int(np.argmax(counts * (len(logs) - counts) * (high - low) ** 2))
    return float(np.exp((logs[best] + logs[best + 1]) / 2)), float(np.exp(high[best] - low[best]))


def _natural_gaps(numbers: np.ndarray, within_key: np.ndarray) -> np.ndarray | None:
    """True where the numbers jump, (images - 1,); None if no gap stands out."""
    gaps = np.maximum(np.diff(numbers), 1).astype(float)
    if within_key.sum() < 2 or np.ptp(gaps[within_key]) == 0:
        return None
    limit, times = log_threshold(gaps[within_key])
    return gaps > limit if times >= NATURAL_GAP else None


def _links(ordered: np.ndarray) -> np.ndarray:
    """For each cut the similarity of the two most alike images near it, one from either side, (images - 1,)."""
    count = len(ordered)
    links = np.full(count - 1, -1.0, np.float32)
    for distance in range(1, 2 * ACROSS):
        similarity = (ordered[:-distance] * ordered[distance:]).sum(axis=1)
        for offset in range(distance):  # the pair (i, i + distance) lies across the cuts i ... i + distance - 1
            if offset < ACROSS and distance - 1 - offset < ACROSS:
                np.maximum.at(links, np.arange(len(similarity)) + offset, similarity)
    return links


def _similarity_in_scene(vectors: np.ndarray) -> float:
    """The similarity above which two successive images count as one scene.

    The deviation is taken below the median: above it lie the pairs that really are of one scene, which may be many.
    """
    first, second = np.random.default_rng(0).integers(len(vectors), size=(2, SAMPLED_PAIRS))
    apart = first != second
    low, median = np.quantile((vectors[first[apart]] * vectors[second[apart]]).sum(axis=1), [0.16, 0.5])
    return float(median + SAME_SCENE * (median - low))


def _halved(runs: np.ndarray, links: np.ndarray, most: int) -> np.ndarray:
    """The runs (whole numbers, in order), cut at the weakest link until none has more than `most` images."""
    borders = [0, *np.flatnonzero(np.diff(runs)) + 1, len(runs)]
    waiting, starts = list(zip(borders[:-1], borders[1:], strict=True)), set(borders[:-1])
    while waiting:
        start, end = waiting.pop()
        if end - start > most:
            quarter = (end - start) // 4
            middle = slice(start + quarter, end - quarter - 1)
            border = middle.start + int(np.argmin(links[middle])) + 1
            starts.add(border)
            waiting += [(start, border), (border, end)]
    is_start = np.isin(np.arange(len(runs)), list(starts))
    return np.cumsum(is_start) - 1


def _grid_blocks(series: Series, most: int) -> np.ndarray:
    """Names of blocks of a grid: each key halved along its longer side until no block has more than `most` images."""
    ranks, blocks, count = places(series), np.empty(len(series.keys), int), 0
    waiting = group_members(series.keys)
    while waiting:
        members = waiting.pop()
        axis = int(np.argmax(np.ptp(ranks[members], axis=0)))
        along = ranks[members, axis]
        if len(members) > most and np.ptp(along) > 0:
            is_low = along <= np.sort(along)[len(along) // 2 - 1]
            if is_low.all():
                is_low = along < along.max()
            waiting += [members[is_low], members[~is_low]]
        else:
            blocks[members] = count
            count += 1
    return named(blocks)
