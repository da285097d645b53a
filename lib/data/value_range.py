"""The range of values in images of more than 8 bits, and whether their scaling to 0..255 suits it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from lib.base.errors import or_none
from lib.config.data_settings import DataSettings
from lib.data.images import Images
from lib.images.headers import suffix_of
from lib.images.reading import Content, read_content
from lib.images.scaling import Range, is_nodata

SAMPLED_FILES = 32  # spread over all; each is decoded once more
EIGHT_BIT = (".jpg", ".jpeg", ".bmp", ".gif", ".webp")
LEAST_USED_SHARE = 0.1  # of the scale, which data should use
MANY = 0.25  # share of the files: a few dark images are no sign of fewer bits


class FileValues(NamedTuple):
    """The values of one image file."""

    is_eight_bit: bool
    scale: Range = None  # what becomes 0 to 255
    low: float = 0.0  # smallest of the `count` values that are finite and no "no data"
    high: float = 0.0
    count: int = 0
    clipped: int = 0  # of these, outside data.value_range
    missing: int = 0  # values that stand for no data
    size: int = 0  # all values
    has_band_left_out: bool = False


def value_range_line(images: Images) -> str:
    """Lines on the range of some images and on a band that is not read, with the setting to change if it does not suit.

    Empty for 8-bit data that is read whole. If data.value_range is set, it is applied to 8-bit images too, so they are
    then read as well.
    """
    settings = images.settings
    every = [Path(path) for image_id in images.ids for path in images.files[image_id]]
    with_eight_bit = isinstance(settings.value_range, tuple)
    paths = [path for path in every if with_eight_bit or suffix_of(path) not in EIGHT_BIT]
    sampled = paths[:: -(-len(paths) // SAMPLED_FILES) or 1]
    files = [measured for path in sampled if (measured := _measured(path, settings)) is not None]
    with_values = [file for file in files if file.count]
    bands = _describe_band(sum(file.has_band_left_out for file in files), len(files), settings.channels)
    if not with_values:
        return bands
    low, high = min(file.low for file in with_values), max(file.high for file in with_values)
    described = f"values from {low:.9g} to {high:.9g} in {len(with_values)} of {len(every)} image files read"
    if settings.nodata:
        missing = sum(file.missing for file in files) / sum(file.size for file in files)
        described += f", {missing:.1%} of them no data"
    has_eight_bit = len({file.is_eight_bit for file in files}) > 1 or len(paths) < len(every)
    return _judged(described, (low, high), with_values, has_eight_bit, settings.value_range is not None) + bands


def _describe_band(count: int, of: int, channels: int) -> str:
    """A warning on the files whose fourth plane is left out as if it were transparency; empty without any."""
    if not count:
        return ""
    return (
        f"warning   the fourth plane of {count} of {of} image files read varies as a band does, such as near infrared, "
        f"and not as transparency; data.channels={channels} leaves it out, data.channels=4 reads it\n"
    )


def _measured(path: Path, settings: DataSettings) -> FileValues | None:
    """The values of a file, not counted where they stay as they are; None for bool and for what cannot be read."""
    content = or_none(read_content, path, settings.max_pixels, False, settings.channels)
    if content is None or content.values.dtype.kind == "b":  # the check of every image reports the errors
        return None
    content = content.in_units()
    is_eight_bit, has_band = content.full_range == (0, 255), _leaves_band_out(content, settings)
    if is_eight_bit and not isinstance(settings.value_range, tuple):
        return FileValues(is_eight_bit, has_band_left_out=has_band)
    values = content.values if settings.plane is None else content.values[:, :, settings.plane : settings.plane + 1]
    known = values[~is_nodata(values, settings.nodata)]
    finite = known[np.isfinite(known)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scale, clipped = settings.value_range or content.full_range, 0
    if isinstance(settings.value_range, tuple):
        clipped = np.count_nonzero((finite < scale[0]) | (finite > scale[1]))
    missing = values.size - known.size
    return FileValues(is_eight_bit, scale, low, high, finite.size, clipped, missing, values.size, has_band)


def _leaves_band_out(content: Content, settings: DataSettings) -> bool:
    """Whether a fourth plane that is left out is no transparency: most of its pixels are neither clear nor opaque."""
    values = content.values
    if values.shape[2] != 4 or settings.channels == 4 or settings.plane is not None or not content.is_picture:
        return False
    fourth, opaque = values[:, :, 3], (content.full_range or (0, 1))[1]
    return np.count_nonzero((fourth != 0) & (fourth != opaque)) > fourth.size / 2


def _judged(
    described: str, found: tuple[float, float], files: list[FileValues], has_eight_bit: bool, is_declared: bool
) -> str:
    """The line; a warning if values are clipped, or if all files, or many with no declared scale, use little of it."""
    scale, (low, high) = files[-1].scale, found
    if scale is None or scale == "image":
        return f"checked   {described}\n"
    described += f"; {scale[0]:g} to {scale[1]:g} become 0 to 255"
    remedy = (
        f"data.value_range=[{low:.9g}, {high:.9g}] covers all values found (data.nodata names those that mean no data)"
    )
    if has_eight_bit:
        remedy = "data.value_range=image takes each image's own range, as some are of 8 bits and others of more"
    if clipped := sum(file.clipped for file in files) / sum(file.count for file in files):
        return f"warning   {described}, and {clipped:.2%} of the values are clipped; {remedy}\n"
    least = LEAST_USED_SHARE * (scale[1] - scale[0])
    if 0 < high - low < least:
        used = (high - low) / (scale[1] - scale[0])
        return f"warning   {described}, of which they use {used:.1%}; {remedy}\n"
    dark = sum(0 < file.high - file.low < least for file in files)
    if dark > MANY * len(files) and not is_declared:
        return (
            f"warning   {described}, of which {dark} of the {len(files)} use less than {LEAST_USED_SHARE:.0%}: if "
            "these are of fewer bits than the others, data.value_range=image takes each image's own range\n"
        )
    return f"checked   {described}\n"
