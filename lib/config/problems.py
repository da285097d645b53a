"""Wrong settings in words: each wrong key by name, with its value and the error, or the nearest key that there is."""

import difflib
import reprlib

from lib.config.section import Section

ABSENT = object()


def explained(problems: list[dict], content: dict, model: type[Section]) -> str:
    """A clause for each setting that pydantic found wrong when it read `content` as a `model`.

    Where a setting may have one of several types, pydantic reports an error for each of them.
    """
    clauses, wrong = [], {}
    for problem in problems:
        location = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            clauses.append(_about_unknown(location, model))
        else:
            message = problem["msg"].removeprefix("Value error, ")
            wrong.setdefault(_setting_at(location, model), []).append(f"{message[0].lower()}{message[1:]}")
    return "; ".join([*clauses, *(_about_wrong(keys, messages, content, model) for keys, messages in wrong.items())])


def _about_unknown(location: list[str], model: type[Section]) -> str:
    known = _fields_at(location[:-1], model)
    nearest = difflib.get_close_matches(location[-1], known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known)}"
    return f"unknown setting '{'.'.join(location)}', {hint}"


def _about_wrong(keys: tuple[str, ...], messages: list[str], content: dict, model: type[Section]) -> str:
    if keys[-2:] == ("masks", "values"):
        keys = (*keys[:-2], "classes")  # as written; see DataSettings
    name, reason, is_section = ".".join(keys), ", or ".join(messages), bool(_fields_at(keys, model))
    value = content
    for key in keys:
        value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    if not keys or is_section and value is ABSENT:  # settings of two sections that contradict each other
        return reason
    if value is ABSENT:
        return f"setting '{name}': {reason}"
    if is_section and value is None:
        return f"section '{name}' has no settings; remove the line or add some"
    if is_section and isinstance(value, dict):  # its settings contradict each other
        return f"section '{name}': {reason}"
    return f"setting '{name}' = {_shortened(value)}: {reason}"


def _setting_at(location: list[str], model: type[Section]) -> tuple[str, ...]:
    """The keys of the setting that contains this location."""
    depth = 1
    while depth < len(location) and location[depth] in _fields_at(location[:depth], model):
        depth += 1
    return tuple(location[:depth])


def _shortened(value: object) -> str:
    """A value from the file, shortened: through YAML's references a few lines can expand to gigabytes."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)


def _fields_at(sections: list[str] | tuple[str, ...], model: type[Section]) -> list[str]:
    """Names of the settings in a section of a model, by its dotted path."""
    for section in sections:
        field = model.model_fields.get(section)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return []
        model = field.annotation
    return list(model.model_fields)
