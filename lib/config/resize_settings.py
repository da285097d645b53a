"""The settings of `data.resize`: the size at which the network sees an image."""

from typing import Annotated

from pydantic import Field, model_validator

from lib.config.section import PositiveFloat, PositiveInt, Section

LARGEST_FACTOR = 16.0  # what is beyond is a mistake in the units
WAYS = "{factor: 0.25}, {longest_side: 1024}, {size: [320, 480]} or {column: pixel_size, to: 0.4}"


class ResizeSettings(Section):
    """One way to resize, or none: the network sees images as they are.

    Training, validation and prediction see images of this size; train.crop_size, infer.window and infer.margin are in
    its pixels. Maps go back to the images' own size, in whose pixels thresholds and areas are chosen and scored.
    """

    factor: Annotated[float, Field(gt=0, le=LARGEST_FACTOR)] | None = None  # times height and width
    longest_side: PositiveInt | None = None  # pixels of the longer side, of smaller images too
    size: tuple[PositiveInt, PositiveInt] | None = None  # height, width, whatever the shape of the image
    column: str | None = None  # of data.resize_csv: the factor of an image is its value there, divided by `to`
    to: PositiveFloat | None = (
        None  # such as the size in micrometres that a pixel shall have, of a column of pixel sizes
    )

    @property
    def is_set(self) -> bool:
        return self != ResizeSettings()

    @model_validator(mode="before")
    @classmethod
    def _is_a_way(cls, content: object) -> object:
        if content is None:
            return {}
        if not isinstance(content, dict | ResizeSettings):
            raise ValueError(f"must be one of {WAYS}")
        return content

    @model_validator(mode="after")
    def _one_way(self) -> "ResizeSettings":
        ways = [name for name in ("factor", "longest_side", "size", "column") if getattr(self, name) is not None]
        if len(ways) > 1 or (self.column is None) != (self.to is None):
            raise ValueError(f"must be one of {WAYS}")
        return self
