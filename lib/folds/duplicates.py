"""Duplicate images: exact ones by their pixels, near ones by a perceptual hash, and the groups they form.

A duplicate in another fold inflates the score, so duplicates must share a fold.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lib.base.errors import has, plural
from lib.images.hashes import BITS
from lib.masks.metrics import count_masks, dice, known_only

NEAR_BITS = 32  # the most of the 255 bits in which near duplicates differ; unrelated images differ in about 128
WORDS = (BITS + 1) // 64
CACHE_BYTES = 1 << 20  # of one block of comparisons


def near_links(hashes: Sequence[str], limit: int = NEAR_BITS) -> np.ndarray:
    """Near duplicates as links (i, j, differing bits), i < j, int64 (links, 3), sorted; each set is linked as a tree.

    Two hashes are linked, directly or by a chain, exactly if steps of at most `limit` differing bits lead from one to
    the other; among such trees this one has the fewest bits. All pairs are compared, in blocks: memory does not grow
    with the number of pairs, time grows with its square (25 s for 50,000 images on one slow core).
    """
    known = np.array([index for index, text in enumerate(hashes) if text], np.int64)
    words = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(len(known), WORDS)
    rows = max(1, CACHE_BYTES // (8 * max(len(known), 1)))
    links = np.empty((0, 3), np.int64)
    for start in range(0, len(known), rows):
        block, others = words[start : start + rows], words[start:]
        half = sum(np.bitwise_count(block[:, None, word] ^ others[None, :, word]) for word in range(WORDS // 2))
        first, second = np.nonzero(half <= limit)  # only these few need the other half of the bits
        bits = np.bitwise_count(block[first] ^ others[second]).sum(axis=1, dtype=np.int64)
        close = (bits <= limit) & (first < second)
        if close.any():
            new = np.stack([start + first[close], start + second[close], bits[close]], axis=1)
            links = _shortest_trees(np.concatenate([links, new]), len(known))
    links[:, :2] = known[links[:, :2]]
    return links


def _shortest_trees(links: np.ndarray, nodes: int) -> np.ndarray:
    """The links of a minimum spanning forest, sorted; at most nodes - 1 of them."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    weights = links[:, 2] + 1  # scipy takes a weight of 0 for no link
    graph = coo_matrix((weights, (links[:, 0], links[:, 1])), shape=(nodes, nodes)).tocsr()
    forest = minimum_spanning_tree(graph).tocoo()
    kept = np.stack([forest.row, forest.col, forest.data.astype(np.int64) - 1], axis=1).astype(np.int64)
    return kept[np.lexsort((kept[:, 1], kept[:, 0]))]


def duplicates_table(images: pd.DataFrame, links: np.ndarray, read_mask: Callable[[str], np.ndarray]) -> pd.DataFrame:
    """The duplicates among the images, one row per pair, for people to look at.

    Columns: id, duplicate_id, kind (exact or near), differing_bits (of the perceptual hash), mask_dice (of the two
    masks, mean over classes; missing if their sizes differ). Exact duplicates are all paired with the first of them by
    id; near pairs are the links.
    """
    ids, pixels = images.id.to_numpy(), images.sha256.to_numpy()
    first = images.sort_values("id").groupby("sha256").id.transform("first").reindex(images.index)
    exact = [(id, duplicate, "exact", 0) for id, duplicate in zip(first, ids, strict=True) if id != duplicate]
    near = [(*sorted((ids[i], ids[j])), "near", bits) for i, j, bits in links if pixels[i] != pixels[j]]
    table = pd.DataFrame(sorted(exact) + sorted(near), columns=["id", "duplicate_id", "kind", "differing_bits"])
    pairs = zip(table.id, table.duplicate_id, strict=True)
    return table.assign(mask_dice=[_mask_dice(*map(read_mask, pair)) for pair in pairs])


def describe_duplicates(duplicates: pd.DataFrame) -> str:
    """A line with the number of duplicates, and a second one if exact duplicates have different masks."""
    exact, near = duplicates[duplicates.kind == "exact"], duplicates[duplicates.kind == "near"]
    text = f"{len(exact)} exact and {len(near)} near duplicates"
    conflicts = exact[exact.mask_dice < 1].sort_values("mask_dice", kind="stable")
    if len(conflicts):
        worst = conflicts.iloc[0]
        differing = "a different mask from its twin" if len(conflicts) == 1 else "different masks from their twins"
        text += (
            f"\n{plural(len(conflicts), 'exact duplicate')} {has(conflicts.id)} {differing}; the lowest Dice is "
            f"{worst.mask_dice:.2f}, of '{worst.id}' and '{worst.duplicate_id}'; data.exclude leaves images out"
        )
    return text


def merged_groups(images: pd.DataFrame, links: np.ndarray) -> np.ndarray:
    """The group of each image: images that share a given group, the same pixels or a link, directly or by a chain.

    `images` has the columns id, group (missing: a group of its own) and sha256; `links` is the result of near_links for
    its rows. Of the names of its members, the given group or else the id, a group takes the first in sorted order.
    """
    names = images.group.where(images.group.notna(), images.id).astype(str)
    count = len(images)
    group_nodes = count + pd.factorize(names)[0]
    pixel_nodes = count + count + pd.factorize(images.sha256)[0]
    image_nodes = np.arange(count)
    start = np.concatenate([image_nodes, image_nodes, links[:, 0]])
    end = np.concatenate([group_nodes, pixel_nodes, links[:, 1]])
    component = linked(start, end, 3 * count)[:count]
    unique, rank = np.unique(names.to_numpy(), return_inverse=True)
    first = np.full(count, len(unique))
    np.minimum.at(first, component, rank)
    return unique[first[component]]


def joined(groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The groups, whole numbers from 0, of images that share a group in either way, directly or by a chain."""
    count, images = len(groups), np.arange(len(groups))
    ends = np.concatenate([count + groups, count + groups.max() + 1 + others])
    return linked(np.tile(images, 2), ends, ends.max() + 1)[:count]


def linked(start: np.ndarray, end: np.ndarray, nodes: int) -> np.ndarray:
    """The connected component of each node, whole numbers from 0; the links lead from `start` to `end`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1]


def _mask_dice(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over classes of the Dice of two masks (height, width, classes); NaN if their sizes differ."""
    if first.shape != second.shape:
        return np.nan
    second, first = known_only(second, first)
    return float(dice(*count_masks(first, second)).mean())
