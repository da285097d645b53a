"""Finding files by folder or pattern, and the ids made of their names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.data.discovery import clean_id, fill, find_files, make_id
from lib.data.name_patterns import compile_pattern
from tests import REPOSITORY


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(root, pattern):
    return [(parts, path.removeprefix(f"{root}/")) for parts, path in find_files(root, pattern, "data.x")]


def test_a_folder_holds_its_image_files(tmp_path):
    touch(tmp_path, "images/b.PNG", "images/a.1.tif", "images/note.txt", "images/.hidden.png", "images/deep/c.png")
    (tmp_path / "images" / "folder.png").mkdir()
    assert found(tmp_path, "images") == [({"id": "a.1"}, "images/a.1.tif"), ({"id": "b"}, "images/b.PNG")]


def test_wildcards_match_within_one_name(tmp_path):
    touch(tmp_path, "s/x/images/x.png", "s/y/images/y.png", "s/y/masks/1.png", "s/y/masks/2.png", "s/z/other/z.png")
    assert found(tmp_path, "s/{id}/images/*.png") == [
        ({"id": "x"}, "s/x/images/x.png"),
        ({"id": "y"}, "s/y/images/y.png"),
    ]
    assert [path for _, path in found(tmp_path, "s/{id}/masks/?.png")] == ["s/y/masks/1.png", "s/y/masks/2.png"]


def test_sets_of_characters(tmp_path):
    touch(tmp_path, *(f"r/7/band_{band:02d}.npy" for band in range(8, 17)))
    assert [path for _, path in found(tmp_path, "r/{id}/band_1[145].npy")] == [
        "r/7/band_11.npy",
        "r/7/band_14.npy",
        "r/7/band_15.npy",
    ]
    assert [path[-6:-4] for _, path in found(tmp_path, "r/{id}/band_1[!1-5].npy")] == ["10", "16"]


def test_a_part_is_the_same_text_wherever_it_stands(tmp_path):
    touch(tmp_path, "s/a/a.png", "s/b/c.png", "s/d/d_d.png", "s/e.f/e.f_1.png", "s/exf/e.f_1.png")
    assert found(tmp_path, "s/{id}/{id}.png") == [({"id": "a"}, "s/a/a.png")]
    assert found(tmp_path, "s/{id}/{id}_{id}.png") == [({"id": "d"}, "s/d/d_d.png")]
    assert found(tmp_path, "s/{id}/{id}_?.png") == [
        ({"id": "d"}, "s/d/d_d.png"),
        ({"id": "e.f"}, "s/e.f/e.f_1.png"),
    ]


def test_parts_are_as_short_as_possible(tmp_path):
    touch(tmp_path, "t/case1/case1_day2/scans/slice_0003_266_310_1.50_1.50.png")
    ((parts, path),) = found(tmp_path, "t/{case}/{day}/scans/slice_{slice}_*.png")
    assert parts == {"case": "case1", "day": "case1_day2", "slice": "0003"}
    assert make_id("{day}_slice_{slice}", parts, path) == "case1_day2_slice_0003"


def test_plain_characters_are_not_expressions(tmp_path):
    touch(tmp_path, "a+b/x.png", "aab/y.png")
    assert [path for _, path in found(tmp_path, "a+b/{id}.png")] == ["a+b/x.png"]
    touch(tmp_path, "dots/x.png", "dots/xapng")
    assert [path for _, path in found(tmp_path, "dots/{id}.png")] == ["dots/x.png"]


def test_the_separators_of_windows(tmp_path, monkeypatch):
    touch(tmp_path, "s/a.png")
    monkeypatch.setattr("os.sep", "\\")
    assert (
        [path for _, path in found(tmp_path, "s\\{id}.png")]
        == [path for _, path in found(tmp_path, "s")]
        == ["s/a.png"]
    )


def test_sets_hold_plain_characters(tmp_path):
    touch(tmp_path, "s/a^.png", "s/a[.png", "s/a&&.png", "s/a!.png")
    assert [path for _, path in found(tmp_path, "s/{id}[[^].png")] == ["s/a[.png", "s/a^.png"]
    assert [path for _, path in found(tmp_path, "s/{id}[!&^].png")] == ["s/a!.png", "s/a[.png"]
    with pytest.raises(UserError, match="'{id}\\[z-a\\].png' is not a pattern"):
        found(tmp_path, "s/{id}[z-a].png")


def test_hidden_files_and_folders_do_not_match(tmp_path):
    touch(tmp_path, "s/.git/x.png", "s/a/._x.png", "s/a/x.png")
    assert [path for _, path in found(tmp_path, "s/{id}/*.png")] == ["s/a/x.png"]


@pytest.mark.parametrize("pattern", ["images", "gone", "images/{id}.jpg", "gone/{id}/*.png"])
def test_nothing_found_names_the_place_and_the_setting(tmp_path, pattern):
    touch(tmp_path, "images/note.txt")
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / pattern))}.*data.x"):
        list(find_files(tmp_path, pattern, "data.x"))


def test_a_template_with_an_unknown_part(tmp_path):
    with pytest.raises(UserError, match=r"data.group = '\{case\}' must be made of parts .* has: \{id\}"):
        fill("{case}", {"id": "a"}, "data.group")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (" a ", "a"),
        ("a.png", "a"),
        ("a.JPEG", "a"),
        ("1.2.276.0", "1.2.276.0"),
        ("1.2.dcm", "1.2"),
        ("007", "007"),
        ("a b-c_d", "a b-c_d"),
        ("é", "é"),
    ],
)
def test_ids_lose_only_blanks_and_image_suffixes(text, cleaned):
    assert clean_id(text, "train.csv") == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "..",
        "...",
        ".png",
        "a/b",
        "../a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\u202ea",
        "\ud800",
        "a" * 201,
        "é" * 101,
    ],
)
def test_ids_that_are_not_safe_as_file_names_are_refused(text):
    with pytest.raises(UserError, match="train.csv has the id"):
        clean_id(text, "train.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters()))
def test_an_id_never_leaves_its_folder(tmp_path, text):
    try:
        image_id = clean_id(text, "train.csv")
    except UserError as error:
        assert "\n" not in str(error)
        return
    path = tmp_path / f"{image_id}.png"
    assert path.resolve().parent == tmp_path.resolve() and path.name == f"{image_id}.png"
    path.exists()


def test_two_stars_stand_for_any_folders(tmp_path):
    for name in ("a.png", "x/b.png", "x/y/z/c.png", "x/y/z/d.txt", "x/.hidden/e.png", "w/masks/f.png"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "train/x/y/back").symlink_to(tmp_path / "train")

    def found(pattern):
        files = find_files(tmp_path, pattern, "data.x")
        return sorted((parts.get("id"), str(Path(path).relative_to(tmp_path))) for parts, path in files)

    expected = [(path.stem, str(path.relative_to(tmp_path))) for path in (tmp_path / "train").glob("**/*.png")]
    expected = sorted(pair for pair in expected if ".hidden" not in pair[1])
    assert found("train/**/{id}.png") == found("train/**/**/{id}.png") == expected and len(expected) == 4
    assert found("train/**/masks/{id}.png") == [("f", "train/w/masks/f.png")]
    assert found(f"{tmp_path}/train/**/z/{{id}}.*") == [("c", "train/x/y/z/c.png"), ("d", "train/x/y/z/d.txt")]


def test_a_folder_of_folders_says_how_to_look_into_them(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=r"it holds 2 folders; set data.x to a pattern such as train/\*\*/{id}.png"):
        list(find_files(tmp_path, "train", "data.x"))


# --- how long matching takes ------------------------------------------------------------------------------------------


def plain_expression(segment: str) -> re.Pattern:
    """The segment as a regular expression as one would write it, which may take years."""
    named, written = set(), ""
    for token in re.findall(r"\{\w+\}|.", segment):
        if token[0] == "{" and len(token) > 1:
            name = token[1:-1]
            written += f"(?P={name})" if name in named else f"(?P<{name}>.+?)"
            named.add(name)
        else:
            written += {"*": ".*", "?": "."}.get(token, re.escape(token))
    return re.compile(written)


@given(
    st.lists(st.sampled_from(["{a}", "{b}", "{c}", "*", "_", "x", "?", "__"]), min_size=1, max_size=8),
    st.text("_xy", max_size=10),
)
def test_names_match_as_a_plain_regular_expression_does(tokens, name):
    segment = "".join(tokens)
    try:
        found = compile_pattern(segment).fullmatch(name)
    except UserError:  # more wildcards than may go back
        return
    expected = plain_expression(segment).fullmatch(name)
    assert (found and found.groupdict()) == (expected and expected.groupdict())


def test_no_name_takes_long_to_match():
    """Without atomic groups each would take years; a limit of processor time tells."""
    segments = ["{a}_{b}_{c}_{d}_{e}_{f}_{g}", "*_*_*_*_*_*x", "*_{a}_{b}_*_{c}_{d}", "{a}{b}{c}{d}x{e}"]
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        "from lib.data.name_patterns import compile_pattern\n"
        f"for segment in {segments}:\n"
        "    for end in ('_', '.png', 'x'): compile_pattern(segment).fullmatch('_' * 240 + end)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


def test_a_pattern_that_would_take_too_long_is_refused():
    with pytest.raises(UserError, match="may take years to match"):
        compile_pattern("*_{a}*_{b}*_{c}*_{d}*_{e}.png")
