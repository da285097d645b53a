"""Milliseconds of each morphology step on one mask, against scipy and scikit-image, which must give the same mask.

    python benchmarks/morphology_speed.py [--repeats 7]

The methods take turns, so a busy machine slows all of them; the median counts.
"""

from collections.abc import Callable

import cv2
import numpy as np
from rle_speed import blobs, medians
from scipy import ndimage
from skimage import measure
from skimage import morphology as skimage

from lib.base.cli import plain_parser
from lib.masks import morphology

SIDES, RADII, AREA = (256, 1024), (2, 8), 64
ALL_NEIGHBOURS, CROSS = np.ones((3, 3), int), ndimage.generate_binary_structure(2, 1)

Methods = dict[str, Callable[[np.ndarray], np.ndarray]]


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each method")
    repeats = parser.parse_args().repeats
    cv2.setNumThreads(1)
    for side in SIDES:
        mask = blobs(side, side, 15)
        print(f"mask of {side} x {side}, {morphology.components(mask)[0].max()} components; milliseconds")
        for step, methods in steps().items():
            for name, method in methods.items():
                assert np.array_equal(method(mask).astype(np.uint8), methods["ours"](mask)), (step, name)
            times = medians(methods, (mask,), repeats)
            ratios = "".join(f"   {name} {value:8.2f} ({value / times['ours']:.0f} x)" for name, value in times.items())
            print(f"  {step:16}{ratios}")


def steps() -> dict[str, Methods]:
    """Each step by each library, as its documentation writes it."""
    found = {}
    for radius in RADII:
        disk = morphology.disk(radius)
        found[f"dilation {radius}"] = {
            "ours": lambda mask, radius=radius: morphology.dilation(mask, radius),
            "scipy": lambda mask, disk=disk: ndimage.binary_dilation(mask, disk),
            "skimage": lambda mask, disk=disk: skimage.dilation(mask, disk),
        }
        found[f"opening {radius}"] = {
            "ours": lambda mask, radius=radius: morphology.opening(mask, radius),
            "scipy": lambda mask, disk=disk: scipy_opening(mask, disk),
            "skimage": lambda mask, disk=disk: skimage.opening(mask, disk),
        }
    found["fill holes"] = {
        "ours": morphology.fill_holes,
        "scipy": ndimage.binary_fill_holes,
        "skimage": skimage_fill_holes,
    }
    found[f"remove <{AREA}"] = {
        "ours": lambda mask: morphology.remove_small(mask, AREA),
        "scipy": scipy_remove_small,
        "skimage": lambda mask: skimage.remove_small_objects(mask.astype(bool), max_size=AREA - 1, connectivity=2),
    }
    found["largest only"] = {"ours": morphology.keep_largest, "scipy": scipy_largest, "skimage": skimage_largest}
    return found


def scipy_opening(mask: np.ndarray, disk: np.ndarray) -> np.ndarray:
    return ndimage.binary_dilation(ndimage.binary_erosion(mask, disk, border_value=1), disk)


def scipy_remove_small(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask, ALL_NEIGHBOURS)
    areas = ndimage.sum_labels(mask, labels, np.arange(count + 1))
    return (areas >= AREA)[labels]


def scipy_largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask, ALL_NEIGHBOURS)
    return labels == 1 + np.argmax(ndimage.sum_labels(mask, labels, np.arange(1, count + 1)))


def skimage_fill_holes(mask: np.ndarray) -> np.ndarray:
    seed = mask.copy()
    seed[1:-1, 1:-1] = 1
    return skimage.reconstruction(seed, mask, method="erosion", footprint=CROSS)


def skimage_largest(mask: np.ndarray) -> np.ndarray:
    labels = measure.label(mask, connectivity=2)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


if __name__ == "__main__":
    main()
