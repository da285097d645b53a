import cv2
import numpy as np
import pytest
from PIL import Image

from lib.config.data_settings import DataSettings
from lib.data.competition import TrainingData
from lib.folds.file_metadata import file_facts, metadata_candidates


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
