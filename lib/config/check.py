"""From a plain mapping to checked settings and back: every wrong key is named, with the nearest valid one."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from lib.base.errors import UserError
from lib.base.files import write_text
from lib.config.problems import explained
from lib.config.schema import Settings


def check_settings(content: dict, source: Path) -> Settings:
    """Validate a plain mapping. Raises UserError that names every wrong key."""
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {explained(error.errors(), content, Settings)}") from None


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML, in the order of the sections."""
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def dotted(content: dict, prefix: str = "") -> dict[str, object]:
    """A nested mapping as {dotted key: value}."""
    pairs = {}
    for key, value in content.items():
        pairs |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return pairs
