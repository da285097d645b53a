"""Settings files: a YAML mapping and `section.key=value` on top of it, read before what checks them is imported.

The check is lib/config/schema.py's, whose pydantic takes three times as long to import as Python takes to start.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lib.base.errors import UserError

if TYPE_CHECKING:
    from lib.config.schema import Settings


TEMPLATE = re.compile(r"\{[A-Za-z_]\w*\}")  # {id} is YAML, too: a mapping


def load_settings(path: Path, overrides: list[str] = ()) -> "Settings":
    """Read a YAML file, apply `section.key=value` overrides and check everything.

    A missing `name` becomes the file's stem. Raises UserError for an unreadable file, an unknown key or a bad value.
    """
    content = with_overrides(read_yaml(path), overrides)
    content.setdefault("name", path.stem)

    from lib.config.schema import check_settings

    return check_settings(content, source=path)


def read_yaml(path: Path) -> dict:
    """Read a YAML mapping. Raises UserError when the file is absent, not YAML or not a mapping."""
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise UserError(f"settings file {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold settings such as 'train:' with keys below it, not a {type(content).__name__}"
        )
    return content


def with_overrides(content: dict, overrides: list[str]) -> dict:
    """A copy of `content` with each `section.key=value` set, the value read as YAML."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise UserError(f"'{override}' is not a setting; write section.key=value, such as train.epochs=20")
        try:
            value = text if TEMPLATE.match(text) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"the value in '{override}' is not valid YAML") from None
        *sections, key = dotted.split(".")
        place = merged
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"'{section}' in '{override}' is a value, not a section")
        place[key] = value
    return merged
