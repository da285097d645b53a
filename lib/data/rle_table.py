"""A table of run lengths: the image and class that each row is about, and the column that holds the run lengths."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lib.base.errors import CLASSES_SHOWN, UserError, listed
from lib.config.data_settings import DataSettings
from lib.data.discovery import clean_id, fill, without_suffix
from lib.data.image_index import id_template
from lib.data.name_patterns import PLACEHOLDER, compile_pattern
from lib.data.tables import Table, column

RLE_COLUMN_HINTS = ("rle", "encod", "predicted", "annotation", "segmentation")
CLASS = "{class}"  # of data.id_pattern
PANDAS_INDEX = ("", "Unnamed: 0")  # names of the column of row numbers that DataFrame.to_csv writes


class Columns(NamedTuple):
    """The columns of a table of run lengths. For None `id_texts` and `guess_rle_column` find the column."""

    id: str | None  # a column, or a template of columns such as {subject}_{img}
    class_name: str | None
    rle: str | None
    id_pattern: str  # what stands in the id column, as in {id}_mask
    prefix: str  # of the settings that say so: `data.` or `data.sample_`
    image_id: str = "{id}"  # the id from the parts of id_pattern, where it has several, as {folder}/{id}
    id_setting: str = "data.image_id"  # which says so
    skip_others: bool = False  # whether rows of a class that data.classes does not name are left out


def training_columns(settings: DataSettings) -> Columns:
    """The columns of data.train_masks."""
    named = settings.id_column, settings.class_column, settings.rle_column
    skip_others = settings.other_classes == "skip"
    return Columns(*named, settings.id_pattern, "data.", settings.image_id, skip_others=skip_others)


def sample_columns(settings: DataSettings, columns: Sequence[str]) -> Columns:
    """The columns of data.sample_submission: what its own settings say, else the training table's if it has them."""

    def chosen(of_sample: str | None, of_training: str | None) -> str | None:
        return of_sample if of_sample is not None or not _has(columns, of_training) else of_training

    return Columns(
        chosen(settings.sample_id_column, settings.id_column),
        chosen(settings.sample_class_column, settings.class_column),
        chosen(settings.sample_rle_column, settings.rle_column),
        settings.sample_id_pattern or settings.id_pattern,
        "data.sample_",
        *id_template(settings, "data.test_images"),
    )


def row_keys(table: Table, path: Path, columns: Columns, classes: list[str]) -> Iterator[tuple[str, int | None]]:
    """Id and class index of each row, None for a class that is left out (data.other_classes).

    With several classes and no class column, the id column holds <id>_<class>, or what data.id_pattern says, as
    {class}_{id}.
    """
    texts = id_texts(table, path, columns)
    read_id = IdReader(columns, path)
    has_class_columns = bool(class_columns(table, columns, classes))
    if columns.class_name:
        names = column(table, columns.class_name, path, f"{columns.prefix}class_column")
        _check_classes(names, path, columns, classes)
        index_of = {name: number for number, name in enumerate(classes)}
        for text, name in zip(texts, names, strict=True):
            yield read_id(text), index_of.get(name)
    elif CLASS in columns.id_pattern and not has_class_columns:
        yield from _keys_by_pattern(texts, path, columns, classes)
    elif len(classes) == 1 or has_class_columns:
        for text in texts:
            yield read_id(text), 0
    else:
        for text in texts:
            if (split := _split_class(text, classes)) is None:
                advice = _class_advice(text, table, columns, classes)
                raise UserError(f"{path}: '{text[:80]}' ends in none of the classes {listed(classes)}; {advice}")
            text, class_index = split
            yield read_id(text), class_index


def _keys_by_pattern(
    texts: Sequence[str], path: Path, columns: Columns, classes: list[str]
) -> Iterator[tuple[str, int | None]]:
    """Id and class index of texts such as <class>_<id>, by data.id_pattern = {class}_{id}.

    Where a class is left out, nothing says what of the text is the id, which is then the whole text.
    """
    by_length = sorted(enumerate(classes), key=lambda numbered: len(numbered[1]), reverse=True)
    readers = [(IdReader(columns, path, name), class_index) for class_index, name in by_length]
    for text in texts:
        read_id, class_index = next((pair for pair in readers if pair[0].fits(text)), (str, None))
        if class_index is None and not columns.skip_others:
            raise UserError(
                f"{path}: '{text[:80]}' is not {columns.prefix}id_pattern = '{columns.id_pattern}' with one of the "
                f"classes {listed(classes)}; set data.classes, or the pattern to the form of these ids"
            )
        yield read_id(text), class_index


def _check_classes(names: list[str], path: Path, columns: Columns, classes: list[str]) -> None:
    """Raise UserError for classes that data.classes does not name, unless they are left out, or if it names none."""
    others = sorted({*names} - {*classes})
    if not others or (columns.skip_others and {*names} & {*classes}):
        return
    rows = sum(name not in classes for name in names)
    remedy = "name the classes as the table does"
    if all(name.partition("_")[0] in classes for name in others):
        remedy = "these are classes with attributes after them; write the table again with the classes alone"
    elif not columns.prefix.endswith("sample_") and not columns.skip_others:
        remedy += ", or set data.other_classes=skip to leave these rows out"
    raise UserError(
        f"{path}: column '{columns.class_name}' has different classes from data.classes ({listed(classes)}) in {rows} "
        f"of {len(names)} rows: {listed(others, shown=CLASSES_SHOWN)}; {remedy}"
    )


def id_texts(table: Table, path: Path, columns: Columns) -> Sequence[str]:
    """The cells of the id column, by default the first, or texts made by the template of columns."""
    name, setting = columns.id, f"{columns.prefix}id_column"
    if name is None:
        name = next(iter(table))
        if is_pandas_index(table, name):
            others = ", ".join(list(table)[1:])
            raise UserError(
                f"{path}: the first column, '{name}', only numbers the rows, as pandas writes its index; "
                f"set {setting} to the column of the ids, one of: {others}"
            )
    if name in table or not PLACEHOLDER.search(name):
        return column(table, name, path, setting)
    parts = {part: column(table, part, path, setting) for part in PLACEHOLDER.findall(name)}
    rows = zip(*parts.values(), strict=True)
    return [fill(name, dict(zip(parts, values, strict=True)), setting) for values in rows]


def is_pandas_index(table: Table, name: str) -> bool:
    """Whether a column holds the row numbers that DataFrame.to_csv writes without index=False."""
    return name in PANDAS_INDEX and len(table) > 2 and table[name] == [str(n) for n in range(len(table[name]))]


def class_columns(table: Table, columns: Columns, classes: list[str]) -> list[str]:
    """The column of each of several classes, called CLASS, rle_CLASS or CLASS_rle; empty unless each class has one."""
    if len(classes) == 1 or columns.class_name is not None:
        return []
    names = ([name, f"rle_{name}", f"{name}_rle"] for name in classes)
    rle_columns = [next((name for name in of_class if name in table), None) for of_class in names]
    return rle_columns if all(rle_columns) else []


def class_index_of(name: str, classes: list[str], source: Path | str, pattern: str) -> int:
    """The number of the class of a file that a pattern finds. Raises UserError for one that data.classes lacks."""
    if name not in classes:
        segment = next(part for part in pattern.split("/") if CLASS in part)
        before = PLACEHOLDER.search(segment.partition(CLASS)[0])
        why = f" (what the shortest {before[0]} leaves of its name)" if before else ""
        raise UserError(
            f"{source} has the class '{name}'{why}, which is not one of data.classes ({listed(classes)}); name the "
            "classes as it does, or set data.other_classes=skip to leave out the others"
        )
    return classes.index(name)


def named_like_rle(names: Iterable[str]) -> list[str]:
    """The columns whose names say that they hold run lengths."""
    return [name for name in names if any(hint in name.lower() for hint in RLE_COLUMN_HINTS)]


def guess_rle_column(names: Sequence[str], columns: Columns, path: Path | str) -> str:
    """The column of the run lengths: by its name, or the only one beside the ids and classes."""
    id_names = PLACEHOLDER.findall(columns.id or "") or [columns.id or names[0]]
    others = [name for name in names if name not in (*id_names, columns.class_name, *PANDAS_INDEX)]
    for candidates in (named_like_rle(others), others):
        if len(candidates) == 1:
            return candidates[0]
    setting = f"{columns.prefix}rle_column"
    if not others:
        raise UserError(f"{path} has no column of run lengths ({setting}); its columns are: {', '.join(names)}")
    raise UserError(f"{path}: set {setting} to the column of the run lengths, one of: {', '.join(names)}")


class IdReader:
    """Reads ids from the texts of an id column. Raises UserError if data.id_pattern gives two texts the same id."""

    def __init__(self, columns: Columns, path: Path, class_name: str | None = None):
        self.path, self.setting = path, f"{columns.prefix}id_pattern"
        self.pattern, self.template = columns.id_pattern, (columns.image_id, columns.id_setting)
        form = without_suffix(self.pattern)  # as the texts are read
        known = () if class_name is None else (("class", class_name),)
        self.expression = None if form == "{id}" else compile_pattern(form, known)
        self.text_of: dict[str, str] = {}

    def fits(self, text: str) -> bool:
        """Whether a text has the form of data.id_pattern, which has parts beside the id."""
        return self.expression.fullmatch(without_suffix(text.replace("\\", "/"))) is not None

    def __call__(self, text: str) -> str:
        text = text.replace("\\", "/")  # as Windows writes paths
        if self.expression is not None:
            return self._inside(without_suffix(text))
        if "/" in text:
            raise UserError(
                f"{self.path} has the id {ascii(text[:80])}, which cannot be used as a file name; "
                f"if it is an id behind a folder, set {self.setting}=*/{{id}}"
            )
        return clean_id(text, self.path)

    def _inside(self, text: str) -> str:
        match = self.expression.fullmatch(text)
        if match is None:
            raise UserError(f"{self.path} has the id {ascii(text[:80])}, not one of {self.setting} = '{self.pattern}'")
        parts = match.groupdict()
        template, setting = self.template
        image_id = clean_id(match["id"] if len(parts) == 1 else fill(template, parts, setting), self.path)
        if self.text_of.setdefault(image_id, text) != text:
            texts = f"'{self.text_of[image_id]}' and '{text}'"
            raise UserError(
                f"{self.path}: {texts} are both '{image_id}' by {self.setting} = '{self.pattern}'; tell them apart by "
                f"{self.setting}={{folder}}/{{id}}, the images' pattern .../{{folder}}/{{id}}.png, and "
                f"data.image_id={{folder}}_{{id}}, or, if these are classes, set data.classes and {self.setting} with "
                "{class} in the place of the folder"
            )
        return image_id


def _split_class(text: str, classes: list[str]) -> tuple[str, int] | None:
    """Id and class index of <id>_<class>; the sign between them may be any that is no letter or digit.

    A class may itself hold such signs; the longest one that fits is taken.
    """
    for name in sorted(classes, key=len, reverse=True):
        image_id = text.removesuffix(name)
        if image_id[1:] and image_id != text and not image_id[-1].isalnum():
            return image_id[:-1], classes.index(name)
    return None


def _class_advice(text: str, table: Table, columns: Columns, classes: list[str]) -> str:
    """Advice if the id column does not hold <id>_<class>: the column of the classes, or where the class stands."""
    setting = f"{columns.prefix}class_column"
    if holding := [name for name, values in table.items() if set(values) & set(classes)]:
        return f"set {setting}={holding[0]}, the column that holds them"
    if written := next(filter(None, (_around_class(text, name) for name in classes)), None):
        return f"if the class stands elsewhere, say where, as in {columns.prefix}id_pattern={written}"
    return f"set data.classes, or {setting} to the column of the classes, one of: {', '.join(table)}"


def _around_class(text: str, name: str) -> str | None:
    """The form of a text that holds a class between signs, as in {class}_{id}; None if it holds none."""
    match = re.fullmatch(rf"(?:.*?([\W_]))??{re.escape(name)}(?:([\W_]).*)?", without_suffix(text.replace("\\", "/")))
    before, after = match.groups(default="") if match else ("", "")
    if after:
        return f"{before and '*'}{before}{CLASS}{after}{{id}}"
    return f"{{id}}{before}{CLASS}" if before else None


def _has(names: Sequence[str], name: str | None) -> bool:
    """Whether there is a column of that name, or every column of a template."""
    return name is not None and (name in names or bool(parts := PLACEHOLDER.findall(name)) and set(parts) <= set(names))
