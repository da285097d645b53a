"""docs/architecture.md names every file of lib/, and the direction of its imports; every page can be reached."""

import ast
import re
from pathlib import Path

import pytest

from tests import REPOSITORY

MAP = REPOSITORY / "docs" / "architecture.md"
ROW = re.compile(r"^\| `(lib/[^`]+)` \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PAGES = ["README.md", "benchmarks/README.md", *(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))]


def test_the_map_names_every_file_of_lib_once():
    files = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "lib").rglob("*.py")}
    files = {name for name in files if not name.endswith("__init__.py")} | {"lib/report/templates/"}
    rows = [name for name, _ in ROW.findall(MAP.read_text())]
    missing, gone = sorted(files - set(rows)), sorted(set(rows) - files)
    assert not missing, f"add to {MAP.name}, in the table of its room: " + "  ".join(
        f"| `{n}` | ... |" for n in missing
    )
    assert not gone, f"remove from {MAP.name}, since lib/ has no such file: {', '.join(gone)}"
    assert len(rows) == len(set(rows))


def test_the_map_answers_with_files_that_are_there():
    for name in re.findall(r"`((?:lib|tests)/[^`]*)`", MAP.read_text()):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = REPOSITORY / page
    for target in LINK.findall(path.read_text()):
        assert "://" in target or (path.parent / target).exists(), f"{page} links to {target}"


def test_readme_links_every_page():
    linked = set(LINK.findall((REPOSITORY / "README.md").read_text()))
    pages = set(PAGES) - {"README.md"}
    assert not pages - linked, f"link from README.md: {', '.join(sorted(pages - linked))}"


def test_imports_point_the_way_the_map_says():
    order = re.search(r"Imports point one way: (.+?) and the scripts", MAP.read_text(), re.DOTALL)[1]
    ranks = {room: rank for rank, rooms in enumerate(order.split("<")) for room in re.findall(r"`(\w+)`", rooms)}
    wrong = []
    for path in sorted((REPOSITORY / "lib").glob("*/*.py")):
        room = path.relative_to(REPOSITORY / "lib").parts[0]
        for module in imported_modules(path):
            target = module.split(".")[1]
            if target != room and ranks[target] >= ranks[room]:
                wrong.append(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert not wrong


def imported_modules(path: Path) -> list[str]:
    """The modules of lib/ that a file imports, inside its functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return [name for name in names if name.startswith("lib.")]
