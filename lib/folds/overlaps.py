"""Images that share pixels, such as crops of one photo that overlap: seen on thumbnails, whatever the ids say.

The most similar images are laid upon each other at the shift at which their details agree most. Crops that were turned,
mirrored or scaled are not recognised, nor are those that share less than a third of their area.
"""

import cv2
import numpy as np
from scipy.fft import irfft2, rfft2

from lib.folds.duplicates import linked
from lib.images.hashes import THUMBNAIL

CANDIDATES = 4  # most similar other images that each image is laid upon, at least
PAIRS = 4000  # of few images more candidates are taken, up to so many pairs
LEAST_SHARE = 0.33  # of the area
LEAST_SHIFT = 5  # pixels of a thumbnail; at the same place all images of a microscope may have their rim
LIKELY = 0.5  # correlation of the details, below which their parts are not compared
SAME = 0.7  # median correlation of the parts: one spot in common is no overlap
SIZE = 2 * THUMBNAIL  # of the padded images whose products are taken at all shifts
SHIFTS = np.minimum(np.arange(SIZE), SIZE - np.arange(SIZE))  # pixels, of either sign
AREA = np.outer(THUMBNAIL - SHIFTS, THUMBNAIL - SHIFTS)  # that two images have in common at each shift
PARTS = 3  # each way
FINE, COARSE = 1.0, 3.0  # pixels of a thumbnail: standard deviations of the blurs between which details lie
PLAIN = 1.0  # gray levels; less detail is too little to compare
FEWEST, WORTH_SAYING = 10, 0.05  # images that overlap another one: number, and share of all
MORE = 5  # times as many pairs agree as with one image mirrored; stripes and single spots agree mirrored as well


def overlap_groups(thumbnails: np.ndarray, vectors: np.ndarray) -> np.ndarray | None:
    """Groups of images that overlap, directly or by a chain, as numbers; None if too few do, or mirrored ones as well.

    `thumbnails` are uint8 (images, 64, 64), `vectors` the images' `unit_vectors`.
    """
    similar = _similar_pairs(vectors)
    if not len(similar):
        return None
    details = [details_of(thumbnail) for thumbnail in thumbnails]
    agreeing = similar[_agree(details, details, similar)]
    if len(np.unique(agreeing)) < max(FEWEST, WORTH_SAYING * len(vectors)):
        return None
    mirrored = [None if of_image is None else of_image[:, ::-1] for of_image in details]
    by_chance = _agree(details, mirrored, similar).sum() + 1  # even if none is found, chance may make some
    if len(agreeing) < MORE * by_chance:
        return None
    return linked(*agreeing.T, len(vectors))


def details_of(thumbnail: np.ndarray) -> np.ndarray | None:
    """What is finer than a blur, float32 (64, 64); None for a plain image."""
    gray = thumbnail.astype(np.float32)
    details = cv2.GaussianBlur(gray, (0, 0), FINE) - cv2.GaussianBlur(gray, (0, 0), COARSE)
    return details if details.std() >= PLAIN else None


def agreement(first: np.ndarray | None, second: np.ndarray | None) -> float:
    """How well details agree, -1 to 1, at the shift at which they do most; 0 if one is plain or that is no shift.

    The overlap is cut into nine parts; the result is the median of their correlations, a plain part counting 0.
    """
    if first is None or second is None:
        return 0.0
    products = irfft2(rfft2(first, (SIZE, SIZE)) * np.conj(rfft2(second, (SIZE, SIZE))), (SIZE, SIZE))
    means = np.where(AREA < LEAST_SHARE * THUMBNAIL**2, -np.inf, products / np.maximum(AREA, 1))
    down, right = (int(shift) for shift in np.unravel_index(means.argmax(), means.shape))
    if max(SHIFTS[down], SHIFTS[right]) < LEAST_SHIFT:
        return 0.0
    rows, columns = (_overlap(shift if shift < THUMBNAIL else shift - SIZE) for shift in (down, right))
    common = np.stack([first[rows[0], columns[0]], second[rows[1], columns[1]]])
    whole = _correlation(common)
    if whole < LIKELY:
        return whole
    parts = [part for band in np.array_split(common, PARTS, axis=1) for part in np.array_split(band, PARTS, axis=2)]
    return float(np.median([_correlation(part) for part in parts]))


def _agree(details: list[np.ndarray | None], others: list[np.ndarray | None], pairs: np.ndarray) -> np.ndarray:
    return np.array([agreement(details[first], others[second]) >= SAME for first, second in pairs.tolist()])


def _overlap(shift: int) -> tuple[slice, slice]:
    """The rows of a first and a second image that lie upon each other when the second is moved down by `shift`."""
    return slice(max(0, shift), THUMBNAIL + min(0, shift)), slice(max(0, -shift), THUMBNAIL - max(0, shift))


def _correlation(both: np.ndarray) -> float:
    first, second = both - both.mean(axis=(1, 2), keepdims=True)
    deviations = first.std(), second.std()
    return float((first * second).mean() / np.prod(deviations)) if min(deviations) >= PLAIN else 0.0


def _similar_pairs(vectors: np.ndarray) -> np.ndarray:
    """Each image with the most similar other ones, each pair once, sorted, int (pairs, 2)."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    count = min(max(CANDIDATES, PAIRS // len(vectors)), len(vectors) - 1)
    if count < 1:
        return np.empty((0, 2), int)
    others = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    pairs = np.stack([np.repeat(np.arange(len(vectors)), count), others.ravel()], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)
