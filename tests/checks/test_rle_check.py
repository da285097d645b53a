"""Counting components on runs against skimage, and what is said of right and wrong conventions."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label

from lib.base.errors import UserError
from lib.checks.inspection import check_images
from lib.checks.rle_check import candidates, check_convention, require_convention
from lib.checks.rle_components import count_components
from lib.checks.rle_numbers import other_numbers
from lib.config.data_settings import DataSettings, RleSettings
from lib.data.competition import open_training
from lib.masks.rle import encode

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


@given(masks, st.sampled_from(candidates(RleSettings())))
def test_components_are_those_of_skimage(mask, convention):
    expected = label(mask, connectivity=2).max()
    assert count_components([encode(mask, convention)], mask.shape, convention) == expected


@given(masks)
def test_runs_out_of_order_or_overlapping_count_as_their_pixels(mask):
    numbers = encode(mask).split()
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    text = " ".join(" ".join(pair) for pair in [*pairs[::-1], *pairs[:1]])
    assert count_components([text], mask.shape, RleSettings()) == label(mask, connectivity=2).max()


def write(root, shape, convention: RleSettings, count: int = 30) -> DataSettings:
    """Upright boxes, as run lengths in train.csv and as npy in masks/."""
    random, rows = np.random.default_rng(0), ["id,rle"]
    for folder in ("train_images", "masks"):
        (root / folder).mkdir()
    for number in range(count):
        mask = np.zeros(shape, np.uint8)
        top, left = random.integers(0, shape[0] // 2), random.integers(0, shape[1] // 2)
        mask[top : top + shape[0] // 3, left : left + shape[1] // 4] = 1
        np.save(root / "train_images" / f"{number}.npy", random.integers(0, 255, (*shape, 3), dtype=np.uint8))
        np.save(root / "masks" / f"{number}.npy", mask)
        rows.append(f"{number},{encode(mask, convention)}")
    (root / "train.csv").write_text("\n".join(rows))
    return DataSettings(root=root)


@pytest.mark.parametrize("written", candidates(RleSettings())[:4] + [RleSettings(base=0, starts="relative")])
@pytest.mark.parametrize("declared", [RleSettings(), RleSettings(order="row"), RleSettings(base=0, starts="relative")])
def test_masks_as_images_tell_every_convention(tmp_path, written, declared):
    layout = write(tmp_path, (24, 37), written).model_copy(update={"rle": declared, "compare_masks": "masks"})
    verdict = check_convention(open_training(layout))
    assert verdict.is_wrong == (written != declared)
    if verdict.is_wrong:
        right = [word.split("=") for word in verdict.remedy.split()]
        changes = {name.removeprefix("data.rle."): int(value) if value.isdigit() else value for name, value in right}
        assert declared.model_copy(update=changes) == written
        assert f"as {written.order}s, from {written.base}, {written.starts} starts it is 1.000" in verdict.text
    else:
        assert verdict.text == "IoU 1.000 with masks over 24 masks"


@pytest.mark.parametrize("order", ["column", "row"])
def test_components_tell_the_order(tmp_path, order):
    layout = write(tmp_path, (24, 37), RleSettings(order=order))
    verdict = check_convention(open_training(layout))
    assert verdict.is_wrong == (order == "row")
    assert ("as rows, from 1, absolute starts there are 24" in verdict.text) == verdict.is_wrong


def test_a_wrong_order_is_an_error_unless_a_setting_says_it_is_right(tmp_path):
    layout = write(tmp_path, (24, 37), RleSettings(order="row"))
    with pytest.raises(UserError, match="set data.rle.order=row, or data.doubtful_rle=read"):
        require_convention(open_training(layout))
    verdict = require_convention(open_training(layout.model_copy(update={"doubtful_rle": "read"})))
    assert verdict.label == "warning"
    right = layout.model_copy(update={"rle": RleSettings(order="row")})
    assert require_convention(open_training(right)).label == "checked"


def corners(mask):
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return outlines[0].ravel() + 1


def starts_and_ends(mask):
    starts, lengths = np.array(encode(mask).split(), int).reshape(-1, 2).T
    return np.stack([starts, starts + lengths], axis=1).ravel()


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (corners, "no number of 24 of 24 masks is beyond the image's longer side.*corners"),
        (lambda mask: np.add(cv2.boundingRect(mask), 1), "or boxes, .*write COCO json"),
        (starts_and_ends, "numbers of 24 of 24 masks rise throughout.*a length in the place of each end"),
    ],
    ids=["corners", "boxes", "starts and ends"],
)
@pytest.mark.parametrize("list_of", ["{}", "[{}]"])
def test_numbers_that_are_no_run_lengths(tmp_path, numbers, words, list_of):
    layout = write(tmp_path, (24, 37), RleSettings())
    texts = (" ".join(map(str, numbers(np.load(tmp_path / "masks" / f"{number}.npy")))) for number in range(30))
    rows = [f"{number},{list_of.format(text)}" for number, text in enumerate(texts)]
    (tmp_path / "train.csv").write_text("\n".join(["id,rle", *rows]))
    with pytest.raises(UserError, match=words):
        require_convention(open_training(layout))
    read = layout.model_copy(update={"doubtful_rle": "read"})
    assert require_convention(open_training(read)).label == "warning"


def test_few_masks_near_the_first_pixel_and_nearly_full_ones_are_run_lengths():
    corner, full, other = "2 6 12 3", "1 400 402 418", "300 5 330 5 360 9"
    for doubted, runs in ((corner, 2), (full, 0)):
        of_images = [([doubted], (30, 30))] * runs + [([other], (30, 30))] * 2
        assert other_numbers(of_images) is None
    assert "of 3 of 5 masks" in other_numbers([([corner], (30, 30))] * 3 + [([other], (30, 30))] * 2)
    assert other_numbers([([full], (30, 30))] * 3) is None


@pytest.mark.parametrize("order", ["column", "row"])
def test_edges_tell_the_order_of_square_images(tmp_path, order):
    layout = write(tmp_path, (40, 40), RleSettings(order=order))
    for path in (tmp_path / "masks").iterdir():
        noise = np.random.default_rng(0).integers(0, 40, (40, 40, 3))
        np.save(tmp_path / "train_images" / path.name, (noise + 200 * np.load(path)[:, :, None]).astype(np.uint8))
    verdict = check_convention(open_training(layout))
    assert verdict.is_wrong == (order == "row") and "edges under the borders of 24 masks are" in verdict.text


@pytest.mark.parametrize("order", ["column", "row"])
@pytest.mark.parametrize("written", [0, 1])
@pytest.mark.parametrize("declared", [0, 1])
def test_slivers_at_the_opposite_edge_tell_the_first_pixel(tmp_path, order, written, declared):
    (tmp_path / "train_images").mkdir()
    rows = ["id,rle"]
    for number in range(16):
        mask = np.zeros((24, 37), np.uint8)
        mask[5:11, 6 + number : 12 + number] = 1
        if number % 2:  # touches the first and the last of a column, or of a row
            mask[[slice(0, 4), slice(20, 24)][number // 8], 14:20] = 1
            mask[14:18, [slice(0, 4), slice(33, 37)][number // 8]] = 1
        np.save(tmp_path / f"train_images/{number}.npy", mask[:, :, None])
        rows.append(f"{number},{encode(mask, RleSettings(order=order, base=written))}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    layout = DataSettings(root=tmp_path, rle=RleSettings(order=order, base=declared))
    verdict = check_convention(open_training(layout))
    assert verdict.is_wrong == (written != declared), verdict.text
    if verdict.is_wrong:
        assert verdict.remedy == f"data.rle.base={written}" and "counted from" in verdict.text


def test_square_images_of_noise_do_not_tell_the_order(tmp_path):
    layout = write(tmp_path, (30, 30), RleSettings(order="row"))
    verdict = check_convention(open_training(layout))
    assert not verdict.is_wrong and verdict.text.startswith("these masks do not show the order: edges")


def test_relative_starts_read_as_absolute(tmp_path):
    layout = write(tmp_path, (24, 37), RleSettings(base=0, starts="relative"))
    verdict = check_convention(open_training(layout))
    assert verdict.is_wrong and "relative starts there are 24" in verdict.text


def test_images_and_table_that_hold_other_masks(tmp_path):
    layout = write(tmp_path, (24, 37), RleSettings()).model_copy(update={"compare_masks": "masks"})
    for path in (tmp_path / "masks").iterdir():
        np.save(path, np.load(path)[::-1, ::-1])
    verdict = check_convention(open_training(layout))
    assert verdict.is_wrong and "masks holds other masks" in verdict.text


def test_nothing_to_check(tmp_path):
    layout = write(tmp_path, (24, 37), RleSettings())
    verdict = check_convention(open_training(layout.model_copy(update={"train_masks": "masks"})))
    assert not verdict.is_wrong and verdict.label == "assumed" and "data.compare_masks" in verdict.text
    (tmp_path / "train.csv").write_text("id,rle\n" + "\n".join(f"{number}," for number in range(30)))
    assert "no training mask with pixels" in check_convention(open_training(layout)).text


@pytest.mark.parametrize(
    ("factor", "order", "compared"),
    [
        (2, "column", None),
        (2, "row", "masks"),
        (3, "column", "masks"),
        (3, "row", None),
        (4, "column", None),
        (4, "row", "masks"),
    ],
)
def test_run_lengths_of_smaller_images_are_refused_and_read_by_the_setting(tmp_path, factor, order, compared):
    convention = RleSettings(order=order)
    settings = write(tmp_path, (24, 36), convention).model_copy(update={"rle": convention, "compare_masks": compared})
    random = np.random.default_rng(1)
    for number in range(30):
        np.save(
            tmp_path / "train_images" / f"{number}.npy",
            random.integers(0, 255, (24 * factor, 36 * factor, 3), np.uint8),
        )
        mask = np.load(tmp_path / "masks" / f"{number}.npy")
        np.save(tmp_path / "masks" / f"{number}.npy", np.kron(mask, np.ones((factor, factor), np.uint8)))
    with pytest.raises(UserError, match=f"images {factor} times smaller: .*set data.rle_factor={factor}"):
        check_convention(open_training(settings))
    training = open_training(settings.model_copy(update={"rle_factor": factor}))
    assert not check_convention(training).is_wrong
    for number in range(30):
        np.testing.assert_array_equal(
            training.read_mask(f"{number}")[:, :, 0], np.load(tmp_path / "masks" / f"{number}.npy")
        )
    with pytest.raises(UserError, match="data.rle_factor = 5 does not divide"):
        open_training(settings.model_copy(update={"rle_factor": 5})).read_mask("0")


def test_run_lengths_that_are_neither_read_nor_written_are_not_mentioned(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), np.eye(20, dtype=np.uint8) * 255)
    settings = DataSettings(root=tmp_path, train_images="images", train_masks="masks", test_images=None)
    check_images(open_training(settings))
    assert "data.rle" not in capsys.readouterr().out
    check_images(open_training(settings.model_copy(update={"test_images": "images"})))
    assert "assumed   data.rle" in capsys.readouterr().out
