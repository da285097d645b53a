"""The range of values in images of more than 8 bits, and whether their scaling to 0..255 suits it."""

from pathlib import Path

import numpy as np

from lib.base.errors import UserError
from lib.data.competition import Images
from lib.data.headers import suffix_of
from lib.data.images import read_content
from lib.data.scaling import is_nodata

SAMPLED_FILES = 32  # spread over all; each is decoded once more
EIGHT_BIT = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")
LEAST_USED_SHARE = 0.1  # of the scale, which data should use


def value_range_line(images: Images) -> str:
    """A line with the range of some images, and the setting to change if it does not suit; empty for 8-bit data.

    If data.value_range is set, it is applied to 8-bit images too, so they are then read as well.
    """
    settings = images.settings
    every = [Path(path) for image_id in images.ids for path in images.files[image_id]]
    with_eight_bit = isinstance(settings.value_range, tuple)
    paths = [path for path in every if with_eight_bit or suffix_of(path) not in EIGHT_BIT]
    ranges, depths, outside, count, missing, everything, scale = [], set(), 0, 0, 0, 0, None
    for path in paths[:: -(-len(paths) // SAMPLED_FILES) or 1]:
        try:
            content = read_content(path, settings.max_pixels)
        except UserError:
            continue  # the check of every image reports it
        if content.values.dtype.kind == "b":
            continue
        depths.add(content.full_range == (0, 255))
        if content.full_range == (0, 255) and not with_eight_bit:
            continue
        values = content.values if settings.plane is None else content.values[:, :, settings.plane : settings.plane + 1]
        known = values[~is_nodata(values, settings.nodata)]
        missing, everything = missing + values.size - known.size, everything + values.size
        values = known[np.isfinite(known)]
        if not values.size:
            continue
        ranges.append((float(values.min()), float(values.max())))
        scale = settings.value_range or content.full_range
        if isinstance(settings.value_range, tuple):
            outside += np.count_nonzero((values < scale[0]) | (values > scale[1]))
        count += values.size
    if not ranges:
        return ""
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    described = f"values from {low:.9g} to {high:.9g} in {len(ranges)} of {len(every)} image files read"
    if settings.nodata:
        described += f", {missing / everything:.1%} of them no data"
    are_mixed = len(depths) > 1 or len(paths) < len(every)
    return _judged(described, low, high, scale, outside / count, are_mixed)


def _judged(
    described: str, low: float, high: float, scale: tuple[float, float] | str | None, outside: float, are_mixed: bool
) -> str:
    """The line; a warning if values are clipped or use little of the scale."""
    if scale is None or scale == "image":
        return f"checked   {described}\n"
    made = f"{scale[0]:g} to {scale[1]:g} become 0 to 255"
    remedy = (
        f"data.value_range=[{low:.9g}, {high:.9g}] covers all values found (data.nodata names those that mean no data)"
    )
    if are_mixed:
        remedy = "data.value_range=image takes each image's own range, as some are of 8 bits and others of more"
    if outside:
        return f"warning   {described}; {made}, and {outside:.2%} of the values are clipped; {remedy}\n"
    if 0 < high - low < LEAST_USED_SHARE * (scale[1] - scale[0]):
        used = (high - low) / (scale[1] - scale[0])
        return f"warning   {described}; {made}, of which they use {used:.1%}; {remedy}\n"
    return f"checked   {described}; {made}\n"
