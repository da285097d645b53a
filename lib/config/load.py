"""Settings files: a YAML mapping with `section.key=value` overrides, read before the code that checks them.

The check imports pydantic (lib/config/schema.py), which takes three times as long as Python takes to start.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lib.base.errors import UserError, one_line

if TYPE_CHECKING:
    from lib.config.schema import Settings

TAG = "tag:yaml.org,2002:"
DECIMAL = r"(?!-?0\.0000)-?(0|[1-9]\d{0,8})\.(0|\d{0,5}[1-9])"  # others change their digits, or get an exponent
AS_WRITTEN = {  # forms that are written again as they were read, and what YAML writes for tiny and huge numbers
    f"{TAG}int": (r"0$|-?[1-9]\d*$", "-0123456789"),
    f"{TAG}float": (rf"{DECIMAL}$|-?\d\.\d+e(-\d+|\+(1[6-9]|[2-9]\d|\d{{3,}}))$|-?\.inf$|\.nan$", "-.0123456789"),
    f"{TAG}bool": (r"true$|True$|TRUE$|false$|False$|FALSE$", "tTfF"),
}


def load_settings(path: Path, overrides: list[str] = ()) -> "Settings":
    """Read a YAML file, apply `section.key=value` overrides and check everything.

    A missing `name` becomes the file's stem. Raises UserError for an unreadable file, an unknown key or a bad value.
    """
    content = with_overrides(read_yaml(path), overrides)
    content.setdefault("name", path.stem)

    from lib.config.check import check_settings

    return check_settings(content, source=path)


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a duplicate key is an error instead of silently replacing the first.

    Dates stay text, and so do words and numbers that YAML 1.1 would change, since they may be ids or classes: no
    (false), 010 (octal, 8), 1:30 (base 60, 90), 7_12 (712), 0x10 (16), 1.10 (1.1). Settings that are numbers or true
    and false understand such text.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{TAG}timestamp", *AS_WRITTEN)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        first_line = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
            line = key.start_mark.line + 1
            if key.value in first_line:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key.value}' is given twice, in lines {first_line[key.value]} and {line}"
                )
            first_line[key.value] = line
        return super().construct_mapping(node, deep)


for tag, (pattern, first_characters) in AS_WRITTEN.items():
    UniqueKeyLoader.add_implicit_resolver(tag, re.compile(pattern), list(first_characters))


def read_yaml(path: Path) -> dict:
    """Read a YAML mapping. Raises UserError when the file is absent, not YAML or not a mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader) or {}
    except FileNotFoundError:
        raise UserError(f"settings file {path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold settings such as 'train:' with keys below it, not a {type(content).__name__}"
        )
    return content


def with_overrides(content: dict, overrides: list[str]) -> dict:
    """A copy of `content` with each `section.key=value` set."""
    merged = dict(content)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise UserError(f"'{override}' is not a setting; write section.key=value, such as train.epochs=20")
        *sections, key = dotted.split(".")
        place = merged
        for section in sections:
            if not isinstance(place.setdefault(section, {}), dict):
                raise UserError(f"'{section}' in '{override}' is a value, not a section")
            place[section] = dict(place[section])  # a copy, as YAML's references put one mapping into several places
            place = place[section]
        place[key] = read_value(text)
    return merged


def read_value(text: str) -> object:
    """A value as YAML, or as plain text where YAML reads something else: `{id}` or `*.png`."""
    try:
        value = yaml.load(text, UniqueKeyLoader)
    except yaml.YAMLError:
        return text  # if it should not be text, the check of the settings names it
    is_placeholder = isinstance(value, dict) and value and all(one is None for one in value.values())  # as in {id}
    return text if is_placeholder else value
