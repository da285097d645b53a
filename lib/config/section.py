"""The base class of all sections of the settings, and their number types."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Word = Annotated[str, Field(coerce_numbers_to_str=True)]  # classes and ids are often numbers in YAML


def expand_home(path: Path | str | None) -> Path | str | None:
    """The path with the home folder in the place of ~."""
    return type(path)(os.path.expanduser(path)) if path else path


class Section(BaseModel):
    """A group of settings, immutable; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), defer_build=True, allow_inf_nan=False
    )
