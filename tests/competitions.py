"""Real competitions on disk, made anew and small: each writes its layout, columns, run lengths, empties and traps.

Nothing here uses lib/: the run lengths are walked pixel by pixel, so that a preset is checked against the definition
and not against the program. Images are odd and not square; masks touch the first and the last pixel.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RANDOM = np.random.default_rng(0)
TRAIN, TEST = 6, 3  # images, unless the competition's groups need another number
HIDDEN = False  # whether the test set is the one that is put in place when a notebook is submitted


@dataclass(frozen=True)
class Rle:
    """The way a competition writes a mask, spelled out independently of lib/."""

    rows: bool = False  # along the rows instead of down the columns
    relative: bool = False  # SIIM: gaps since the end of the run before, from 0
    empty: str = ""

    def write(self, mask: np.ndarray) -> str:
        runs, previous = [], 0
        for number, value in enumerate((mask if self.rows else mask.T).ravel().tolist(), start=1):
            if value and previous:
                runs[-1][1] += 1
            elif value:
                runs.append([number, 1])
            previous = value
        if self.relative:
            ends = [1, *(start + length for start, length in runs)]
            runs = [[start - end, length] for (start, length), end in zip(runs, ends, strict=False)]
        return " ".join(f"{start} {length}" for start, length in runs) or self.empty

    def read(self, text: str, shape: tuple[int, int]) -> np.ndarray:
        pixels, position = np.zeros(shape[0] * shape[1], np.uint8), 1
        numbers = [] if text == self.empty else [int(number) for number in text.split(" ")]
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            first = position + start if self.relative else start
            assert first >= position and length >= 1 and first + length <= len(pixels) + 1, "runs out of order or place"
            pixels[first - 1 : first - 1 + length] = 1
            position = first + length
        return pixels.reshape(shape) if self.rows else pixels.reshape(shape[::-1]).T


@dataclass
class Competition:
    """The data written, and the content of a right submission."""

    rle: Rle
    classes: list[str]
    maker: str = ""
    train: dict[str, list[np.ndarray]] = field(default_factory=dict)  # a mask (height, width) for each class
    test: dict[str, list[np.ndarray]] = field(default_factory=dict)
    objects: dict[str, list[np.ndarray]] = field(default_factory=dict)  # of train and test images, where they count
    coverage: dict[str, float] = field(default_factory=dict)  # share of mask, where it is not that of all pixels
    groups: dict[str, str] = field(default_factory=dict)
    sample: list[list[str]] = field(default_factory=list)  # header and rows
    row_of: dict[str, tuple[str, int]] = field(default_factory=dict)  # the values beside the run lengths: id and class
    rle_column: int = -1
    overrides: list[str] = field(default_factory=list)
    scale: int = 1  # images are so many times as large as the submission's masks
    upload: str = ""  # names of the mask files, {id} standing for the id, where such a zip is uploaded and no csv
    pixel: int = 1  # their value where mask is


def draw_mask(shape: tuple[int, int], kind: int) -> np.ndarray:
    """0: empty; 1: with the first and the last pixel; 2: full; else a blob that is longer than wide."""
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    if kind == 2:
        mask[:] = 1
    elif kind:
        top, left = RANDOM.integers(0, height // 2), RANDOM.integers(0, width // 2)
        mask[top : top + height // 2, left : left + max(width // 4, 2)] = 1
        mask[top + 1 : top + 3, left : left + width // 2] = 1
    if kind == 1:
        mask[0, 0] = mask[-1, -1] = 1
    return mask


def draw_objects(shape: tuple[int, int], count: int) -> list[np.ndarray]:
    """Boxes that do not touch, in a grid of 6 pixels; the first has the first pixel, some the image's right border."""
    places = [(y, x) for y in range(0, shape[0] - 2, 6) for x in range(0, shape[1] - 2, 6)]
    boxes = []
    for y, x in [places[0], *(places[n] for n in 1 + RANDOM.permutation(len(places) - 1))][:count]:
        boxes.append(np.zeros(shape, np.uint8))
        boxes[-1][y : y + RANDOM.integers(2, 6), x : x + RANDOM.integers(2, 5)] = 1
    return boxes


def draw_image(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return array


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_csv(path: Path, rows: list[list[str]]) -> None:
    write_lines(path, *(",".join(row) for row in rows))


def masks_of(ids: list[str], shape: tuple[int, int], classes: int = 1) -> dict[str, list[np.ndarray]]:
    """Masks of every kind in turns: the first image is empty in its first class."""
    return {id: [draw_mask(shape, (n + c) % 5) for c in range(classes)] for n, id in enumerate(ids)}


def masks_of_test(ids: list[str], shape: tuple[int, int], classes: int = 1) -> dict[str, list[np.ndarray]]:
    """Masks of test images, which are somewhat larger than the training images, and hidden ones otherwise so."""
    return masks_of(ids, (shape[0] + int(RANDOM.integers(0, 9)), shape[1] + int(RANDOM.integers(0, 9))), classes)


def tgs_salt(root: Path) -> Competition:
    made = Competition(Rle(), ["salt"])
    ids = [f"{n:010x}" for n in RANDOM.integers(16**9, 16**10, TRAIN + TEST)]
    made.train, made.test = masks_of(ids[:TRAIN], (13, 11)), masks_of(ids[TRAIN:], (13, 11))
    for id in ids:
        folder = root / ("train" if id in made.train else "test")
        save(folder / "images" / f"{id}.png", np.dstack([draw_image((13, 11))] * 3))
    for id, (mask,) in made.train.items():
        save(root / "train/masks" / f"{id}.png", mask.astype(np.uint16) * 65535)
    write_csv(root / "train.csv", [["id", "rle_mask"], *([id, made.rle.write(m)] for id, (m,) in made.train.items())])
    write_csv(root / "depths.csv", [["id", "z"], *([id, "100"] for id in ids)])
    made.sample = [["id", "rle_mask"], *([id, "1 1"] for id in reversed(made.test))]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def carvana(root: Path) -> Competition:
    made = Competition(Rle(rows=True), ["car"])
    ids = [f"{car}_{view:02d}" for car in ("00087a6bd4dc", "0cdf5b5d0ce1", "fff9b3a5373f") for view in (1, 2)]
    made.train = masks_of(ids, (10, 15))
    made.test = masks_of([f"0004d4463b50_{n:02d}" for n in range(1, TEST)], (10, 15))
    made.groups = {id: id[:12] for id in ids}
    for part in ("train", "test"):
        for id, (mask,) in getattr(made, part).items():
            save(root / part / f"{id}.jpg", draw_image((10, 15, 3)))
            save(root / f"{part}_hq" / f"{id}.jpg", draw_image((20, 30, 3)))
            if part == "train":
                save(root / "train_masks" / f"{id}_mask.gif", mask)
    rows = ([f"{id}.jpg", made.rle.write(mask)] for id, (mask,) in made.train.items())
    write_csv(root / "train_masks.csv", [["img", "rle_mask"], *rows])
    write_csv(root / "metadata.csv", [['"id"', '"year"'], *([f'"{id[:12]}"', '"2010"'] for id in made.train)])
    made.sample = [["img", "rle_mask"], *([f"{id}.jpg", "1 1"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {f"{id}.jpg": (id, 0) for id in made.test}
    return made


def dsb2018(root: Path) -> Competition:
    made = Competition(Rle(), ["nucleus"])
    rows = []
    for n in range(TRAIN + TEST):
        id, shape = f"{n:02d}{'ab' * 31}", ((25, 33), (26, 19), (31, 26))[n % 3]
        part, masks = ("train", made.train) if n < TRAIN else ("test", made.test)
        made.objects[id] = draw_objects(shape, 1 + 2 * n % 7)
        masks[id] = [np.any(made.objects[id], axis=0).astype(np.uint8)]
        image = np.dstack([*[draw_image(shape)] * 3, np.full(shape, 255, np.uint8)])  # RGBA
        save(root / f"stage1_{part}" / id / "images" / f"{id}.png", image)
        if part == "train":
            for number, mask in enumerate(made.objects[id]):
                save(root / "stage1_train" / id / "masks" / f"{number:064x}.png", mask * 255)
                rows.append([id, made.rle.write(mask)])
    write_csv(root / "stage1_train_labels.csv", [["ImageId", "EncodedPixels"], *rows])
    made.sample = [["ImageId", "EncodedPixels"], *([id, ""] for id in made.test)]
    write_csv(root / "stage1_sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def airbus(root: Path) -> Competition:
    made = Competition(Rle(), ["ship"])
    shape, rows = (26, 31), []
    for n in range(TRAIN + TEST):
        id = f"{n:09x}"
        part, masks = ("train", made.train) if n < TRAIN else ("test", made.test)
        made.objects[id] = draw_objects(shape, n % 3 * 2)
        masks[id] = [np.any([np.zeros(shape), *made.objects[id]], axis=0).astype(np.uint8)]
        save(root / f"{part}_v2" / f"{id}.jpg", draw_image((*shape, 3)))
        if part == "train":
            rows += [[f"{id}.jpg", made.rle.write(ship)] for ship in made.objects[id]] or [[f"{id}.jpg", ""]]
    broken = root / "train_v2/6384c3e78.jpg"
    save(broken, draw_image((*shape, 3)))
    broken.write_bytes(broken.read_bytes()[:-200])
    rows.append(["6384c3e78.jpg", "1 3"])
    write_csv(root / "train_ship_segmentations_v2.csv", [["ImageId", "EncodedPixels"], *rows])
    made.sample = [["ImageId", "EncodedPixels"], *([f"{id}.jpg", "1 2"] for id in made.test)]
    write_csv(root / "sample_submission_v2.csv", made.sample)
    made.row_of = {f"{id}.jpg": (id, 0) for id in made.test}
    return made


def siim(root: Path) -> Competition:
    made = Competition(Rle(relative=True, empty="-1"), ["pneumothorax"])
    ids = [f"1.2.276.0.7230010.3.1.4.8323329.{n}.1517875" for n in range(TRAIN + TEST + 1)]
    made.train, made.test = masks_of(ids[:TRAIN], (21, 17)), masks_of(ids[TRAIN:-1], (21, 17))
    made.groups = {id: f"patient {n // 2}" for n, id in enumerate(made.train)}
    for n, id in enumerate(ids):  # the last has no row in train-rle.csv
        part = "test" if id in made.test else "train"
        path = root / f"dicom-images-{part}" / f"study.{n}" / f"series.{n}" / f"{id}.dcm"
        write_dicom(path, draw_image((21, 17)), SOPInstanceUID=id, PatientID=f"patient {n // 2}", Modality="CR")
    rows = []
    for id, (mask,) in made.train.items():
        annotations = [mask]
        if mask.sum() > 2:  # two annotations that overlap
            annotations = [mask * (np.arange(17) < 9), mask * (np.arange(17) > 4)]
        rows += [[id, " " + made.rle.write(annotation)] for annotation in annotations]
    write_csv(root / "train-rle.csv", [["ImageId", " EncodedPixels"], *rows])
    made.sample = [["ImageId", "EncodedPixels"], *([id, "-1"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample + made.sample[1:2])  # an id stands there twice
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def write_dicom(path: Path, pixels: np.ndarray, bits: int = 8, photometric: str = "MONOCHROME2", **header: str) -> Path:
    """Write pixels uint8 or uint16 (height, width) of which `bits` are used, with further fields of the header."""
    pydicom = pytest.importorskip("pydicom")
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, photometric, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * pixels.itemsize, bits, bits - 1
    file.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in header.items():
        setattr(file, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def severstal(root: Path, first_generation: bool = False) -> Competition:
    made = Competition(Rle(), ["1", "2", "3", "4"])
    ids = [f"{n:04x}cc93b" for n in range(TRAIN + TEST)]
    made.train, made.test = masks_of(ids[:TRAIN], (12, 31), 4), masks_of(ids[TRAIN:], (12, 31), 4)
    made.train[ids[0]] = [draw_mask((12, 31), 0)] * 4  # without defects: no row at all
    for id in ids:
        save(root / ("train_images" if id in made.train else "test_images") / f"{id}.jpg", draw_image((12, 31, 3)))
    texts = [(id, c, made.rle.write(mask)) for id, masks in made.train.items() for c, mask in enumerate(masks, start=1)]
    if first_generation:
        rows = [["ImageId_ClassId", "EncodedPixels"], *([f"{id}.jpg_{c}", text] for id, c, text in texts)]
        made.overrides = ["data.class_column=null", "data.images_without_mask=error"]
    else:
        rows = [
            ["ImageId", "ClassId", "EncodedPixels"],
            *([f"{id}.jpg", str(c), text] for id, c, text in texts if text),
        ]
    write_csv(root / "train.csv", rows)
    made.row_of = {f"{id}.jpg_{c + 1}": (id, c) for id in made.test for c in range(4)}
    made.sample = [["ImageId_ClassId", "EncodedPixels"], *([name, "1 409600"] for name in made.row_of)]
    write_csv(root / "sample_submission.csv", made.sample)
    return made


def severstal_first_generation(root: Path) -> Competition:
    return severstal(root, first_generation=True)


def clouds(root: Path) -> Competition:
    made = Competition(Rle(), ["Fish", "Flower", "Gravel", "Sugar"], scale=4, overrides=["submission.size=[7, 11]"])
    ids = ["0011165", "002be4f", "0031ae9", "0035239", "003994e", "00498ec", "002f507", "0035ae9", "0038327"]
    small = masks_of(ids[:TRAIN], (7, 11), 4)
    made.train = {id: [np.kron(mask, np.ones((4, 4), np.uint8)) for mask in masks] for id, masks in small.items()}
    made.test = masks_of(ids[TRAIN:], (7, 11), 4)
    for id in ids:
        save(root / ("train_images" if id in made.train else "test_images") / f"{id}.jpg", draw_image((28, 44, 3)))
    rows = (
        [f"{id}.jpg_{name}", made.rle.write(mask)]
        for id, masks in made.train.items()
        for name, mask in zip(made.classes, masks, strict=True)
    )
    write_csv(root / "train.csv", [["Image_Label", "EncodedPixels"], *rows])
    made.row_of = {f"{id}.jpg_{name}": (id, c) for id in made.test for c, name in enumerate(made.classes)}
    made.sample = [["Image_Label", "EncodedPixels"], *([name, "1 1"] for name in made.row_of)]
    write_csv(root / "sample_submission.csv", made.sample)
    return made


def hubmap_kidney(root: Path) -> Competition:
    made = Competition(Rle(), ["glomerulus"])
    ids = ["2f6ecfcdf", "aaa6a05cc", "cb2d976f4", "0486052bb", "e79de561c", "095bf7a1f"]
    made.train, made.test = masks_of(ids, (25, 18)), masks_of_test(["26dc41664", "c68fe75ea"], (25, 18))
    made.groups = {id: str(63921 + n // 2) for n, id in enumerate(ids)}
    for n, id in enumerate([*made.train, *made.test]):
        folder = root / ("train" if id in made.train else "test")
        write_slide(folder / f"{id}.tiff", draw_image((*(made.train | made.test)[id][0].shape, 3)), axes=n % 3)
        (folder / f"{id}-anatomical-structure.json").write_text("[]")
        if id in made.train:
            (folder / f"{id}.json").write_text("[]")
    write_csv(root / "train.csv", [["id", "encoding"], *([id, made.rle.write(m)] for id, (m,) in made.train.items())])
    information = [[f"{id}.tiff", "18", "25", made.groups.get(id, "1")] for id in [*made.test, *made.train]]
    header = ["image_file", "width_pixels", "height_pixels", "patient_number"]
    write_csv(root / "HuBMAP-20-dataset_information.csv", [header, *information])
    made.sample = [["id", "predicted"], *([id, ""] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def write_slide(path: Path, image: np.ndarray, axes: int) -> None:
    """Slides differ in the order of their axes: (H, W, 3), (3, H, W) and (1, 1, 3, H, W)."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    if axes == 0:
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        planes = np.moveaxis(image, 2, 0)
        planes = planes if axes == 1 else planes[None, None]
        tifffile.imwrite(
            path,
            planes,
            photometric="rgb" if axes == 1 else "minisblack",
            planarconfig="separate" if axes == 1 else None,
        )


def hubmap_hpa(root: Path) -> Competition:
    made = Competition(Rle(), ["tissue"])
    ids = [str(10044 + 226 * n) for n in range(TRAIN)]
    made.train, made.test = masks_of(ids, (23, 20)), masks_of_test([f"{10076 + n}" for n in range(2, TEST)], (29, 21))
    for part, masks in (("train", made.train), ("test", made.test)):
        for id, (mask,) in masks.items():
            save(root / f"{part}_images" / f"{id}.tiff", draw_image((*mask.shape, 3)))
    for id in made.train:
        (root / "train_annotations").mkdir(exist_ok=True)
        (root / "train_annotations" / f"{id}.json").write_text("[]")
    facts = ["prostate", "HPA", "23", "20", "0.4", "4.0"]
    header = ["id", "organ", "data_source", "img_height", "img_width", "pixel_size", "tissue_thickness"]
    rows = ([id, *facts, made.rle.write(mask), "37.0", "Male"] for id, (mask,) in made.train.items())
    write_csv(root / "train.csv", [[*header, "rle", "age", "sex"], *rows])
    sizes = {id: [str(side) for side in mask.shape] for id, (mask,) in made.test.items()}
    tests = ([id, "spleen", "Hubmap", *size, "0.4945", "4.0"] for id, size in sizes.items())
    write_csv(root / "test.csv", [header, *tests])
    made.sample = [["id", "rle"], *([id, "12 34"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def uw_madison(root: Path) -> Competition:
    made = Competition(Rle(rows=True), ["large_bowel", "small_bowel", "stomach"])
    days = [f"case{case}_day{day}" for case, day in ((101, 20), (102, 0), (113, 7), (7, 0))]
    ids = [f"{day}_slice_{n:04d}" for day in days for n in (1, 2)]
    every = masks_of(ids, (15, 22), 3)
    made.train = {id: masks for id, masks in every.items() if not id.startswith("case7_")}  # bad masks, left out
    made.test = masks_of_test([f"case123_day20_slice_{n:04d}" for n in (1, 2, 3)], (15, 22), 3) if HIDDEN else {}
    made.groups = {id: id.split("_")[0] for id in made.train}
    for id, (mask, *_) in (every | made.test).items():
        day, _, number = id.partition("_slice_")
        folder = root / ("train" if id in every else "test") / day.split("_")[0] / day / "scans"
        height, width = mask.shape
        save(folder / f"slice_{number}_{width}_{height}_1.50_1.50.png", draw_image(mask.shape, np.uint16))
    rows = (
        [id, name, made.rle.write(mask)]
        for id, masks in every.items()
        for name, mask in zip(made.classes, masks, strict=True)
    )
    write_csv(root / "train.csv", [["id", "class", "segmentation"], *rows])
    made.row_of = {(id, name): (id, c) for id in made.test for c, name in enumerate(made.classes)}
    made.sample = [["id", "class", "predicted"], *([*key, "1 1"] for key in made.row_of)]
    write_csv(root / "sample_submission.csv", made.sample)  # the whole test set is hidden
    return made


def contrails(root: Path) -> Competition:
    made = Competition(Rle(empty="-"), ["contrail"])
    ids = [str(1000216489776414077 + 387310806361 * n) for n in range(TRAIN + TEST - 1)]
    made.train, made.test = masks_of(ids[:TRAIN], (14, 19)), masks_of(ids[TRAIN:], (14, 19))
    for id in ids:
        folder = root / ("train" if id in made.train else "test") / id
        for band in range(8, 17):
            save(folder / f"band_{band:02d}.npy", RANDOM.uniform(240, 305, (14, 19, 8)).astype(np.float32))
    for id, (mask,) in made.train.items():
        save(root / "train" / id / "human_pixel_masks.npy", mask[:, :, None].astype(np.int32))
        save(root / "train" / id / "human_individual_masks.npy", np.dstack([mask] * 4)[:, :, None].astype(np.int32))
    (root / "train_metadata.json").write_text(json.dumps([{"record_id": id} for id in made.train]))
    made.sample = [["record_id", "encoded_pixels"], *([id, "1 1"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def sennet(root: Path) -> Competition:
    made = Competition(Rle(rows=True, empty="1 0"), ["vessel"])
    kidneys = ("kidney_1_dense", "kidney_1_voi", "kidney_2", "kidney_3_sparse")
    every = masks_of([f"{kidney}_{n:04d}" for kidney in kidneys for n in range(3)], (14, 23))
    made.train = {id: masks for id, masks in every.items() if "voi" not in id}
    made.test = masks_of_test([f"kidney_{n}_{slice:04d}" for n in (5, 6) for slice in range(TEST - 1)], (14, 23))
    made.groups = {id: id.rpartition("_")[0] for id in made.train}
    rows = []
    for part, masks in (("train", every), ("test", made.test)):
        for id, (mask,) in masks.items():
            kidney, _, number = id.rpartition("_")
            save(root / part / kidney / "images" / f"{number}.tif", draw_image(mask.shape, np.uint16))
            if part == "train":
                save(root / part / kidney / "labels" / f"{number}.tif", mask * 255)
                rows.append([id, made.rle.write(mask)])
    dense = draw_mask((14, 23), 1)  # masks without images
    save(root / "train/kidney_3_dense/labels/0000.tif", dense * 255)
    rows.append(["kidney_3_dense_0000", made.rle.write(dense)])
    write_csv(root / "train_rles.csv", [["id", "rle"], *rows])
    made.sample = [["id", "rle"], *([id, "1 0"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def vesuvius(root: Path) -> Competition:
    made = Competition(Rle(rows=True), ["ink"])
    shapes = {"1": (27, 21), "2": (39, 25), "3": (25, 18)}
    made.train = {id: [draw_mask(shape, 1)] for id, shape in shapes.items()}
    made.test = masks_of_test(["b", "a"], (9, 13))
    made.groups = {id: id for id in made.train}
    for part, masks in (("train", made.train), ("test", made.test)):
        for id, (mask,) in masks.items():
            for number in range(28, 37):
                save(root / part / id / "surface_volume" / f"{number}.tif", draw_image(mask.shape, np.uint16))
            save(root / part / id / "mask.png", np.full(mask.shape, 255, np.uint8))
            if part == "train":
                save(root / part / id / "inklabels.png", mask * 255)
                save(root / part / id / "ir.png", draw_image(mask.shape))
                write_csv(root / part / id / "inklabels_rle.csv", [["Id", "Predicted"], [id, made.rle.write(mask)]])
    made.sample = [["Id", "Predicted"], *([id, "1 1 5 1"] for id in sorted(made.test))]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def sartorius(root: Path) -> Competition:
    made = Competition(Rle(rows=True), ["cell"])
    shape, rows = (26, 31), []
    for n in range(TRAIN + TEST):
        id = f"{n:04x}da2cd05d"
        part, masks = ("train", made.train) if n < TRAIN else ("test", made.test)
        made.objects[id] = draw_objects(shape, 2 + n % 4)
        masks[id] = [np.any(made.objects[id], axis=0).astype(np.uint8)]
        save(root / part / f"{id}.png", draw_image(shape))
        facts = ["31", "26", "shsy5y", "19h30m00s", "2019-06-16", f"shsy5y[diff]_{n // 2}", "0 days 11:30:00"]
        if part == "train":
            made.groups[id] = f"shsy5y[diff]_{n // 2}"
            rows += [[id, made.rle.write(cell), *facts] for cell in made.objects[id]]
    header = ["width", "height", "cell_type", "plate_time", "sample_date", "sample_id", "elapsed_timedelta"]
    write_csv(root / "train.csv", [["id", "annotation", *header], *rows])
    made.sample = [["id", "predicted"], *([id, "1 1"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def ultrasound_nerve(root: Path) -> Competition:
    made = Competition(Rle(), ["nerve"])
    ids = [f"{subject}_{image}" for subject in (1, 2, 13) for image in (1, 10)]
    made.train, made.test = masks_of(ids, (14, 19)), masks_of(["1", "2", "10", "11", "3"][:TEST], (14, 19))
    made.groups = {id: id.split("_")[0] for id in ids}
    for part, masks in (("train", made.train), ("test", made.test)):
        for id, (mask,) in masks.items():
            save(root / part / f"{id}.tif", draw_image((14, 19)))
            if part == "train":
                save(root / part / f"{id}_mask.tif", mask * 255)
    rows = ([*id.split("_"), made.rle.write(mask)] for id, (mask,) in made.train.items())
    write_csv(root / "train_masks.csv", [["subject", "img", "pixels"], *rows])
    made.sample = [["img", "pixels"], *([id, "1 1"] for id in made.test)]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def without_a_sample(made: Competition, upload: str = "", pixel: int = 1) -> Competition:
    """The upload is no csv file: mask files, or something that the user makes of the csv that 05 writes."""
    made.upload, made.pixel = upload, pixel
    made.sample = [["id", "rle"]]
    made.row_of = {id: (id, 0) for id in sorted(made.test)}
    return made


def isic2018(root: Path) -> Competition:
    made = Competition(Rle(), ["lesion"])
    ids = [f"ISIC_{n:07d}" for n in range(TRAIN + TEST)]
    made.train, made.test = masks_of(ids[:TRAIN], (15, 22)), masks_of_test(ids[TRAIN:], (21, 16))
    for id, (mask,) in (made.train | made.test).items():
        part = "Training" if id in made.train else "Test"
        save(root / f"ISIC2018_Task1-2_{part}_Input" / f"{id}.jpg", draw_image((*mask.shape, 3)))
        (root / f"ISIC2018_Task1-2_{part}_Input" / "LICENSE.txt").touch()
        if part == "Training":
            save(root / "ISIC2018_Task1_Training_GroundTruth" / f"{id}_segmentation.png", mask * 255)
    return without_a_sample(made, "{id}_segmentation.png", 255)


def write_planes(path: Path, planes: np.ndarray) -> None:
    """A tif of several planes, pixel after pixel."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, planes, photometric="minisblack", planarconfig="contig" if planes.ndim == 3 else None)


def kelp_wanted(root: Path) -> Competition:
    made = Competition(Rle(), ["kelp"])
    ids = [f"{letters}498489" for letters in ("AA", "AB", "AC", "BX", "CE", "DQ", "ZO", "ZP", "ZX")]
    made.train, made.test = masks_of(ids[:TRAIN], (14, 14)), masks_of(ids[TRAIN:], (14, 14))
    for id, (mask,) in (made.train | made.test).items():
        part = "train" if id in made.train else "test"
        planes = RANDOM.integers(7000, 20000, (14, 14, 7)).astype(np.int16)
        planes[..., 5] = 0
        planes[0, 0] = -32768
        write_planes(root / f"{part}_satellite" / f"{id}_satellite.tif", planes)
        if part == "train":
            write_planes(root / "train_kelp" / f"{id}_kelp.tif", mask)
    return without_a_sample(made, "{id}_kelp.tif")


def on_cloud_n(root: Path) -> Competition:
    made = Competition(Rle(), ["cloud"])
    ids = ["adwp", "adwu", "adwz", "adxp", "aeaj", "aeak", "zzzx", "zzzy"]
    made.train, made.test = masks_of(ids[:TRAIN], (14, 18)), masks_of(ids[TRAIN:], (14, 18))
    made.groups = {id: ("Chifunfu", "Lusaka")[n % 2] + str(n // 4) for n, id in enumerate(made.train)}
    for id, (mask,) in (made.train | made.test).items():
        part = "train" if id in made.train else "test"
        for band in ("B02", "B03", "B04", "B08"):
            save(root / f"{part}_features" / id / f"{band}.tif", RANDOM.integers(0, 12000, (14, 18), dtype=np.uint16))
        if part == "train":
            save(root / "train_labels" / f"{id}.tif", mask)
    rows = ([id, place, "2020-04-29T08:20:47Z", f"az://{id}"] for id, place in made.groups.items())
    write_csv(root / "train_metadata.csv", [["chip_id", "location", "datetime", "cloudpath"], *rows])
    return without_a_sample(made, "{id}.tif")


def stac_overflow(root: Path) -> Competition:
    made = Competition(Rle(), ["water"])
    missing = np.zeros((14, 18), bool)
    missing[5:7, 3:9] = True
    ids = ["awc00", "awc01", "awc05", "hxu00", "hxu01", "jja00", "qus06", "qus07"]
    made.train, made.test = masks_of(ids[:TRAIN], (14, 18)), masks_of(ids[TRAIN:], (14, 18))
    made.groups = {id: id[:3] for id in made.train}
    for id, (mask,) in (made.train | made.test).items():
        part = "train" if id in made.train else "test"
        for polarisation in ("vh", "vv"):
            radar = RANDOM.uniform(-35, 5, (14, 18)).astype(np.float32)
            write_planes(root / f"{part}_features" / f"{id}_{polarisation}.tif", radar)
        if part == "train":
            label = np.where(missing & (mask == 0), 255, mask).astype(np.uint8)
            made.coverage[id] = (label == 1).sum() / (label != 255).sum()
            save(root / "train_labels" / f"{id}.tif", label)
    return without_a_sample(made, "{id}.tif")


def hubmap_vasculature(root: Path) -> Competition:
    """Vessels are boxes, whose corners lie between pixels."""
    made = Competition(Rle(), ["blood_vessel"])
    shape, lines = (26, 31), []
    for n in range(TRAIN + TEST + 1):
        id = f"{n:04x}ff2c7cda"
        part = "test" if TRAIN <= n < TRAIN + TEST else "train"
        save(root / part / f"{id}.tif", draw_image((*shape, 3)))
        if n == TRAIN + TEST:
            continue  # a tile that nobody has annotated
        made.objects[id] = draw_objects(shape, 2 + n % 4)
        (made.train if part == "train" else made.test)[id] = [np.any(made.objects[id], axis=0).astype(np.uint8)]
        if part == "train":
            made.groups[id] = str(1 + n // 2)
            vessels = [{"type": "blood_vessel", "coordinates": [corners(box)]} for box in made.objects[id]]
            unsure = {"type": "unsure", "coordinates": [[[20, 20], [25, 20], [25, 25], [20, 25]]]}
            lines.append(json.dumps({"id": id, "annotations": [*vessels, unsure]}))
    (root / "polygons.jsonl").write_text("\n".join(lines) + "\n")
    rows = ([id, made.groups.get(id, "9"), "1", "512", "1024"] for id in made.train)
    write_csv(root / "tile_meta.csv", [["id", "source_wsi", "dataset", "i", "j"], *rows])
    return without_a_sample(made)


def recodai(root: Path) -> Competition:
    """An authentic image may have the number of a forged one."""
    made = Competition(Rle(empty="authentic"), ["forgery"])
    shape = (26, 31)
    names = [f"{kind}_{n}" for n in (10, 11, 207) for kind in ("authentic", "forged")] + ["forged_3150"]
    for count, id in enumerate([*names, "45", "46"]):
        made.objects[id] = draw_objects(shape, 0 if id.startswith("authentic") or id == "45" else 1 + count // 2)
        kind, _, number = id.rpartition("_")
        part, path = (made.train, f"train_images/{kind}/{number}.png") if kind else (made.test, f"test_images/{id}.png")
        part[id] = [np.any([np.zeros(shape), *made.objects[id]], axis=0).astype(np.uint8)]
        save(root / path, draw_image((*shape, 3)))
        if kind == "forged":
            save(root / f"train_masks/{number}.npy", np.stack(made.objects[id]))
    made.groups = {id: id.rpartition("_")[2] for id in names}
    made.sample = [["case_id", "annotation"], ["45", "authentic"], ["46", "authentic"]]
    write_csv(root / "sample_submission.csv", made.sample)
    made.row_of = {id: (id, 0) for id in made.test}
    return made


def corners(box: np.ndarray) -> list[list[int]]:
    rows, columns = np.flatnonzero(box.any(axis=1)).tolist(), np.flatnonzero(box.any(axis=0)).tolist()
    left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def make(maker: str, root: Path) -> Competition:
    """Write the competition of a name in MAKERS below a folder."""
    made = MAKERS[maker](root)
    made.maker = maker
    return made


MAKERS: dict[str, Callable[[Path], Competition]] = {
    maker.__name__: maker
    for maker in (
        tgs_salt, carvana, dsb2018, airbus, siim, severstal, clouds, hubmap_kidney, hubmap_hpa, uw_madison, contrails,
        sennet, vesuvius, severstal_first_generation, sartorius, ultrasound_nerve, isic2018, kelp_wanted, on_cloud_n,
        stac_overflow, hubmap_vasculature, recodai,
    )
}  # fmt: skip
