"""The index of the training masks: for each image and class, the run lengths or the mask files that make up its mask.

The index is matched with the images as data.images_without_mask and data.masks_without_image say. Run lengths stay in
memory as text; mask files are only listed.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lib.base.errors import UserError, has, listed
from lib.config.data_settings import DataSettings
from lib.data.annotations import read_annotations
from lib.data.discovery import (
    ANNOTATION_SUFFIXES,
    PLACEHOLDER,
    WILDCARD,
    find_files,
    is_excluded,
    make_id,
    without_suffix,
)
from lib.data.id_match import (
    AS_NUMBERS,
    REWRITTEN,
    IdSource,
    Names,
    likely_mistake,
    match_ids,
    why_without_mask,
)
from lib.data.image_index import id_template
from lib.data.number_shift import other_start, shifted_numbers
from lib.data.rle_table import (
    class_columns,
    class_index_of,
    guess_rle_column,
    named_like_rle,
    row_keys,
    training_columns,
)
from lib.data.tables import TABLE_SUFFIXES, Table, column, read_table

LONGEST_CELL = (32_766, 32_767)  # characters that a spreadsheet's cell may have, the last of which may be a blank

Masks = dict[str, list[list[str]]]  # by id and class: run lengths or mask files, all of them together being the mask


def is_table(masks: str) -> bool:
    """Whether a setting points to texts, run lengths or annotations, and not to mask images."""
    return is_rle_table(masks) or is_annotations(masks)


def is_rle_table(masks: str) -> bool:
    """Whether a setting points to a table of run lengths."""
    return masks.lower().endswith(TABLE_SUFFIXES)


def is_annotations(masks: str) -> bool:
    """Whether a setting points to annotation files."""
    return masks.lower().endswith(ANNOTATION_SUFFIXES)


def read_masks_table(settings: DataSettings, setting: str) -> Table:
    """The csv of run lengths that data.train_masks names; one table of all files where it is a pattern.

    `setting` is the one that settings.train_masks comes from, here and below.
    """
    whole: Table = {}
    for path in masks_table_files(settings, setting):
        table = read_table(path, setting)
        if whole and whole.keys() != table.keys():
            raise UserError(f"{path} has the columns {', '.join(table)}, but the table before it {', '.join(whole)}")
        for name, values in table.items():
            whole.setdefault(name, []).extend(values)
    return whole


def masks_table_files(settings: DataSettings, setting: str = "data.train_masks") -> list[Path]:
    """The files of run lengths or annotations that data.train_masks names."""
    if not WILDCARD.search(settings.train_masks):
        return [settings.root / settings.train_masks]
    return [Path(path) for _, path in find_files(settings.root, settings.train_masks, setting)]


def index_masks(settings: DataSettings, table: Table | None, setting: str = "data.train_masks") -> Masks:
    """The masks of all ids, excluded ones too, from the table, or from mask files where there is no table."""
    if is_annotations(settings.train_masks):
        return read_annotations(settings, setting)
    if table is None:
        return _masks_from_files(settings, setting)
    return _masks_from_table(table, settings, setting)


def _masks_from_table(table: Table, settings: DataSettings, setting: str) -> Masks:
    """Run lengths by id and class, of all ids in the table."""
    masks: Masks = defaultdict(lambda: [[] for _ in settings.classes])
    for image_id, class_index, text in _texts(table, settings, setting):
        masks[image_id][class_index].append(text)
    return dict(masks)


def _texts(table: Table, settings: DataSettings, setting: str) -> Iterator[tuple[str, int, str]]:
    """Id, class index and run lengths of each row, or of each row and class where each class has a column."""
    columns, path = training_columns(settings), settings.root / settings.train_masks
    keys = row_keys(table, path, columns, settings.classes)
    names = class_columns(table, columns, settings.classes)
    if not names:
        candidates = [columns.rle] if columns.rle in table else named_like_rle(table) or list(table)[1:]
        _refuse_file_names(table, path, candidates, setting)
        names = [columns.rle or guess_rle_column(list(table), columns, path)]
    rle_columns = [column(table, name, path, "data.rle_column") for name in names]
    longest = max((len(text) for texts in rle_columns for text in texts), default=0)
    if settings.doubtful_rle == "error" and longest in LONGEST_CELL:
        raise UserError(
            f"{path}: the longest run lengths have {longest} characters, where spreadsheets cut a cell; "
            "take the file as it was before a spreadsheet wrote it, or set data.doubtful_rle=read if it is whole"
        )
    for (image_id, first), texts in zip(keys, zip(*rle_columns, strict=True), strict=True):
        for class_index, text in enumerate(texts, start=first) if first is not None else ():
            yield image_id, class_index, text


def _refuse_file_names(table: Table, path: Path, columns: list[str], setting: str) -> None:
    """Raise UserError, with the pattern to set, if a column holds the names of mask files instead of run lengths."""
    for name in columns:
        rows = [(key, text) for key, text in zip(next(iter(table.values())), table[name], strict=True) if text]
        if rows and all(without_suffix(text) != text for _, text in rows):
            patterns = {
                str(Path(text).with_name(Path(text).name.replace(Path(key).stem, "{id}", 1))) for key, text in rows
            }
            pattern = patterns.pop() if len(patterns) == 1 else "masks/{id}.png"
            raise UserError(
                f"{path}: column '{name}' names files, such as {rows[0][1]}, and holds no run lengths; set "
                f"{setting} to the folder or pattern of the mask files, such as {pattern}"
            )


def _masks_from_files(settings: DataSettings, setting: str) -> Masks:
    """Mask files by id and class, of all ids. Those of excluded ids may name no class: they only must not be images."""
    pattern = settings.train_masks
    if len(settings.classes) > 1 and "{class}" not in pattern and not settings.are_indexed:
        raise UserError(
            f"{setting} = '{pattern}' must say where the {{class}} stands, as in masks/{{class}}/{{id}}.png, or "
            "data.classes must say which values of each file are of which class, as in {nucleus: 1, border: 2}"
        )
    masks: Masks = defaultdict(lambda: [[] for _ in settings.classes])
    template = id_template(settings, setting)
    for parts, path in find_files(settings.root, pattern, setting, settings.classes):
        image_id = make_id(template[0], parts, path, template[1])
        if is_excluded(image_id, settings):
            masks[image_id][0].append(path)
            continue
        names = settings.classes if settings.are_indexed else [parts.get("class", settings.classes[0])]
        for name in names:
            if name in settings.classes or settings.other_classes == "error":
                masks[image_id][class_index_of(name, settings.classes, path, pattern)].append(path)
    return dict(masks)


def files_of_other_classes(settings: DataSettings) -> list[str]:
    """The files that data.other_classes leaves out; images, too, where `{id}_{class}` fits their names."""
    if settings.other_classes == "error" or "{class}" not in settings.train_masks or is_table(settings.train_masks):
        return []
    files = find_files(settings.root, settings.train_masks, "data.train_masks", settings.classes)
    return [path for parts, path in files if parts["class"] not in settings.classes]


def check_single(masks: Masks, settings: DataSettings, what: str) -> None:
    """Raise UserError if an image has several masks of one class and the settings do not allow it."""
    several = sorted(image_id for image_id, pieces in masks.items() if max(map(len, pieces)) > 1)
    if settings.instances or not several:
        return
    if rewritten := [name for name in several if REWRITTEN.fullmatch(name)]:
        raise UserError(f"{listed(rewritten)} {has(rewritten)} several {what}: {AS_NUMBERS}")
    if all(len({*texts}) < 2 for image_id in several for texts in masks[image_id]):
        raise UserError(f"{listed(several)} {has(several)} several {what} that are the same; leave only one of each")
    first = next(texts for texts in masks[several[0]] if len(texts) > 1)
    shown = "" if is_table(settings.train_masks) else f", such as {first[0]} and {first[1]}"
    raise UserError(
        f"{listed(several)} {has(several)} several {what}{shown}; set data.instances=true if each is an object of "
        "the image"
    )


def paths_of_masks(masks: Masks, settings: DataSettings) -> set[str]:
    """The paths of the mask files, which are no images wherever they lie; none if the masks are texts."""
    if is_table(settings.train_masks):
        return set()
    return {path for pieces in masks.values() for paths in pieces for path in paths}


def match_masks(
    masks: Masks, table: Table | None, files: dict[str, list[str]], settings: DataSettings, excluded: set[str]
) -> tuple[Masks, int, int]:
    """The masks of the images that are there, as data.images_without_mask says.

    After them come two counts: images left out because they have no mask, and masks because they have no image.
    `excluded` are the ids of images that data.exclude leaves out; their masks, and those of ids that it names, are left
    out, too. Raises UserError if the settings do not allow what is missing. Whatever they say, it is also raised if no
    mask belongs to an image, or if a likely mistake explains why masks and images do not match.
    """
    source, images = settings.root / settings.train_masks, settings.root / settings.train_images
    masks, gone = _without_excluded(masks, {*files, *excluded}, settings, str(source))
    files = {image_id: paths for image_id, paths in files.items() if image_id not in gone}
    check_single(masks, settings, f"{_pieces(settings)} in {source}")
    lost, bare = sorted(masks.keys() - files.keys()), sorted(files.keys() - masks.keys())
    described = _described(masks, table, files, settings)
    if lost and (doubt := shifted_numbers(masks, files)):
        raise UserError(
            f"{listed(lost, 'mask')} of {source} {has(lost)} no image in {images}: {doubt}, or leave these out with "
            "data.exclude if equal numbers are the same image"
        )
    if mistake := likely_mistake(lost, bare, described):
        raise UserError(f"{listed(lost, 'mask')} of {source} {has(lost)} no image in {images}: {mistake}")
    if not masks:
        or_excluded = ", or data.exclude leaves all out" if settings.exclude else ""
        raise UserError(f"{source} (data.train_masks) holds no mask of any image{or_excluded}")
    if len(lost) == len(masks):
        raise UserError(
            f"no image in {images} has a mask in {source}: the images are {listed(bare)}, the masks {listed(lost)}; "
            "set data.train_images, and data.train_masks or data.id_column, so that their ids are the same"
        )
    if lost and settings.masks_without_image == "error":
        raise UserError(
            f"{listed(lost, 'mask')} of {source} {has(lost)} no image in {images}; "
            "set data.masks_without_image=skip if they are to be left out"
        )
    suspects = [(bare, settings.images_without_mask)]
    if bare and settings.images_without_mask == "empty":
        others = {*files_of_other_classes(settings)}
        suspects.append(([image_id for image_id in bare if files[image_id][0] in others], "error"))
    for images_without, allowed in suspects:
        if mistake := why_without_mask(images_without, files.keys() - {*bare}, described, allowed):
            raise UserError(f"{listed(images_without, 'image')} {has(images_without)} no mask in {source}: {mistake}")
    matched = _of_images(masks, files, settings)
    return matched, len(files) - len(matched), len(lost)


def _without_excluded(masks: Masks, image_ids: set[str], settings: DataSettings, source: str) -> tuple[Masks, set[str]]:
    """Masks by the ids of their images, and the images whose only mask is excluded under another form of its id."""
    named = {name for name in masks if is_excluded(name, settings)}
    image_of = match_ids(masks.keys() - named, image_ids, settings.loose_ids, source)
    kept = {image_id: masks[name] for name, image_id in image_of.items() if not is_excluded(image_id, settings)}
    return kept, {*match_ids(named, image_ids, settings.loose_ids, source).values()} - kept.keys()


def _pieces(settings: DataSettings) -> str:
    """The noun for several pieces of one mask, in messages."""
    if is_annotations(settings.train_masks):
        return "objects"
    return "rows" if is_rle_table(settings.train_masks) else "mask files"


def _described(masks: Masks, table: Table | None, files: dict[str, list[str]], settings: DataSettings) -> IdSource:
    """The masks and images as likely_mistake takes them."""
    image_file = next(iter(files.values()))[0] if files else ""
    has_files = not is_table(settings.train_masks)
    mask_file = next((paths[0] for pieces in masks.values() for paths in pieces if paths and has_files), "")
    are_in_names = has_files or PLACEHOLDER.search(settings.train_masks)
    names = Names("data.train_masks", settings.train_masks, mask_file) if are_in_names else None
    return IdSource(table, "data.", Names("data.train_images", settings.train_images, image_file), names)


def _of_images(masks: Masks, files: dict[str, list[str]], settings: DataSettings) -> Masks:
    """The masks of all images, or of those that have one, as data.images_without_mask says."""
    if settings.images_without_mask == "empty":
        nothing = [[] for _ in settings.classes]
        return {image_id: masks.get(image_id, nothing) for image_id in files}
    matched = {image_id: masks[image_id] for image_id in files if image_id in masks}
    bare = [image_id for image_id in files if image_id not in masks] if settings.images_without_mask == "error" else []
    partial = [image_id for image_id, pieces in matched.items() if not all(pieces)]
    if odd := sorted(bare + partial):
        advice = "empty (or skip) if that is right"
        if partial:
            advice = (
                "empty if there is nothing of the classes that are missing (skip leaves out only images without any "
                "mask, data.exclude any image)"
            )
        raise UserError(
            f"{listed(odd, 'image')} {has(odd)} no mask in {settings.root / settings.train_masks}, or not for every "
            f"class; set data.images_without_mask={advice}{other_start(masks, files)}"
        )
    return matched
