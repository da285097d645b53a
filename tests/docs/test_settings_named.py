"""Every setting that the documentation, the presets and the messages of the code name is one of the schema."""

import ast
import re
from pathlib import Path

from lib.config.schema import Settings
from lib.config.section import Section
from tests import REPOSITORY

SECTIONS = [name for name, field in Settings.model_fields.items() if name != "name"]
NAMED = re.compile(rf"(?<![\w./])({'|'.join(SECTIONS)})\.([a-z]\w*[a-z0-9])(?:\.([a-z]\w*))?(?![\w(/])")
FILES = re.compile(r"csv|gz|html|jsonl?|npz|parquet|png|pt|py|safetensors|tiff?|tsv|txt|yaml|zip")  # as in train.csv
MADE_BY_THE_PAGE = {"augment.downscale"}  # docs/extending.md adds it


def known(section: str, key: str, inner: str | None) -> bool:
    """Whether there is such a setting; `inner` is a key of a section within the section."""
    fields = Settings.model_fields[section].annotation.model_fields
    if key not in fields:
        return False
    annotation = fields[key].annotation
    is_section = isinstance(annotation, type) and issubclass(annotation, Section)
    return inner is None or not is_section or inner in annotation.model_fields


def unknown(text: str) -> list[str]:
    found = (match for match in NAMED.finditer(text) if not FILES.fullmatch(match[2]))
    return [match[0] for match in found if match[0] not in MADE_BY_THE_PAGE and not known(*match.groups())]


def prose(page: Path) -> str:
    """The text of a page without its Python, whose names are variables."""
    return re.sub(r"^```python\n.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def messages(path: Path) -> str:
    """The texts in a file of Python but for docstrings, which speak of variables."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return "\n".join(node.value for node in texts if id(node) not in docstrings)


def test_a_setting_that_is_not_there_is_found():
    assert unknown("set `data.grup`, train.epoch=3, data.rle.ordr=row") == ["data.grup", "train.epoch", "data.rle.ordr"]
    assert not unknown("data.group, threshold.json, data.rle.order=row, runs/data.x, torch.utils.data.y")


def test_settings_named_in_the_documentation_are_settings():
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "configs").rglob("*.yaml")]
    wrong = {page.name: names for page in pages if (names := unknown(prose(page)))}
    assert not wrong


def test_settings_named_in_messages_are_settings():
    files = [*(REPOSITORY / "lib").rglob("*.py"), *REPOSITORY.glob("0*.py")]
    wrong = {path.name: names for path in files if (names := unknown(messages(path)))}
    assert not wrong
