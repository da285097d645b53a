import hashlib

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.config.data_settings import DataSettings
from lib.data.competition import TrainingData
from lib.data.discovery import find_files
from lib.data.groups import read_groups
from lib.data.tables import read_table
from lib.folds.file_metadata import column_partitions, file_facts, metadata_candidates, path_partitions


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)


def write_photo(path, camera: str, taken: str, quality: int = 80):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", camera
    exif[0x8769] = {0x9003: taken}
    Image.fromarray(noise()).save(path, exif=exif, quality=quality)


def data_of(paths) -> TrainingData:
    files = {path.stem: [str(path)] for path in paths}
    return TrainingData(DataSettings(root=paths[0].parent), files, {}, None)


def test_photo(tmp_path):
    write_photo(tmp_path / "a.jpg", "X100", "2021:04:30 10:00:05")
    write_photo(tmp_path / "b.jpg", "X100", "2021:04:30 10:01:05", quality=50)
    one, other = (file_facts(tmp_path / name) for name in ("a.jpg", "b.jpg"))
    assert one["camera"] == "Maker X100" and one["day"] == "2021:04:30" and one["size"] == "24 x 32"
    assert other["seconds"] - one["seconds"] == 60
    assert one["jpeg"] != other["jpeg"]


@pytest.mark.parametrize("exif", [False, True])
def test_png_with_and_without_exif(tmp_path, exif):
    if exif:
        write_photo(tmp_path / "a.png", "X100", "2021:04:30 10:00:05")
    else:
        cv2.imwrite(str(tmp_path / "a.png"), noise())
    expected = {"folder": tmp_path.name, "size": "24 x 32"}
    facts = file_facts(tmp_path / "a.png")
    assert {key: facts[key] for key in expected} == expected
    assert set(facts) - set(expected) == ({"camera", "day", "seconds"} if exif else set())


def test_photos_make_partitions_and_a_series(tmp_path):
    for number in range(6):
        write_photo(tmp_path / f"{number}.jpg", f"cam{number % 2}", f"2021:04:{10 + number} 10:00:00")
    partitions, series = metadata_candidates(data_of(sorted(tmp_path.iterdir())))
    by_name = {partition.name: partition for partition in partitions}
    camera = by_name["the camera in the EXIF data"]
    assert camera.groups.tolist() == ["Maker cam0", "Maker cam1"] * 3 and camera.may_be_class
    assert by_name["the day in the EXIF data"].groups[2] == "2021:04:12"
    (times,) = series
    assert np.diff(times.positions[:, 0]).tolist() == [86400] * 5 and times.keys.tolist() == camera.groups.tolist()


def test_a_key_that_one_file_lacks_is_left_out(tmp_path):
    write_photo(tmp_path / "a.jpg", "X", "2021:04:30 10:00:05")
    cv2.imwrite(str(tmp_path / "b.png"), noise())
    partitions, series = metadata_candidates(data_of([tmp_path / "a.jpg", tmp_path / "b.png"]))
    assert {partition.name for partition in partitions} == {"the folder of the file", "the size of the image"}
    assert series == []


@pytest.mark.parametrize("taken", ["", "    :  :     :  :  ", "yesterday"])
def test_odd_exif_is_no_error(tmp_path, taken):
    write_photo(tmp_path / "a.jpg", "X", taken)
    assert file_facts(tmp_path / "a.jpg").get("seconds") is None


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe1 no photo", b"II*\0\xff\xff\xff\xff"])
def test_a_damaged_header_tells_the_folder_alone_and_no_mistake_is_hidden(tmp_path, monkeypatch, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert file_facts(tmp_path / "a.tif") == {"folder": tmp_path.name}
    write_photo(tmp_path / "a.jpg", "X", "2021:04:30 10:00:05")
    monkeypatch.delattr("lib.folds.file_metadata._exif")
    with pytest.raises(NameError):
        file_facts(tmp_path / "a.jpg")


def test_geotiff_tiles_lie_side_by_side(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    for row in range(2):
        for column in range(3):
            transform = rasterio.Affine(0.5, 0, 1000 + column * 16, 0, -0.5, 5000 - row * 12)
            with rasterio.open(
                tmp_path / f"{row}{column}.tif",
                "w",
                driver="GTiff",
                height=24,
                width=32,
                count=1,
                dtype="uint8",
                crs="EPSG:32633",
                transform=transform,
            ) as file:
                file.write(noise()[None, :, :, 0])
    paths = sorted(tmp_path.glob("*.tif"))
    _, (series,) = metadata_candidates(data_of(paths))
    corner = series.positions - series.positions[0]
    assert np.abs(corner).tolist() == [[row, column] for row in range(2) for column in range(3)]


def test_dicom(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    for number in range(3):
        header = pydicom.Dataset()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = pydicom.uid.CTImageStorage, f"1.2.{number + 1}"
        header.PatientID, header.StudyInstanceUID = f"P{number // 2}", "1.2.3"
        header.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    partitions, _ = metadata_candidates(data_of(sorted(tmp_path.glob("*.dcm"))))
    patient = next(partition for partition in partitions if partition.setting == "dicom:PatientID")
    assert patient.groups.tolist() == ["P0", "P0", "P1"] and not patient.may_be_class


@pytest.mark.parametrize("pattern", ["{patient}/{visit}/images/{id}.png", "**/images/{id}.png"])
def test_parts_of_the_pattern_and_levels_of_folders_make_partitions(tmp_path, pattern):
    """The pattern's parts come with the setting that groups by them; unnamed levels may as well be kinds of images."""
    files = {}
    for number in range(24):
        image_id = hashlib.sha256(str(number).encode()).hexdigest()[:8]
        path = tmp_path / f"patient_{number // 4}" / f"visit{number % 2}" / "images" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        files[image_id] = [str(path)]
    settings = DataSettings(root=tmp_path, train_images=pattern)
    data = TrainingData(settings, files, {}, None)
    patients = [files[image_id][0].split("/")[-4] for image_id in data.ids]
    visits = [files[image_id][0].split("/")[-3] for image_id in data.ids]
    found = path_partitions(data)
    assert [partition.groups.tolist() for partition in found if partition.groups[0] == patients[0]] == [patients]
    assert visits in [partition.groups.tolist() for partition in found]
    by_setting = {partition.setting: partition for partition in found}
    if "{patient}" in pattern:
        assert set(by_setting) == {"{patient}", "{patient}_{visit}", "{visit}"}
        assert not by_setting["{patient}"].may_be_class
        groups = read_groups(
            settings.model_copy(update={"group": "{patient}_{visit}"}), None, files, parts_of(settings)
        )
        assert by_setting["{patient}_{visit}"].groups.tolist() == list(groups.values())
    else:
        assert set(by_setting) == {None} and all(partition.may_be_class for partition in found)


def parts_of(settings: DataSettings) -> dict[str, dict[str, str]]:
    return {parts["id"]: parts for parts, _ in find_files(settings.root, settings.train_images, "data.train_images")}


def test_other_columns_of_the_csv_make_partitions(tmp_path):
    """Those with one value for all rows of an image; of two rows each, one for each class."""
    rows = ["id,class,rle,patient,site,width,score,row,note,lesion"]
    rows += [
        f"{number:02d},{name},1 1,p{number // 4},{'AB'[number % 2]},{512 + number % 3},{number / 4},{row},{'x' * row}"
        f",{'NaN' if number < 4 else f'l{number // 4}'}"
        for number in range(24)
        for row, name in enumerate(["left", "right"])
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    settings = DataSettings(root=tmp_path, classes=["left", "right"], class_column="class", rle_column="rle")
    files = {f"{number:02d}": [f"{number:02d}.png"] for number in range(24)}
    found = column_partitions(TrainingData(settings, files, {}, None))
    assert {partition.setting: partition.may_be_class for partition in found} == {
        "patient": False,
        "site": True,
        "width": True,
    }
    table = read_table(tmp_path / "train.csv", "")
    groups = read_groups(settings.model_copy(update={"group": "patient"}), table, files, {})
    assert found[0].groups.tolist() == list(groups.values())


def test_a_column_that_is_left_with_group_none_is_no_candidate(tmp_path):
    rows = [f"{number:02d},1 1,s{number // 4}" for number in range(24)]
    (tmp_path / "train.csv").write_text("\n".join(["id,rle,group", *rows]))
    settings, files = DataSettings(root=tmp_path), {f"{number:02d}": [f"{number:02d}.png"] for number in range(24)}
    for group, found in ((None, ["group"]), ("none", [])):
        data = TrainingData(settings.model_copy(update={"group": group}), files, {}, None)
        assert [partition.setting for partition in column_partitions(data)] == found


def test_a_csv_without_other_columns_is_not_read_again(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text("id,rle\na,1 1\nb,1 1\n")
    monkeypatch.delattr("lib.folds.file_metadata.read_masks_table")
    assert (
        column_partitions(TrainingData(DataSettings(root=tmp_path), {"a": ["a.png"], "b": ["b.png"]}, {}, None)) == []
    )
