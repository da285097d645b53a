"""Reading csv files: text stays text, and every malformed table is refused by file and line."""

import csv
import gzip
import io
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.base.errors import UserError
from lib.data.tables import column, read_table

FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 300))


def write(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_values_stay_as_written(tmp_path):
    path = write(
        tmp_path / "a.csv", 'id, rle\n007, 1 2\n1e5,NA\n 12345678901234567890 , -1\nnull,""\n"a,b","x ""y"""\n'
    )
    assert read_table(path, "data.x") == {
        "id": ["007", "1e5", "12345678901234567890", "null", "a,b"],
        "rle": ["1 2", "NA", "-1", "", 'x "y"'],
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_and_blank_lines(tmp_path, end):
    path = write(tmp_path / "a.csv", "\ufeff" + end.join(["id,rle", "a,1 2", "", "b,"]) + end)
    assert read_table(path, "data.x") == {"id": ["a", "b"], "rle": ["1 2", ""]}


def test_a_header_alone_is_an_empty_table(tmp_path):
    assert read_table(write(tmp_path / "a.csv", "id,class,rle\n"), "data.x") == {"id": [], "class": [], "rle": []}


def test_a_field_may_hold_a_whole_slide(tmp_path):
    text = "1 1 " * 100_000
    assert read_table(write(tmp_path / "a.csv", f"id,rle\na,{text}\n"), "data.x")["rle"] == [text.strip()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\nid,rle\na,1\n", "begins with a blank line; its first line must name the columns"),
        (b" \r\nid,rle\r\na,1\r\n", "begins with a blank line"),
        (b"id|rle\na,1\n", "has one column, 'id|rle'; separate"),
        (b"id,rle\na\n", "line 2: 1 value, but 2 columns"),
        (b"id,rle\na,1,2\n", "line 2: 3 values, but 2 columns"),
        (b"id,rle\na,1\nb,1,\n", "line 3: 3 values"),
        (b"id,id\na,1\n", "two columns of the same name"),
        (b"id,rle\n\xff\xfe,1\n", "UTF-8"),
        (b'id,rle\n"a,1\n', "csv"),
        (b'id,rle\n"a"b,1\n', "csv"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, content, problem):
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=problem) as caught:
        read_table(path, "data.x")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_tabs_semicolons_and_gzip(tmp_path, delimiter, suffix):
    rows = [["id", "a,b;c\td"], ["x", f"1{delimiter}2"], ["y", ""]]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    content = file.getvalue().encode()
    path = write(tmp_path / f"a{suffix}", gzip.compress(content) if suffix.endswith("gz") else content)
    assert read_table(path, "data.x") == {"id": ["x", "y"], "a,b;c\td": [f"1{delimiter}2", ""]}


CUT = gzip.compress(b"id,rle\na,1 1\n" * 50)[:-20]


@pytest.mark.parametrize("content", [b"id,rle\n", CUT, b""], ids=["not gzip", "cut", "empty"])
def test_a_damaged_gzip_file_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="a.csv.gz"):
        read_table(write(tmp_path / "a.csv.gz", content), "data.x")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="a.parquet is a parquet file, .* pip install pyarrow"):
        read_table(tmp_path / "a.parquet", "data.x")


def test_parquet_values_are_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"id": [7, 8], "rle": ["1 2 ", None], "list": [[1, 2], []], "share": [0.5, float("nan")]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", "data.x") == {
        "id": ["7", "8"], "rle": ["1 2", ""], "list": ["1 2", ""], "share": ["0.5", ""],
    }  # fmt: skip
    with pytest.raises(UserError, match="b.parquet is not a parquet file"):
        read_table(write(tmp_path / "b.parquet", "id,rle"), "data.x")
    with pytest.raises(UserError, match="c.parquet does not exist .data.x"):
        read_table(tmp_path / "c.parquet", "data.x")


def test_absent_tables_and_columns_name_the_setting(tmp_path):
    with pytest.raises(UserError, match="gone.csv does not exist .data.train_masks"):
        read_table(tmp_path / "gone.csv", "data.train_masks")
    with pytest.raises(UserError, match="a.csv"):
        (tmp_path / "a.csv").mkdir()
        read_table(tmp_path / "a.csv", "data.x")
    with pytest.raises(UserError, match="no column 'mask' .data.rle_column.; its columns are: id, rle"):
        column({"id": [], "rle": []}, "mask", tmp_path / "a.csv", "data.rle_column")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=2), max_size=5
    )
)
def test_reads_back_what_csv_writes(tmp_path, rows):
    """Whatever text a table holds, the reader gives it back, without the blanks around it."""
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "rle"], *rows])
    table = read_table(path, "data.x")
    assert table["id"] == [row[0].strip() for row in rows]
    assert table["rle"] == [row[1].strip() for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=FUZZ_EXAMPLES)
@given(st.one_of(st.binary(max_size=60), st.text('id,rle"\r\n\t \0é;12', max_size=40).map(str.encode)))
def test_any_bytes_are_a_table_or_a_clear_error(tmp_path, content):
    path = write(tmp_path / "a.csv", content)
    try:
        table = read_table(path, "data.x")
    except UserError as error:
        assert str(path) in str(error)
        return
    assert table and len({len(values) for values in table.values()}) == 1
