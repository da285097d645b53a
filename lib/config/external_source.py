"""`data.external`: extra images with masks for training; each source is a set of overrides of the run's settings."""

from typing import NamedTuple

from pydantic import ValidationError

from lib.config.data_settings import DataSettings
from lib.config.problems import explained

OF_THE_RUN = {  # apply to the whole run; a source cannot override them
    "external",
    "channels",
    "test_images",
    "test_id",
    "sample_submission",
    "sample_id_column",
    "sample_rle_column",
    "sample_class_column",
    "sample_id_pattern",
    "unreadable_test_images",
    "test_images_without_row",
    "resize_test_csv",
}
NOT_INHERITED = ("exclude", "group", "group_csv", "compare_masks")  # these name images and files of the run


class ExternalSource(NamedTuple):
    """A source's data settings, and its weight: how often its images are drawn, relative to the run's own."""

    weight: float
    data: DataSettings


def external_sources(data: DataSettings) -> list[ExternalSource]:
    """The sources of data.external. Raises ValueError for unknown, wrong or run-wide settings."""
    return [_source(data, number, dict(overrides)) for number, overrides in enumerate(data.external, start=1)]


def _source(data: DataSettings, number: int, overrides: dict[str, object]) -> ExternalSource:
    place, given = f"data.external, source {number}", overrides.pop("weight", 1)
    try:
        weight = 0.0 if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise ValueError(f"{place}: weight must be a number above 0, not {given!r}")
    if refused := sorted(overrides.keys() & OF_THE_RUN):
        raise ValueError(f"{place}: {', '.join(refused)} applies to the whole run and cannot be set for a source")
    if not overrides.keys() & {"root", "train_images"}:
        raise ValueError(f"{place}: needs a root or train_images of its own")
    merged = data.model_dump(exclude={*OF_THE_RUN - {"channels"}, *NOT_INHERITED})
    merged |= {"test_images": None, "sample_submission": None}
    for key, value in overrides.items():  # sections such as rle and masks are merged setting by setting
        are_sections = key != "resize" and isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merged[key] | value if are_sections else value
    try:
        settings = DataSettings.model_validate(merged)
    except ValidationError as error:
        raise ValueError(f"{place}: {explained(error.errors(), merged, DataSettings)}") from None
    if settings.network_channels != data.network_channels:
        raise ValueError(f"{place}: neighbours must give the network as many channels as those of the run")
    if settings.classes != data.classes:
        raise ValueError(f"{place}: classes must be those of the run, in the same order: {', '.join(data.classes)}")
    return ExternalSource(weight, settings)
