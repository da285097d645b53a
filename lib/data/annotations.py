"""Annotation files: COCO json, jsonl of polygons, labelme json and YOLO segmentation txt.

Reading gives one text for each object, a small JSON object that lib/data/annotation_masks.py paints once the image's
size is known.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lib.base.errors import CLASSES_SHOWN, UserError, listed
from lib.base.files import read_text
from lib.config.data_settings import DataSettings
from lib.data.discovery import PLACEHOLDER, WILDCARD, find_files, is_excluded, make_id
from lib.data.rle_table import IdReader, training_columns
from lib.data.yolo_classes import CLASS_LIST, names_of_numbers
from lib.images.headers import suffix_of

LABEL_STUDIO = " of Label Studio's tasks, which it exports as COCO json or as brush masks, too (docs/inputs.md)"
KINDS = "COCO json, labelme json, jsonl of polygons (HuBMAP) and YOLO segmentation txt; draw others as mask images"

Object = dict  # polygons, run lengths or a PNG, and the size of the image that they are for, if the file says it


class Annotated(NamedTuple):
    """The objects of an image by the name of their class, or YOLO's number; none where a file says so."""

    id: str
    objects: list[tuple[str | int, Object]]
    source: str


def read_annotations(settings: DataSettings, setting: str = "data.train_masks") -> dict[str, list[list[str]]]:
    """For each annotated image and class the texts of its objects; a blank text for a class without any.

    `setting` is the one that settings.train_masks comes from, here and below. Raises UserError for a file of unknown
    kind, and for classes that data.classes does not name unless data.other_classes is `skip`.
    """
    images = list(_annotated(settings, setting))
    index_of = _class_indexes({name for image in images for name, _ in image.objects}, settings)
    masks: dict[str, list[list[str]]] = {}
    for image in images:
        if image.id in masks:
            raise UserError(f"{image.source} has image '{image.id}' twice ({setting})")
        texts = masks[image.id] = [[] for _ in settings.classes]
        for name, shape in image.objects:
            if name in index_of:
                texts[index_of[name]].append(json.dumps(shape, separators=(",", ":")))
        for of_class in texts:
            of_class[:] = of_class or [""]
    return masks


def _annotated(settings: DataSettings, setting: str) -> Iterator[Annotated]:
    """The images of one annotation file, or of the files of a pattern."""
    pattern = settings.train_masks
    if not WILDCARD.search(pattern):
        yield from _images_of_file(settings.root / pattern, None, settings, setting)
        return
    for parts, path in find_files(settings.root, pattern, setting):
        if os.path.basename(path) == CLASS_LIST:
            continue
        if not parts.keys() >= {*PLACEHOLDER.findall(settings.image_id)}:  # its images are named inside
            yield from _images_of_file(Path(path), None, settings, setting)
        elif not is_excluded(make_id(settings.image_id, parts, path), settings):
            yield from _images_of_file(Path(path), parts, settings, setting)


def _images_of_file(
    path: Path, parts: dict[str, str] | None, settings: DataSettings, setting: str
) -> Iterator[Annotated]:
    """The images of a file; `parts` are those of its name, where each image has a file of its own."""
    if not path.exists():
        raise UserError(f"annotations {path} do not exist ({setting})")
    content = read_text(path)
    try:
        match suffix_of(path):
            case ".txt":
                image_id = _id_of_file(path, parts, settings, setting)
                yield Annotated(image_id, list(_yolo_objects(content)), str(path))
            case ".jsonl":
                yield from _jsonl_images(content, path, settings)
            case _:
                yield from _json_images(json.loads(content), path, parts, settings, setting)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        problem = str(error) if isinstance(error, ValueError) else repr(error)
        raise UserError(f"{path} cannot be read as annotations: {problem}; those read are {KINDS}") from None


def _id_of_file(path: Path, parts: dict[str, str] | None, settings: DataSettings, setting: str) -> str:
    if parts is None:
        raise UserError(
            f"{path} holds the annotations of one image; set {setting} to the pattern of all such files, as in "
            f"{Path(settings.train_masks).parent / '{id}'}{path.suffix}"
        )
    return make_id(settings.image_id, parts, str(path))


def _json_images(
    content: object, path: Path, parts: dict[str, str] | None, settings: DataSettings, setting: str
) -> Iterator[Annotated]:
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        yield from _coco_images(content, path, settings)
    elif isinstance(content, dict) and "shapes" in content:
        image_id = _id_of_file(path, parts, settings, setting)
        yield Annotated(image_id, list(_labelme_objects(content)), str(path))
    else:
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(f"it holds {keys}{LABEL_STUDIO if _is_of_label_studio(content) else ''}")


def _is_of_label_studio(content: object) -> bool:
    if not isinstance(content, list) or not content:
        return False
    return all(isinstance(task, dict) and {"annotations", "data"} <= task.keys() for task in content)


def _coco_images(content: dict, path: Path, settings: DataSettings) -> Iterator[Annotated]:
    """Images are known by the names of their files. A crowd is a region of objects not told apart."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(content[key], list):
            raise ValueError(f"COCO json has a list of {key}, and this file a {type(content[key]).__name__}")
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    sizes = {image["id"]: _size(image["height"], image["width"]) for image in content["images"]}
    objects = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation.get("iscrowd") and settings.crowd is None:
            raise UserError(
                f"{path} has crowds, regions of objects not told apart; set data.crowd=mask to take them as mask, or "
                "skip to leave them out"
            )
        if annotation.get("iscrowd") and settings.crowd == "skip":
            continue
        segmentation, size = annotation.get("segmentation"), sizes[annotation["image_id"]]
        if not segmentation:
            raise ValueError(f"annotation {annotation.get('id')} has no segmentation, perhaps only a box")
        if isinstance(segmentation, dict):
            shape = {"counts": segmentation["counts"], "size": segmentation["size"]}
        else:
            shape = {"polygons": segmentation, "size": size}
        objects[annotation["image_id"]].append((names[annotation["category_id"]], shape))
    read_id = IdReader(training_columns(settings), path)
    for image in content["images"]:
        yield Annotated(read_id(image["file_name"]), objects[image["id"]], str(path))


def _jsonl_images(content: str, path: Path, settings: DataSettings) -> Iterator[Annotated]:
    """A line for each image: {"id": ..., "annotations": [{"type": ..., "coordinates": [[[x, y], ...]]}, ...]}."""
    read_id = IdReader(training_columns(settings), path)
    for line in filter(str.strip, content.splitlines()):
        image = json.loads(line)
        objects = []
        for annotation in image["annotations"]:
            rings = annotation["coordinates"]
            if len(rings) != 1:
                raise ValueError(f"a polygon of '{image['id']}' has {len(rings)} rings, and only one is read")
            objects.append((str(annotation["type"]), {"polygons": [_flat(rings[0])]}))
        yield Annotated(read_id(str(image["id"])), objects, str(path))


def _labelme_objects(content: dict) -> Iterator[tuple[str, Object]]:
    """Polygons, rectangles and masks; shapes of one label and group number are one object."""
    size = _size(content["imageHeight"], content["imageWidth"])
    grouped: dict[tuple, list[list[float]]] = defaultdict(list)
    for number, shape in enumerate(content["shapes"]):
        kind, points = shape.get("shape_type") or "polygon", shape["points"]
        if kind == "mask":
            yield shape["label"], {"png": shape["mask"], "at": points[0], "size": size}
            continue
        if kind == "rectangle" and len(points) == 2:  # X-AnyLabeling writes all four corners
            (left, top), (right, bottom) = points
            points = [(left, top), (right, top), (right, bottom), (left, bottom)]
        elif kind not in ("polygon", "rectangle", "rotation"):
            raise ValueError(
                f"a shape called '{shape['label']}' is a {kind}; polygons, rectangles and masks are read: delete it in "
                "labelme, or leave the image out (data.exclude)"
            )
        group = shape.get("group_id")
        grouped[shape["label"], number if group is None else f"group {group}"].append(_flat(points))
    for (label, _), polygons in grouped.items():
        yield label, {"polygons": polygons, "size": size}


def _yolo_objects(content: str) -> Iterator[tuple[int, Object]]:
    """A line for each object: the number of its class, from 0, then x y x y ... from 0 to 1."""
    for line in filter(str.strip, content.splitlines()):
        number, *coordinates = line.split()
        if len(coordinates) == 4:
            raise ValueError(f"'{line.strip()[:60]}' is a box and not a polygon")
        if not number.isdecimal():
            raise ValueError(
                f"'{line.strip()[:60]}' does not begin with the number of a class; if this is the list of class names, "
                f"rename it to {CLASS_LIST}"
            )
        if len(coordinates) % 2:
            raise ValueError(
                f"'{line.strip()[:60]}' has {len(coordinates)} numbers after that of the class, and x and y need an "
                "even number; remove what is not a corner, such as a confidence at the end"
            )
        yield int(number), {"polygons": [list(map(float, coordinates))], "relative": True}


def _class_indexes(found: set[str | int], settings: DataSettings) -> dict[str | int, int]:
    """The class index of each name or number that is read.

    The only class may have any name or number where data.classes is not set.
    """
    if len(found) == 1 and settings.classes == ["mask"]:
        return dict.fromkeys(found, 0)
    name_of = {name: name for name in found if isinstance(name, str)}
    name_of |= names_of_numbers(found - name_of.keys(), settings)
    index_of = _indexes_of_names(set(name_of.values()), settings)
    return {key: index_of[name] for key, name in name_of.items() if name in index_of}


def _indexes_of_names(names: set[str], settings: DataSettings) -> dict[str, int]:
    """The number of each class that is read. Raises UserError for others, unless data.other_classes is `skip`."""
    source, unknown = settings.root / settings.train_masks, names - set(settings.classes)
    known, found = listed(settings.classes), listed(sorted(names), shown=CLASSES_SHOWN)
    if unknown and settings.other_classes == "error":
        raise UserError(
            f"{source} has the classes {found}, but data.classes is {known}; name there those to be learned, and set "
            "data.other_classes=skip to leave out the others"
        )
    if unknown and unknown == names:
        raise UserError(f"{source} has none of data.classes ({known}), but {found}")
    return {name: settings.classes.index(name) for name in names - unknown}


def _size(*lengths: str | float) -> list[float]:
    """Height and width, which some tools write as text. Raises ValueError for anything but numbers."""
    try:
        numbers = [float(length) for length in lengths]
    except (TypeError, ValueError):
        raise ValueError(f"its height and width are {' and '.join(map(repr, lengths))}, not numbers") from None
    return [int(number) if number.is_integer() else number for number in numbers]


def _flat(points: list) -> list[float]:
    return [float(value) for x, y in points for value in (x, y)]
