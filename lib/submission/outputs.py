"""Outputs of prediction, in the format that submission.format names."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cv2
import numpy as np

from lib.base.errors import UserError, listed
from lib.base.files import write_bytes, write_json
from lib.base.prefetch import THREADS, prefetched
from lib.base.progress import progress
from lib.config.schema import Settings
from lib.data.annotation_masks import require_pycocotools
from lib.data.competition import TestData
from lib.masks.drawing import as_rgb, tinted
from lib.masks.metrics import planes
from lib.masks.objects import ObjectRule, Rules
from lib.masks.rules import Rule
from lib.prediction.map_store import MapReader, masks_by, scored_map, scored_masks
from lib.run.folder import RunFolder
from lib.submission.coco import write_coco
from lib.submission.mask_images import unreadable_sizes, write_masks, zip_files
from lib.submission.write import CHECKED, order_of_rows, write_submission

FILES = {"csv": "submission.csv", "coco": "submission.json", "coco_results": "submission.json"}
ZIP = "submission.zip"  # of the files of png and tif
SUBMISSIONS = {*FILES.values(), ZIP}
RECORD = "written.json"  # what `apply` or `submit` printed, and the files it has written
RULES = "rules.json"  # rules set by hand
COLOURS = ((240, 228, 66), (0, 158, 115), (86, 180, 233), (213, 94, 0), (204, 121, 167), (0, 114, 178), (230, 159, 0))

Predictions = Iterator[tuple[str, np.ndarray, np.ndarray]]  # id, maps, masks or objects


class Written(NamedTuple):
    """The paths written, the file to upload first, and a line that describes them."""

    paths: list[Path]
    description: str


def require_format(settings: Settings) -> None:
    """Raise UserError if submission.format needs a function or a package that is missing."""
    format = settings.submission.format
    if ":" in format:
        _function(format)
    elif format.startswith("coco"):
        require_pycocotools()


def write_outputs(
    folder: Path, data: TestData, store: MapReader, rules: Rules, settings: Settings, zipped: bool = True
) -> Written:
    """Write the predictions into a folder.

    csv makes submission.csv; png and tif make the folder masks and, if `zipped`, a zip of it; coco and coco_results
    make submission.json; FILE.py:FUNCTION writes whatever it likes: the function gets the folder, (id, maps, masks) of
    each image, and the test data, and returns the path to upload. Raises UserError for a function that does not.
    """
    format = settings.submission.format
    path = folder / FILES.get(format, ZIP)
    if format == "csv":
        rows = write_submission(path, data, store, rules, settings)
        return Written([path], f"{rows} rows, {order_of_rows(settings)}; {CHECKED}")
    predictions = predicted(data, store, rules, settings)
    if format in FILES:
        return Written([path], f"{write_coco(path, data, predictions, settings)} annotations")
    if format not in ("png", "tif"):
        return Written([_written_by(format, folder, predictions, data)], f"written by {format}")
    subfolder = folder / "masks"
    paths = write_masks(subfolder, data, ((id, masks) for id, _, masks in predictions), settings)
    if zipped:
        zip_files(paths, subfolder, path)
    without = [image_id for image_id, size in unreadable_sizes(data, settings).items() if size is None]
    lacking = f"; no file for {listed(without)}, whose size is not known" if without else ""
    written = [path, subfolder] if zipped else [subfolder]
    return Written(written, f"{len(paths)} files, each read back and the same{lacking}")


@contextmanager
def new_submissions(
    run: RunFolder, data: TestData, store: MapReader, thresholds: dict[str, Rule], rules: Rules, settings: Settings
) -> Iterator[Written]:
    """Write a run's submission, as csv also that of the thresholds alone, and yield the paths it will have.

    The files are in a temporary folder until the block succeeds; then they replace the old ones. Raises UserError as
    `write_outputs` does.
    """
    with_objects = settings.submission.rows == "instance"
    unprocessed = {name: ObjectRule(rule) for name, rule in thresholds.items()} if with_objects else thresholds
    with TemporaryDirectory(prefix=".submission.", suffix=".tmp", dir=run.root) as folder:
        new = Path(folder)
        written = write_outputs(new, data, store, rules, settings)
        if settings.submission.format == "csv":
            write_submission(new / run.unprocessed.name, data, store, unprocessed, settings)
            written.paths.append(new / run.unprocessed.name)
        yield Written([run.root / path.relative_to(new) for path in written.paths], written.description)
        made = list(new.iterdir())
        for name in {*SUBMISSIONS, "masks", run.unprocessed.name} - {path.name for path in made}:
            _rename_as_previous(run.root / name)  # of another submission.format, and of older maps
        for path in made:
            target = run.root / path.name
            if path.is_dir() and target.exists():
                target.replace(new / f"previous_{path.name}")  # goes with the temporary folder
            path.replace(target)


def predicted(data: TestData, store: MapReader, rules: Rules, settings: Settings) -> Predictions:
    """Id, maps uint8 and masks (or objects, int32) of each test image, all (height, width, classes)."""

    def predict(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        maps = scored_map(store, image_id, settings.submission.size)
        return maps, masks_by(rules, maps, store, image_id)

    return ((image_id, *prediction) for image_id, prediction in prefetched(predict, data.ids, ahead=2 * THREADS))


def write_overlays(folder: Path, data: TestData, store: MapReader, rules: Rules, settings: Settings) -> None:
    """Write each image with its masks tinted and outlined, a colour a class, as ID.jpg."""

    def write(image_id: str) -> None:
        picture = as_rgb(data.read_image(image_id))
        masks = scored_masks(store, image_id, rules, settings.submission.size) > 0
        for plane, colour in zip(planes(masks), cycle(COLOURS), strict=False):
            mask = cv2.resize(plane.view(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            picture = tinted(picture, mask, colour)
        write_bytes(folder / f"{image_id}.jpg", cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes(), durable=False)

    for _ in progress("overlays", prefetched(write, data.ids, ahead=THREADS), len(data.ids)):
        pass


def require_apart(out: Path, source: Path) -> None:
    """Raise UserError if outputs would be written into the run or bundle that predicts."""
    if out.resolve() == source.resolve():
        raise UserError(f"{out} (--out) is the run itself; choose a folder of its own")


def set_aside(folder: Path) -> None:
    """Rename the outputs of an earlier command, so that they are not taken for this one's if it fails.

    Raises UserError if there are folders of these names that no earlier command has written.
    """
    is_ours = (folder / RECORD).is_file()
    for name in ("masks", "overlays"):
        if (folder / name).exists() and not is_ours:
            raise UserError(f"{folder / name} exists already and was not written by this command; choose another --out")
    for name in {*SUBMISSIONS, "masks", "overlays", RECORD, RULES}:
        _rename_as_previous(folder / name)
    write_json(folder / RECORD, {"written": []})


def _rename_as_previous(path: Path) -> None:
    """Put previous_ before a name, in the place of what has that name; nothing where the path does not exist."""
    previous = path.with_name(f"previous_{path.name}")
    if path.exists():
        shutil.rmtree(previous, ignore_errors=True)
        path.replace(previous)


def _written_by(name: str, folder: Path, predictions: Predictions, data: TestData) -> Path:
    """What the function FILE.py:FUNCTION has written into the folder. Raises UserError unless it returns its path."""
    returned = _function(name)(folder, predictions, data)
    path = Path(returned).resolve() if isinstance(returned, str | Path) else folder
    if folder.resolve() not in path.parents or not path.exists():
        raise UserError(f"{name} must return the path of what it has written into its folder, and not {returned}")
    return folder / path.relative_to(folder.resolve())


def _function(name: str) -> Callable[[Path, Predictions, TestData], Path]:
    """The function of FILE.py:FUNCTION. Raises UserError if there is none."""
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"{path}, which submission.format names, does not exist")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise UserError(f"{path} has no function '{function}', which submission.format names")
    return getattr(module, function)
