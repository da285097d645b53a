"""The values in the mask files, counted while stage 01 reads them, and the check that the settings explain them.

Certain without a setting is only this: one plane and two values, one of them 0. Everything else is an error that shows
the values and names the settings that give them a meaning.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median

import numpy as np

from lib.base.errors import UserError, plural
from lib.config.data_settings import DataSettings
from lib.config.mask_settings import MaskSettings, is_near
from lib.images.mask_values import BLACK, LOSSY_FORMATS, MaskPixels, Value, count_values, foreground, hex_colours

MOST_VALUES = 4096  # counted one by one
SHOWN_VALUES = 8
MUCH = 2 / 3  # of all pixels; objects rarely cover more
MOST_STRAY_VALUES = 64  # without a class; more of them suggest soft masks or lossy files
MOST_TOLERANT = 127  # the largest tolerance of all
TINY = 5  # pixels of a colour, fewer than which objects hardly have; mixed colours at their borders do
MOST_OF_LOSSY_ONES = 3  # the largest value of a JPEG in which 1 was stored as mask
BACKGROUND = {0, BLACK}


@dataclass
class ValueCounts:
    """The pixels of each value over many mask files, and the doubts about what the values mean."""

    pixels: Counter = field(default_factory=Counter)  # by number or index, or by colour as #rrggbb
    others: int = 0  # pixels of further values, once there are MOST_VALUES
    palette: dict[Value, str] = field(default_factory=dict)  # colours of the indexes that occur
    files: int = 0
    objects: int = 0  # numbers and colours but 0, black and ignored ones, summed over the files
    wholly_ignored: int = 0  # files of which every pixel is ignored
    doubts: dict[str, str] = field(default_factory=dict)  # the first file of each kind of doubt

    def add(self, pixels: MaskPixels, path: str, settings: MaskSettings, is_alone: bool) -> None:
        """Count a file's pixels. `is_alone`: no other file holds objects of the same image and class."""
        values = count_values(pixels, settings.are_colours)
        self._count(values)
        self.files += 1
        self.objects += len(values.keys() - BACKGROUND - {*settings.ignore})
        if settings.ignore and values.keys() <= {*settings.ignore}:
            self.wholly_ignored += 1
            self.doubts.setdefault("ignored", path)
        if pixels.palette is not None and not settings.are_colours:
            self.palette |= {index: hex_colours(pixels.palette[[index]])[0] for index in values}
            if any((index > 0) != (self.palette[index] != BLACK) for index in values):
                self.doubts.setdefault("palette", path)
        if len(values) > 2 and pixels.format in LOSSY_FORMATS:
            self.doubts.setdefault("lossy", path)
        if pixels.format == "JPEG" and 0 < np.max(pixels.values) <= MOST_OF_LOSSY_ONES:
            self.doubts.setdefault("faint", path)
        if pixels.are_colours and not pixels.is_picture:
            self.doubts.setdefault("planes", path)
        if not is_alone and len(values) > 2:
            self.doubts.setdefault("several", path)
        if settings.alpha is None and _alpha_contradicts(pixels, settings):
            self.doubts.setdefault("alpha", path)

    def merge(self, other: "ValueCounts") -> None:
        """Add the counts of other files."""
        self._count(other.pixels)
        self.others += other.others
        self.files += other.files
        self.objects += other.objects
        self.wholly_ignored += other.wholly_ignored
        self.palette |= other.palette
        self.doubts = other.doubts | self.doubts

    def _count(self, values: dict[Value, int]) -> None:
        for value, count in values.items():
            if value in self.pixels or len(self.pixels) < MOST_VALUES:
                self.pixels[value] += count
            else:
                self.others += count

    def shown(self, values: list[Value]) -> str:
        """The values with their shares of all pixels, the most common first."""
        whole = self.pixels.total() + self.others
        chosen = sorted(values, key=lambda value: -self.pixels[value])
        names = {value: f"{value} = {self.palette[value]}" if value in self.palette else f"{value}" for value in chosen}
        words = [f"{names[value]} ({_percent(self.pixels[value] / whole)})" for value in chosen[:SHOWN_VALUES]]
        rest = len(chosen) - SHOWN_VALUES
        return ", ".join(words) + (f" and {rest}{' or more' if self.others else ''} other values" if rest > 0 else "")


def _alpha_contradicts(pixels: MaskPixels, settings: MaskSettings) -> bool:
    """Whether an alpha plane may be the mask: it varies, but differently from the values."""
    alpha = pixels.alpha
    if alpha is None or alpha.min() == alpha.max():
        return False
    return not np.array_equal(alpha > 0, foreground(pixels, settings))


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"


def explain_values(counts: ValueCounts, settings: DataSettings) -> str:
    """The meaning of the values of all mask files, to print. Raises UserError if the settings leave it uncertain."""
    masks = settings.masks
    described = (
        f"{plural(counts.files, 'mask file')} of {settings.root / settings.train_masks} "
        f"{'holds' if counts.files == 1 else 'hold'} {counts.shown(counts.pixels)}"
    )
    if "alpha" in counts.doubts:
        doubt = (
            f"{counts.doubts['alpha']} has an alpha plane that differs from its values; set data.masks.alpha=true "
            "where it is the mask, or =false where it means nothing"
        )
    elif masks.values:
        doubt = _doubt_of_classes(counts, masks)
    elif masks.above is not None:
        doubt = None if max(counts.pixels) > masks.above else f"none is above data.masks.above = {masks.above:g}"
    else:
        doubt = _doubt_by_default(counts, settings)
    if doubt:
        raise UserError(f"{described}; {doubt}")
    return f"{described}: {_meaning(counts, settings)}"


def warnings(counts: ValueCounts, settings: DataSettings) -> list[str]:
    """Warnings about masks that look wrong although the settings explain them: mostly mask, or ignored throughout."""
    background = sum(counts.pixels[value] for value in BACKGROUND)
    lines, share = [], 1 - background / max(counts.pixels.total(), 1)
    if not settings.masks.say_what_is_mask and len(counts.pixels) <= 2 and share > MUCH:
        lines.append(f"{_percent(share)} of the pixels are mask; set data.masks.inverted=true if 0 is the mask")
    are_labels = settings.instances and not settings.masks.say_what_is_mask and len(counts.pixels) > 2
    if are_labels and 255 in {*counts.pixels} - {*settings.masks.ignore} and 254 not in counts.pixels:
        lines.append("255 is taken for an object; set data.masks.ignore=255 if it marks borders or unlabelled pixels")
    colours = _colours(counts)
    if colours and not settings.masks.say_what_is_mask and median(counts.pixels[each] for each in colours) < TINY:
        lines.append(
            f"each colour is an object, and most of {len(colours)}{' or more' if counts.others else ''} colours have "
            f"fewer than {TINY} pixels: if interpolation has mixed colours, use the masks as they were before"
        )
    if "faint" in counts.doubts:
        lines.append(
            f"{counts.doubts['faint']} is a JPEG of the values 0 and 1, so small a difference that JPEG loses much of "
            "the masks' borders; use the masks from which it was made, if there are any"
        )
    if counts.wholly_ignored:
        lines.append(
            f"{plural(counts.wholly_ignored, 'mask file')} ignored throughout, such as {counts.doubts['ignored']}: an "
            "image of which nothing is known teaches nothing and scores like an empty one that is right; leave such "
            "images out with data.exclude"
        )
    return lines


def _meaning(counts: ValueCounts, settings: DataSettings) -> str:
    masks = settings.masks
    ignored = f", {_written(masks.ignore)} ignored" if masks.ignore else ""
    if masks.values:
        names = ", ".join(f"{name} {_written(values)}" for name, values in masks.values.items())
        rest = _without_class(counts, masks)
        return names + (f", background {counts.shown(rest)}" if rest else "") + ignored
    if masks.above is not None:
        return f"mask is {'not ' if masks.inverted else ''}above {masks.above:g}{ignored}"
    if settings.instances and (len(counts.pixels) > 2 or _colours(counts)):
        kind = "colour but black" if _colours(counts) else "number but 0"
        return f"each {kind} is an object, {counts.objects} in all{ignored}"
    return f"0 is {'mask' if masks.inverted else 'background'}{ignored}"


def _colours(counts: ValueCounts) -> set[str]:
    return {value for value in counts.pixels if isinstance(value, str)}


def _without_class(counts: ValueCounts, masks: MaskSettings, tolerance: int | None = None) -> list[Value]:
    """The values of no class, with data.masks.tolerance or another."""
    known, tolerance = masks.all_values, masks.tolerance if tolerance is None else tolerance
    return [value for value in counts.pixels if not any(is_near(value, each, tolerance) for each in known)]


def _written(values: list[Value]) -> str:
    return " or ".join(map(str, values))


def _doubt_of_classes(counts: ValueCounts, masks: MaskSettings) -> str | None:
    """The doubt about the values of data.classes: one does not occur, or there are far more without a class."""
    for name, values in masks.values.items():
        if not any(is_near(seen, value, masks.tolerance) for value in values for seen in counts.pixels):
            return f"none of them is of the class {name}, which is {_written(values)} by data.classes"
    strays = len(_without_class(counts, masks))
    if strays <= MOST_STRAY_VALUES and not counts.others:
        return None
    described = f"{strays}{' or more' if counts.others else ''} are of no class"
    if not masks.are_colours:
        return f"{described}: set data.masks.above in the place of values in data.classes if the masks are soft"
    largest = _largest_tolerance(masks)
    if len(_without_class(counts, masks, largest)) <= MOST_STRAY_VALUES and not counts.others:
        return (
            f"{described}: set data.masks.tolerance (now {masks.tolerance}, at most {largest}) if the files are lossy"
        )
    return (
        f"{described}, and no data.masks.tolerance explains them: resizing with interpolation or compression has mixed "
        "the colours; use the masks as they were before, or resized to the nearest pixel and saved as png"
    )


def _largest_tolerance(masks: MaskSettings) -> int:
    """The largest data.masks.tolerance that may be set, as it keeps all colours apart."""
    pairs = [*combinations({*masks.all_values}, 2)]
    allowed = (t for t in range(MOST_TOLERANT, 0, -1) if not any(is_near(*pair, 2 * t) for pair in pairs))
    return next(allowed, 0)


def _doubt_by_default(counts: ValueCounts, settings: DataSettings) -> str | None:
    """The reason why the values have no certain meaning by themselves, and the settings that give them one."""
    name, values = settings.classes[0], set(counts.pixels) - set(settings.masks.ignore)
    if colours := _colours(counts):
        example = _likely_mask(counts, colours & values or colours)
        are_objects = values & BACKGROUND and not counts.doubts.keys() & {"several", "lossy", "planes"}
        if settings.instances and are_objects:
            return None
        objects = ", or set data.instances=true where each colour is an object" if are_objects else ""
        if "planes" in counts.doubts:
            objects = f", or set data.masks.object_planes=true if planes of {counts.doubts['planes']} are objects"
        return f'say which colours are mask, as in data.classes={{{name}: "{example}"}}{objects}'
    if "palette" in counts.doubts:
        example = _likely_mask(counts, counts.palette.keys() & values or counts.palette.keys())
        return (
            f"{counts.doubts['palette']} has a palette whose index 0 is not its black; say which is mask, by index or "
            f'by colour: data.classes={{{name}: {example}}} or data.classes={{{name}: "{counts.palette[example]}"}}'
        )
    if "several" in counts.doubts:
        return (
            f"{counts.doubts['several']} holds several objects, but so do other files of its image; set "
            f"data.masks.above={_middle(values)} if the masks are soft"
        )
    if "lossy" in counts.doubts:
        return (
            f"{counts.doubts['lossy']} is a lossy file, whose values are not exact; set "
            f"data.masks.above={_middle(values)} if all that is bright is mask"
        )
    if len(values) > 2 and any(value != int(value) for value in values):
        return f"they are not whole numbers; set data.masks.above={_middle(values)} if they are soft masks"
    if len(values) < 2:
        state = "empty" if values <= {0} else "full"
        return f"all masks are {state}: check data.train_masks and data.masks"
    if 0 in values and (len(values) == 2 or (settings.instances and min(values) == 0)):
        return None
    example = max(values, key=lambda value: value not in BACKGROUND)
    only_one = f"data.classes={{{name}: {example}}} where only that is mask"
    remedies = [
        f"{only_one} (data.masks.ignore=255 for values that count nowhere)",
        f"data.masks.above={_middle(values)} where the masks are soft or lossy",
        *([] if settings.instances else ["data.instances=true where each value is an object"]),
    ]
    if len(values) > SHOWN_VALUES:
        remedies.reverse()
    return f"say what they mean: {', '.join(remedies)}"


def _likely_mask(counts: ValueCounts, values: Collection[Value]) -> Value:
    """The most common of some colours or indexes that is most likely no background, as black and the first one are."""
    first, *others = sorted(values, key=lambda value: (-counts.pixels[value], value))
    return next((value for value in [*others, first] if value != BLACK), first)


def _middle(values: set[Value]) -> int | float:
    """A limit between background and mask; lossy files of 0 and 1 hold 2 and 3, too."""
    if min(values) == 0 and 1 < max(values) <= MOST_OF_LOSSY_ONES:
        return 0.5
    middle = (min(values) + max(values)) / 2
    return int(middle) if max(values) > 1 else middle
