"""From stored values to 0..255: the scale of data.value_range, and values that stand for no data (data.nodata)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.base.errors import UserError

Range = tuple[float, float] | str | None  # low and high; "image": the image's own; None: none is known
NoData = Sequence[float | str]  # numbers, and "nan"


def is_nodata(values: np.ndarray, nodata: NoData) -> np.ndarray:
    """True where values mean "no data", of their shape. A number is compared in the type of the values."""
    missing = np.zeros(values.shape, bool)
    for value in nodata:
        if value != "nan":
            missing |= values == float(value)
        elif values.dtype.kind == "f":
            missing |= np.isnan(values)
    return missing


def to_uint8(values: np.ndarray, value_range: Range, missing: np.ndarray | None, path: Path) -> np.ndarray:
    """Map low..high to 0..255 and clip what is outside; a constant image by its own range becomes 0.

    Values that are `missing` (bool) are no part of the range and become 0. Raises UserError without a range, and for
    other values that are not finite.
    """
    if value_range is None:
        raise UserError(f"{path} holds {values.dtype} values; set data.value_range to [low, high] or image")
    known = values if missing is None else values[~missing]
    if values.dtype.kind == "f" and not np.isfinite(known).all():
        hint = "; set data.nodata=nan if NaN stands for no data" if np.isnan(known).any() else ""
        raise UserError(f"{path} holds values that are not finite{hint}")
    if value_range == "image":
        low, high = (known.min(), known.max()) if known.size else (0, 0)
    else:
        low, high = value_range
    scale = 255 / (float(high) - float(low)) if high > low else 0
    floats = values.astype(np.float32)
    if missing is not None:
        floats[missing] = low
    return np.rint(np.clip((floats - float(low)) * scale, 0, 255)).astype(np.uint8)
