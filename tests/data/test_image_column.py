"""A value for each image from a table of its own: the column of the ids, and what is said where there is none."""

import pytest

from lib.base.errors import UserError
from lib.config.data_settings import DataSettings
from lib.data.image_column import named_table_column

FILES = {name: [] for name in ("2", "0", "1")}


def patients(tmp_path, *lines: str, files=FILES, **settings) -> dict[str, str]:
    path = tmp_path / "patients.csv"
    path.write_text("\n".join(lines))
    return named_table_column(path, "data.group_csv", "patient", "data.group", files, DataSettings(**settings))


@pytest.mark.parametrize(
    "lines",
    [
        ("image,patient", "2,C", "0,A", "1,B"),
        ("patient,image", "C,2.jpg", "A,0.jpg", "B,1.jpg", "D,3.jpg"),
        ("patient,path", "C,C:\\data\\2.png", "A,C:\\data\\0.png", "B,C:\\data\\1.png"),
        (",patient,image", "0,C,2", "1,A,0", "2,B,1"),  # pandas' row numbers name all images, too
        ("patient,image,file", "C,2,2.png", "A,0,0.png", "B,1,1.png"),
    ],
)
def test_the_column_of_the_ids_is_the_one_that_names_all_images(tmp_path, lines):
    assert patients(tmp_path, *lines) == {"0": "A", "1": "B", "2": "C"}


def test_two_columns_that_name_all_images_in_other_rows_are_refused(tmp_path):
    with pytest.raises(UserError, match="column 'number' names all images, and so does column 'image', in other rows"):
        patients(tmp_path, "number,patient,image", "0,C,2", "1,A,0", "2,B,1")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (("x0", "x1", "x2"), "column 'image' has 'x0'"),
        (("im_0_mask", "im_1_mask", "im_2_mask"), "something around those of the images, as in {id}_mask; write them"),
        (("0", "1", "2"), "the images' names have something around its ids; .* as in im_{id}"),
        (("IM_0", "IM_1", "IM_2"), r"upper and lower case only.*data.loose_ids=\[case\]"),
    ],
)
def test_ids_that_are_no_images_are_shown_with_the_likely_reason(tmp_path, cells, words):
    files = {f"im_{number}": [] for number in range(3)}
    rows = [f"{patient},{cell}" for patient, cell in zip("ABC", cells, strict=True)]
    with pytest.raises(UserError, match=f"no column of the images' ids, such as 'im_0': .*{words}"):
        patients(tmp_path, "patient,image", *rows, files=files)


def test_a_table_that_pandas_saved_twice_has_no_ids(tmp_path):
    with pytest.raises(UserError, match="no column of the images' ids, such as 'a': the others only number its rows"):
        patients(tmp_path, ",Unnamed: 0,patient", "0,0,A", "1,1,B", files={"a": [], "b": []})


def test_an_image_that_is_absent_from_the_column_is_named(tmp_path):
    with pytest.raises(UserError, match="has no patient for '2'"):
        patients(tmp_path, "patient,image", "A,0", "B,1")


def test_values_that_look_like_ids_are_not_taken_for_the_ids(tmp_path):
    """The patients are 0 to 2, as the images are; the table calls these train_0 to train_2."""
    with pytest.raises(UserError, match=r"no column of the images' ids.* as in train_\{id\}"):
        patients(tmp_path, "name,patient", "train_0,2", "train_1,0", "train_2,1")
