"""The settings that say what the pixels of mask files mean."""

import re
from itertools import combinations
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from lib.config.section import Section, Word

HEX = re.compile(r"#[0-9a-fA-F]{6}")
TRIPLE = re.compile(r"(\d{1,3})[ ,]+(\d{1,3})[ ,]+(\d{1,3})")


def _pixel_value(value: object) -> int | str:
    """A number unchanged; a colour as #rrggbb, given as "#rrggbb", "128 64 0" or, inside a list, [128, 64, 0]."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if HEX.fullmatch(value.strip()):
            return value.strip().lower()
        triple = TRIPLE.fullmatch(value.strip())
        value = [int(part) for part in triple.groups()] if triple else None
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return "#{:02x}{:02x}{:02x}".format(*value)
    raise ValueError('must be a whole number, or a colour in quotes: "#804000" or "128 64 0"')


PixelValue = Annotated[int | str, BeforeValidator(_pixel_value)]
PixelValues = Annotated[list[PixelValue], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]


class MaskSettings(Section):
    """The meaning of the pixels of mask files.

    Without any of these settings, 0 is background and the only other value is mask; anything else is an error. Numbers
    mean gray values, or indexes of files with a colour palette; colours mean those of RGB files or of the palette.
    """

    values: dict[Word, PixelValues] = {}  # per class; write them as data.classes: {nucleus: 1, border: [2, 3]}
    ignore: PixelValues = []  # pixels with these values are left out of the loss, the thresholds and the scores
    tolerance: Annotated[int, Field(ge=0, le=127)] = 0  # largest difference in R, G and B that still matches a colour
    above: float | None = None  # soft or lossy masks (jpg): pixels above this value are mask
    inverted: bool = False  # swap mask and background
    alpha: bool | None = None  # true: the alpha channel is the mask; false: ignore it; null: error if it contradicts
    miniswhite: Literal["stored", "shown"] | None = None  # tif that shows 0 as white: read the stored or shown values
    object_planes: bool = False  # each plane of a file is the mask of one object, e.g. npy (objects, height, width)
    rescale: bool = False  # masks of another size but the image's shape are resized to it (nearest)

    @property
    def are_colours(self) -> bool:
        """Whether classes are distinguished by colour."""
        return any(isinstance(value, str) for value in self.all_values)

    @property
    def all_values(self) -> list[int | str]:
        """All values of the classes and of ignored pixels."""
        return [value for values in self.values.values() for value in values] + self.ignore

    @property
    def say_what_is_mask(self) -> bool:
        """Whether the settings define which values are mask (otherwise: every value but 0)."""
        return bool(self.values) or self.above is not None or self.inverted

    @property
    def are_exclusive(self) -> bool:
        """Whether no value belongs to two classes."""
        values = [value for values in self.values.values() for value in values]
        return len(set(values)) == len(values)

    @model_validator(mode="after")
    def _one_meaning(self) -> "MaskSettings":
        if self.values and (self.above is not None or self.inverted):
            raise ValueError("above and inverted cannot be set when data.classes gives the values of each class")
        if self.object_planes and (self.say_what_is_mask or self.ignore or self.alpha):
            raise ValueError(
                "with object_planes every value but 0 is mask; values, ignore, above, inverted and alpha cannot be set"
            )
        if len({type(value) for value in self.all_values}) > 1:
            raise ValueError("the values of data.classes and masks.ignore must all be numbers or all be colours")
        if self.tolerance and not self.are_colours:
            raise ValueError("tolerance is for colours; for gray values set masks.above")
        for name, values in self.values.items():
            if conflict := set(self.ignore).intersection(values):
                raise ValueError(f"{conflict.pop()} cannot be of class {name} and ignored")
        for first, second in combinations(sorted(set(self.all_values), key=str), 2):
            if self.tolerance and is_near(first, second, 2 * self.tolerance):
                raise ValueError(f"tolerance {self.tolerance} does not keep {first} and {second} apart")
        return self


def rgb(colour: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(colour[1:]))


def is_near(value: int | float | str, wanted: int | str, tolerance: int) -> bool:
    """Whether two numbers are equal, or two colours differ by at most `tolerance` in each of R, G and B."""
    if not tolerance or not isinstance(value, str):
        return value == wanted
    return max(abs(a - b) for a, b in zip(rgb(value), rgb(wanted), strict=True)) <= tolerance
