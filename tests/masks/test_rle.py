"""Run lengths against pycocotools, against a pixel-by-pixel twin, and against every way a string can be wrong."""

import os
import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from lib.base.errors import UserError
from lib.config.data_settings import RleSettings
from lib.masks.rle import _decimal, decode, decode_labels, decode_union, encode, encode_labels, parse_runs

CONVENTIONS = [
    RleSettings(order=order, base=base, starts=starts, empty=empty)
    for order, base, starts, empty in product(
        ("column", "row"), (0, 1), ("absolute", "relative"), ("", "-1", "-", "1 0")
    )
]
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 500))
SIIM = RleSettings(base=0, starts="relative", empty="-1")

conventions = st.sampled_from(CONVENTIONS)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
masks = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1)))


def encode_pixel_by_pixel(mask: np.ndarray, convention: RleSettings) -> str:
    """The definition, without arrays: walk the pixels in order and note where runs begin and end."""
    height, width = mask.shape
    if convention.order == "column":
        walk = [mask[y, x] for x in range(width) for y in range(height)]
    else:
        walk = [mask[y, x] for y in range(height) for x in range(width)]
    runs = []
    for number, value in enumerate(walk):
        if value and runs and sum(runs[-1]) == number:
            runs[-1][1] += 1
        elif value:
            runs.append([number, 1])
    numbers = []
    end = None
    for start, length in runs:
        gap_from = end if convention.starts == "relative" and end is not None else -convention.base
        numbers += [start - gap_from, length]
        end = start + length
    return " ".join(map(str, numbers)) if numbers else convention.empty


@given(masks, conventions)
def test_encodes_as_the_definition_says_and_decodes_it_back(mask, convention):
    text = encode(mask, convention)
    assert text == encode_pixel_by_pixel(mask, convention)
    decoded = decode(text, mask.shape, convention, disjoint=True)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(st.tuples(st.integers(1, 60), st.integers(1, 60)), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_agrees_with_pycocotools(shape, share, seed):
    mask = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    text = encode(mask)
    starts_and_lengths = np.array(text.split(), int).reshape(-1, 2)
    ends = np.append(0, starts_and_lengths.sum(axis=1) - 1)
    counts = np.column_stack([starts_and_lengths[:, 0] - 1 - ends[:-1], starts_and_lengths[:, 1]]).ravel().tolist()
    background_at_the_end = [mask.size - int(ends[-1])] if ends[-1] < mask.size else []
    compressed = coco.frPyObjects({"size": list(shape), "counts": counts + background_at_the_end}, *shape)
    assert compressed["counts"] == coco.encode(np.asfortranarray(mask))["counts"]
    np.testing.assert_array_equal(decode(text, shape), coco.decode(compressed))


@pytest.mark.parametrize(
    ("mask", "convention", "text"),
    [
        ([[1, 0, 0], [0, 0, 1]], RleSettings(), "1 1 6 1"),
        ([[1, 0, 0], [0, 0, 1]], RleSettings(order="row"), "1 1 6 1"),
        ([[0, 1, 1], [0, 0, 1]], RleSettings(), "3 1 5 2"),
        ([[0, 1, 1], [0, 0, 1]], RleSettings(order="row"), "2 2 6 1"),
        ([[0, 1, 1], [0, 0, 1]], RleSettings(base=0), "2 1 4 2"),
        ([[0, 1, 1], [0, 0, 1]], SIIM, "2 1 1 2"),
        ([[1, 1, 1], [1, 1, 1]], RleSettings(), "1 6"),
        ([[0, 0, 0], [0, 0, 0]], RleSettings(), ""),
        ([[0, 0, 0], [0, 0, 0]], RleSettings(empty="1 0"), "1 0"),
        ([[0, 0, 0], [0, 0, 0]], SIIM, "-1"),
        ([[255, 0, 7]], RleSettings(), "1 1 3 1"),
    ],
)
def test_written_out_by_hand(mask, convention, text):
    assert encode(np.array(mask), convention) == text
    np.testing.assert_array_equal(decode(text, np.shape(mask), convention), np.array(mask) > 0)


def test_numbers_of_every_length_are_written_in_full():
    mask = np.zeros((1, 1_234_568), bool)
    for start in (0, 8, 9, 98, 99, 998, 999, 99_999, 999_999, 1_234_567):
        mask[0, start] = True
    assert encode(mask) == "1 1 9 2 99 2 999 2 100000 1 1000000 1 1234568 1"


@given(st.lists(st.integers(0, 2**62), min_size=1))
def test_numbers_are_written_in_decimal(numbers):
    assert _decimal(np.array(numbers), np.full(len(numbers), ord(","), np.uint8)) == ",".join(map(str, numbers))


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_is_empty_in_every_convention(blank):
    for convention in CONVENTIONS:
        assert not decode(blank, (2, 3), convention).any()


@given(masks, conventions)
def test_blanks_around_and_between_do_not_matter(mask, convention):
    text = encode(mask, convention)
    np.testing.assert_array_equal(decode(f"  {text.replace(' ', '  ')} ", mask.shape, convention), mask)


@given(masks.filter(np.any), conventions)
def test_a_list_is_read_as_its_numbers(mask, convention):
    numbers = [int(number) for number in encode(mask, convention).split()]
    np.testing.assert_array_equal(decode(str(numbers), mask.shape, convention), mask)


@pytest.mark.parametrize(
    ("text", "convention", "problem"),
    [
        ("1", RleSettings(), "1 number, .*also_empty"),
        ("1 2 3", RleSettings(), "3 numbers"),
        ("1 2.5", RleSettings(), "whole numbers"),
        ("1 x", RleSettings(), "whole numbers"),
        ("1,2", RleSettings(), "whole numbers with blanks between them; write .* without brackets or commas$"),
        ("[[1, 2], [5, 3]]", RleSettings(), "without brackets or commas$"),
        (
            "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))",
            RleSettings(),
            "outlines as WKT are not read: draw them as mask images",
        ),
        ("_S36h25L4M2N2N2N100O101N10O2O0O100O2N2N2O1", RleSettings(), "if these are COCO's compressed run lengths"),
        ("1.0", RleSettings(), "whole numbers with blanks between them$"),
        ("[1, 2]", RleSettings(), None),
        ("[1 2]", RleSettings(), None),
        ("[1,2,5,1]", RleSettings(), None),
        ("[1, 2", RleSettings(), "whole numbers"),
        ("[1, x, 2]", RleSettings(), "whole numbers"),
        ("[]", RleSettings(), "stands for an empty mask"),
        ("1_0 1", RleSettings(), "whole numbers"),
        ("nan", RleSettings(), "stands for an empty mask, set data.rle.also_empty to ..nan"),
        ("-1", RleSettings(), "whole numbers"),
        ("-", RleSettings(), "whole numbers"),
        ("1 -2", RleSettings(), "whole numbers"),
        ("\u0661 \u0662", RleSettings(), "whole numbers"),
        ("1 2\n", RleSettings(), None),
        ("1 2\n4 1", RleSettings(), "whole numbers"),
        ("1 0", RleSettings(), "length 0; .*also_empty to ..1 0"),
        ("authentic", RleSettings(empty="-1"), "also_empty to ..authentic"),
        ("authentic", RleSettings(empty="authentic"), None),
        ("not  forged at all", RleSettings(also_empty=("nan", "not forged at all")), None),
        ("[]", RleSettings(also_empty=["[]"]), None),
        ("3 1 1 0", RleSettings(empty="1 0"), "run 2 has length 0"),
        ("0 1", RleSettings(), "before the first pixel"),
        ("0 1", RleSettings(base=0), None),
        ("0 1", RleSettings(starts="relative"), "before the first pixel"),
        ("5 2", RleSettings(), None),
        ("5 3", RleSettings(), "past the end"),
        ("7 1", RleSettings(), "past the end"),
        ("6 1", RleSettings(base=0), "past the end"),
        ("2 2 2 1", SIIM, "run 2 goes past the end"),
        ("2 2 1 1", SIIM, None),
        ("9223372036854775807 1", RleSettings(), "past the end"),
        ("1 9223372036854775807", RleSettings(), "past the end"),
        ("9223372036854775807 9223372036854775807", SIIM, "past the end"),
        ("99999999999999999999999999 1", RleSettings(), "past the end"),
        ("18446744073709551617 1", RleSettings(), "past the end"),
    ],
)
def test_wrong_strings_are_refused_with_the_reason(text, convention, problem):
    if problem is None:
        decode(text, (2, 3), convention)
    else:
        with pytest.raises(UserError, match=problem):
            decode(text, (2, 3), convention)


def test_runs_out_of_order_or_overlapping_are_legal_unless_a_submission_is_checked():
    for text in ("5 2 1 1", "1 3 2 1", "1 3 1 3", "1 2 2 5 4 1"):
        expected = np.zeros(12, np.uint8)
        numbers = [int(number) for number in text.split()]
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            expected[start - 1 : start - 1 + length] = 1
        np.testing.assert_array_equal(decode(text, (3, 4), RleSettings(order="row")).ravel(), expected)
        with pytest.raises(UserError, match="not in order or overlap"):
            decode(text, (3, 4), disjoint=True)
    touching = decode("1 2 3 2", (3, 4), disjoint=True)
    assert touching.sum() == 4


def test_absurd_numbers_cost_no_memory():
    tracemalloc.start()
    with pytest.raises(UserError):
        decode("1 999999999999999 5 9223372036854775807", (3, 5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), max_size=6), conventions)
def test_any_runs_paint_the_pixels_they_name_or_are_refused(runs, convention):
    """Runs in any order, overlapping or outside, against a mask painted run by run."""
    shape = (3, 4)
    flat = np.zeros(12, np.uint8)
    end, outside = None, False
    for start, length in runs:
        first = end + start if convention.starts == "relative" and end is not None else start - convention.base
        end = first + length
        outside |= first < 0 or end > 12
        flat[max(first, 0) : end] = 1
    expected = flat.reshape(shape) if convention.order == "row" else flat.reshape(4, 3).T
    text = " ".join(f"{start} {length}" for start, length in runs)
    if outside:
        with pytest.raises(UserError):
            decode(text, shape, convention)
    else:
        np.testing.assert_array_equal(decode(text, shape, convention), expected)


@settings(max_examples=FUZZ_EXAMPLES, deadline=None)
@given(st.one_of(st.text(), st.text("0123456789 -.\t", max_size=30)), shapes, conventions)
def test_any_text_is_a_mask_or_a_clear_error(text, shape, convention):
    try:
        mask = decode(text, shape, convention)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert mask.shape == shape and mask.max() <= 1
    if text.split() not in ([], convention.empty.split()):
        numbers = [int(number) for number in text.split()]
        longest, total = max(numbers[1::2]), sum(numbers[1::2])
        assert longest <= mask.sum() <= total


@given(shapes.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, 4))), conventions)
def test_labels_are_encoded_as_each_mask_alone(labels, convention):
    texts = encode_labels(labels, convention)
    assert list(texts) == sorted(set(labels.ravel().tolist()) - {0})
    for label, text in texts.items():
        assert text == encode(labels == label, convention)


@given(shapes.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, 4))), conventions)
def test_labels_come_back(labels, convention):
    numbers = np.unique(labels[labels > 0])
    decoded = decode_labels(list(encode_labels(labels, convention).values()), labels.shape, convention)
    assert decoded.dtype == np.int32 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, np.searchsorted(numbers, labels, side="right") * (labels > 0))


object_runs = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 3)), max_size=3)


@settings(max_examples=FUZZ_EXAMPLES, deadline=None)
@given(st.lists(object_runs, max_size=3), st.sampled_from(["column", "row"]))
def test_any_objects_are_labels_or_a_clear_error(objects, order):
    """Against pixels painted one by one: what may not be in a submission is refused, all else is right."""
    pixels, wrong = np.zeros(12, np.int32), False
    for number, runs in enumerate(objects, start=1):
        position = 0
        for start, length in runs:
            wrong |= length == 0 or start < 1 or start - 1 < position or start - 1 + length > 12
            wrong |= bool(pixels[max(start - 1, 0) : start - 1 + length].any())
            pixels[max(start - 1, 0) : start - 1 + length] = number
            position = start - 1 + length
    texts = [" ".join(f"{start} {length}" for start, length in runs) for runs in objects]
    if wrong:
        with pytest.raises(UserError):
            decode_labels(texts, (3, 4), RleSettings(order=order))
    else:
        expected = pixels.reshape(3, 4) if order == "row" else pixels.reshape(4, 3).T
        np.testing.assert_array_equal(decode_labels(texts, (3, 4), RleSettings(order=order)), expected)


def test_overlapping_objects_are_named():
    with pytest.raises(UserError, match="objects 1 and 3 overlap"):
        decode_labels(["1 4", "9 2", "3 1"], (3, 4))
    with pytest.raises(UserError, match="the runs of object 2 are not in order or overlap"):
        decode_labels(["1 4", "9 2 7 1"], (3, 4))


def test_union_is_what_any_text_holds():
    random = np.random.default_rng(0)
    for convention in CONVENTIONS:
        objects = random.random((5, 7, 9)) < 0.2
        union = decode_union([encode(mask, convention) for mask in objects], (7, 9), convention)
        np.testing.assert_array_equal(union, objects.any(axis=0))
    assert not decode_union([], (2, 3)).any() and decode_union([], (2, 3)).shape == (2, 3)


def test_runs_count_from_zero():
    starts, ends = parse_runs("3 2 9 1", 9)
    assert starts.tolist() == [2, 8] and ends.tolist() == [4, 9]
