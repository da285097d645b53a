"""A test image that cannot be read: 04 stops and keeps what is there, or by a setting its row is written empty."""

import csv
from pathlib import Path

import pytest

from tests.stages import script


def rows(folder: Path) -> dict[str, str]:
    with (folder / "runs/blobs/submission.csv").open(newline="") as file:
        return {row["id"]: row["rle"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("state", ["cut short", "absent"])
def test_a_broken_test_image_stops_04_or_gives_an_empty_row_by_the_setting(user, state):
    before, broken = rows(user), user / "data/blobs/test_images/test_001.png"
    assert before["test_001"]
    if state == "absent":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:-30])

    ended = script(user, "04_infer.py", "--run", "runs/blobs")
    assert ended.code == 2 and "Traceback" not in ended.err
    said = "data.unreadable_test_images=empty"
    sentence = ended.err.splitlines()[-1]
    assert ("test_001.png" if state == "cut short" else "'test_001'") in sentence and said in sentence
    assert rows(user) == before

    for stage in ("04_infer", "05_postprocess"):
        ended = script(user, f"{stage}.py", "--run", "runs/blobs", *([said] if stage == "04_infer" else []))
        assert ended.code == 0, ended.err
        assert "1 of 6 test images cannot be read, their masks are empty: " in ended.out + ended.err
    after = rows(user)
    assert after == before | {"test_001": ""} and list(after) == list(before)
