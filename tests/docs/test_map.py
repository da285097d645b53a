"""docs/architecture.md names every file of lib/ and none that is not there; every page of docs/ can be reached."""

import re

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
