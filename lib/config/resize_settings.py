"""The settings of `data.resize`: the size at which the network sees images."""

from typing import Annotated

from pydantic import Field, model_validator

from lib.config.section import PositiveFloat, PositiveInt, Section

LARGEST_FACTOR = 16.0  # a larger one is a mistake in the units
METHODS = "{factor: 0.25}, {longest_side: 1024}, {size: [320, 480]} or {column: pixel_size, to: 0.4}"


class ResizeSettings(Section):
    """One of these methods, or none: images keep their size.

    Training, validation and prediction use the resized images; train.crop_size, infer.window and infer.margin count
    their pixels. Maps are resized back to the original size, at which thresholds and areas are chosen and scored.
    """

    factor: Annotated[float, Field(gt=0, le=LARGEST_FACTOR)] | None = None  # scales height and width
    longest_side: PositiveInt | None = None  # pixels of the longer side; smaller images are enlarged
    size: tuple[PositiveInt, PositiveInt] | None = None  # height and width; the aspect ratio may change
    column: str | None = None  # column of data.resize_csv; an image's factor is its value there divided by `to`
    to: PositiveFloat | None = None  # target value of that column, e.g. pixels of 0.4 micrometres

    @property
    def is_set(self) -> bool:
        return any(value is not None for value in (self.factor, self.longest_side, self.size, self.column))

    @model_validator(mode="before")
    @classmethod
    def _is_a_method(cls, content: object) -> object:
        if content is None:
            return {}
        if not isinstance(content, dict | ResizeSettings):
            raise ValueError(f"must be one of {METHODS}")
        return content

    @model_validator(mode="after")
    def _one_method(self) -> "ResizeSettings":
        methods = [name for name in ("factor", "longest_side", "size", "column") if getattr(self, name) is not None]
        if len(methods) > 1 or (self.column is None) != (self.to is None):
            raise ValueError(f"must be one of {METHODS}")
        return self
