"""From a plain mapping to checked settings and back: every wrong key is named, with the nearest valid one."""

import difflib
import reprlib
from pathlib import Path

import yaml
from pydantic import ValidationError

from lib.base.errors import UserError
from lib.base.files import write_text
from lib.config.schema import Settings
from lib.config.section import Section


def check_settings(content: dict, source: Path) -> Settings:
    """Validate a plain mapping. Raises UserError that names every wrong key."""
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{source}: {_explain(error.errors(), content)}") from None


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved settings as YAML, in the order of the sections."""
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def dotted(content: dict, prefix: str = "") -> dict[str, object]:
    """A nested mapping as {dotted key: value}."""
    pairs = {}
    for key, value in content.items():
        pairs |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return pairs


def _explain(problems: list[dict], content: dict) -> str:
    """A clause for each wrong setting: its dotted key, its value and the error; for an unknown key the nearest one.

    Where a setting may have one of several types, pydantic reports an error for each of them.
    """
    clauses, wrong = [], {}
    for problem in problems:
        location = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            clauses.append(_about_unknown(location))
        else:
            message = problem["msg"].removeprefix("Value error, ")
            wrong.setdefault(_setting_at(location), []).append(f"{message[0].lower()}{message[1:]}")
    return "; ".join([*clauses, *(_about_wrong(keys, messages, content) for keys, messages in wrong.items())])


def _about_unknown(location: list[str]) -> str:
    known = _fields_at(location[:-1])
    nearest = difflib.get_close_matches(location[-1], known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known)}"
    return f"unknown setting '{'.'.join(location)}', {hint}"


def _about_wrong(keys: tuple[str, ...], messages: list[str], content: dict) -> str:
    if keys[:3] == ("data", "masks", "values"):
        keys = ("data", "classes")  # as written; see DataSettings
    reason = ", or ".join(messages)
    if not keys:  # settings of two sections that contradict each other
        return reason
    value = content
    for key in keys:
        value = value.get(key)
    if isinstance(value, dict) and _fields_at(keys):  # the same within a section
        return f"section '{'.'.join(keys)}': {reason}"
    return f"setting '{'.'.join(keys)}' = {_shortened(value)}: {reason}"


def _setting_at(location: list[str]) -> tuple[str, ...]:
    """The keys of the setting that contains this location."""
    depth = 1
    while depth < len(location) and location[depth] in _fields_at(location[:depth]):
        depth += 1
    return tuple(location[:depth])


def _shortened(value: object) -> str:
    """A value from the file, shortened: through YAML's references a few lines can expand to gigabytes."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)


def _fields_at(sections: list[str]) -> list[str]:
    """Names of the settings in a section, by its dotted path."""
    model = Settings
    for section in sections:
        field = model.model_fields.get(section)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return []
        model = field.annotation
    return list(model.model_fields)
