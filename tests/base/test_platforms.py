"""Modules that only some systems have are imported in a `try`; text is UTF-8 whatever the system's encoding."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import REPOSITORY

POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"}
FILES = sorted([*(REPOSITORY / "lib").rglob("*.py"), *REPOSITORY.glob("0*.py")])
MODULES = {"rasterio", "os", "gzip"}  # whose `open` is not that of text files; nor is that of a class


def imports_outside_try(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or ""
        elif not isinstance(child, ast.Try):
            yield from imports_outside_try(child)


def reads_by_the_systems_encoding(tree: ast.AST) -> Iterator[int]:
    """Lines of path.read_text() and path.open() that name no encoding and are not binary."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner, name = call.func.value, call.func.attr
        mode = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "r"
        is_text = name == "read_text" or (name == "open" and "b" not in mode)
        names_it = any(keyword.arg == "encoding" for keyword in call.keywords)
        if (
            is_text
            and not names_it
            and not (isinstance(owner, ast.Name) and (owner.id in MODULES or owner.id[0].isupper()))
        ):
            yield call.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_runs_on_every_system(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not POSIX_ONLY & set(imports_outside_try(tree))
    assert not list(reads_by_the_systems_encoding(tree))
