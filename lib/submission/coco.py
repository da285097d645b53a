"""Masks as COCO json: each connected object, or each object where submission.rows is instance, is an annotation.

`coco` is a data set of images, categories and annotations, as annotation tools read it; `coco_results` is the list of
annotations alone, as COCO's evaluation takes it. Categories are numbered from 1 in the order of data.classes. Ids of
digits stand as numbers, as COCO's do, unless two would be the same.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lib.base.files import atomic_path
from lib.config.schema import Settings
from lib.data.annotation_masks import require_pycocotools
from lib.data.competition import TestData
from lib.masks.metrics import planes
from lib.masks.morphology import components


def write_coco(
    path: Path, data: TestData, predictions: Iterable[tuple[str, np.ndarray, np.ndarray]], settings: Settings
) -> int:
    """Write the annotations of (id, maps, masks), both (height, width, classes); return their number.

    An annotation's score is the mean probability of its pixels. Raises UserError without pycocotools.
    """
    numbers = _image_numbers(data.ids)
    is_data_set = settings.submission.format == "coco"
    sizes = {}
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [' if is_data_set else "[")
        count = 0
        for image_id, maps, masks in predictions:
            sizes[image_id] = masks.shape[:2]
            for annotation in annotations(maps, masks, settings):
                count += 1
                named = {"id": count} if is_data_set else {}
                file.write(",\n" if count > 1 else "\n")
                file.write(json.dumps({**named, "image_id": numbers[image_id], **annotation}))
        file.write("\n]")
        if is_data_set:
            categories = [{"id": index, "name": name} for index, name in enumerate(settings.data.classes, start=1)]
            images = [
                {"id": numbers[id], "file_name": data.image_path(id).name, "height": height, "width": width}
                for id, (height, width) in sizes.items()
            ]
            file.write(f', "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}')
    return count


def annotations(maps: np.ndarray, masks: np.ndarray, settings: Settings) -> Iterator[dict]:
    """The objects of an image: category, compressed run lengths, box (left, top, width, height), area and score."""
    coco = require_pycocotools()
    for class_index, plane in enumerate(planes(masks)):
        labels = plane if settings.submission.rows == "instance" else components(plane)[0]
        for number in range(1, labels.max(initial=0) + 1):
            mask = labels == number
            encoded = coco.encode(np.asfortranarray(mask.view(np.uint8)))
            yield {
                "category_id": class_index + 1,
                "segmentation": {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode()},
                "bbox": [float(value) for value in coco.toBbox(encoded)],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": 0,
                "score": round(float(maps[..., class_index][mask].mean() / 255), 4),
            }


def _image_numbers(ids: list[str]) -> dict[str, int | str]:
    """Ids as integers, as in COCO; text if one of them is not a number, or if two are the same, such as 1 and 01."""
    are_numbers = all(image_id.isdecimal() for image_id in ids) and len(set(map(int, ids))) == len(ids)
    return {image_id: int(image_id) if are_numbers else image_id for image_id in ids}
