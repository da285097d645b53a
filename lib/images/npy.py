"""Arrays as images: npy files, and which axis holds the planes."""

from pathlib import Path

import numpy as np

from lib.base.errors import DamagedImage, UserError, one_line


def map_npy(path: Path) -> np.ndarray:
    """The array of an npy file, memory-mapped. Raises UserError for a missing or damaged file."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"image {path} does not exist") from None
    except Exception as error:  # numpy raises whatever its parser of the header stumbles over
        raise DamagedImage(f"{path} is not a whole npy file of numbers: {one_line(error)}") from None


def as_planes(array: np.ndarray, path: Path, channels: int | None) -> np.ndarray:
    """View an array as (height, width, planes).

    The planes are on the first or the last axis: on the one that is as long as there are `channels`, or else on the
    shorter one. Raises UserError for other than two or three axes, and for values that are no numbers.
    """
    if array.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of type {array.dtype}, not numbers")
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(array.shape.index(1))
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(
            f"{path} has shape {array.shape}, not (height, width) or (height, width, planes); save each image or slice "
            "as a file of its own, such as {case}_{slice}.npy (docs/inputs.md has the lines)"
        )
    if array.ndim == 2:
        return array[:, :, None]
    first, last = array.shape[0], array.shape[2]
    fits = [length == channels for length in (first, last)]
    on_first_axis = first < last if fits[0] == fits[1] else fits[0]
    return np.moveaxis(array, 0, 2) if on_first_axis else array
