"""Every preset on its competition's own layout: what 01 reads and says, and what 05 writes from planted maps; then the
bundle on the test set that is in place when a notebook is submitted, which has other images."""

import csv
import importlib
import json
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib.base.errors import UserError
from lib.base.files import write_json
from lib.config.load import load_settings
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.data.images import Images
from lib.data.input_files import known_test_images, write_known
from lib.deploy.apply import MemberPredictor
from lib.deploy.time_budget import ViewsAndFolds
from lib.masks.metrics import count_images
from lib.prediction.map_store import MapStore, Prediction, read_pairs
from lib.prediction.run_maps import open_oof_maps, open_test_maps
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import test_inputs as inputs_of_test_maps
from lib.run.provenance import threshold_inputs, training_inputs
from lib.run.stage import opened
from lib.tools.apply import apply
from lib.tools.export import export
from lib.tools.score import score_submission
from lib.tuning.thresholds import choose_thresholds
from tests import REPOSITORY, competitions, stages

PRESETS = sorted(path.stem for path in (REPOSITORY / "configs/competitions").glob("*.yaml"))
WITHOUT_RUN_LENGTHS = [
    "contrails",
    "hubmap_vasculature",
    "isic2018",
    "kelp_wanted",
    "on_cloud_n",
    "recodai",
    "stac_overflow",
]
SMALL = [
    "folds.count=3",
    "folds.near_duplicates=false",  # noise of 13 pixels a side looks alike
    "train.workers=0",
    "postprocess.radii=[1]",
    "postprocess.areas=[4]",
]
TINY = [
    "model.encoder=test_resnet",
    "model.weights=random",
    "model.decoder_channels=[16, 8, 8, 8, 8]",
    "train.epochs=1",
    "train.batch_size=2",
    "train.crop_size=32",
    "infer.tta=none",
]


@pytest.fixture(autouse=True)
def fresh_random(monkeypatch):
    monkeypatch.setattr(competitions, "RANDOM", np.random.default_rng(0))


def run_in_process(script: str, arguments: Namespace) -> None:
    """Run the stage of a numbered script."""
    names = {"01_prepare_folds": "prepare_folds", "05_postprocess": "postprocess"}
    module = importlib.import_module(Path(script).stem)
    getattr(module, names[module.__name__])(*opened(arguments), arguments)


def preset(name: str) -> Path:
    return REPOSITORY / "configs/competitions" / f"{name}.yaml"


def prepare(name: str, made: competitions.Competition, *overrides: str) -> Path:
    """Run 01 with the competition's preset on data/; the run's folder."""
    overrides = ["data.root=data", *SMALL, *made.overrides, *overrides]
    run_in_process("01_prepare_folds.py", Namespace(config=preset(name), overrides=overrides))
    return Path("runs") / name


def blurred(masks: list[np.ndarray], scale: int = 1) -> np.ndarray:
    """Maps uint8 (height, width, classes): certain and uncertain pixels, no two images alike, all right at one half."""
    layers = [
        np.where(
            mask, competitions.RANDOM.integers(180, 256, mask.shape), competitions.RANDOM.integers(0, 70, mask.shape)
        )
        for mask in masks
    ]
    return np.stack([np.kron(layer, np.ones((scale, scale))) for layer in layers], axis=2).astype(np.uint8)


def plant(root: Path, made: competitions.Competition) -> None:
    """Write the files that 02, 03 and 04 leave behind, with maps made from the masks instead of by models."""
    run, settings = open_run(root)
    for fold in range(settings.folds.count):
        run.fold(fold).root.mkdir()
        save_file({"planted": torch.zeros(1)}, run.fold(fold).weights)
        write_json(run.fold(fold).metrics, {"made_from": training_inputs(run, settings)})
    data = open_training(settings.data)
    table = pd.read_csv(run.folds, dtype={"id": str}).set_index("id").loc[data.ids].reset_index()
    oof = open_oof_maps(run, settings, table, threshold_inputs(run, settings))
    for image_id, masks in made.train.items():
        oof.write(image_id, blurred(masks))
    if made.test:
        plant_test_maps(run, settings, made)
    counts = count_images(read_pairs(oof, data, data.ids, settings.submission.size), data.classes)
    counts.save(run.oof_counts)
    result = choose_thresholds(counts, table.fold.to_numpy(), settings.threshold, table.group.to_numpy())
    write_json(run.threshold, result.to_dict())
    write_json(run.record("03_oof_threshold"), {"made_from": threshold_inputs(run, settings)})


def plant_test_maps(run: RunFolder, settings: Settings, made: competitions.Competition) -> None:
    """Write the files that 04 leaves behind."""
    test, inputs = open_test(settings.data), inputs_of_test_maps(run, settings)
    write_known(run.test_files, known_test_images(run, test))
    maps = open_test_maps(run, settings, test, inputs)
    for image_id in test.ids:
        maps.write(image_id, blurred(made.test[image_id], made.scale))
    write_json(run.record("04_infer"), {"made_from": inputs})


class PlantedPredictor:
    """Predicts the planted masks of the hidden test images, in place of networks."""

    def __init__(self, hidden: competitions.Competition) -> None:
        self.hidden = hidden

    def predict(self, images: Images, ids: list[str], used: ViewsAndFolds) -> dict[str, Prediction]:
        predictions = {}
        for image_id in ids:
            maps = blurred(self.hidden.test[image_id], self.hidden.scale)
            assert images.read_image(image_id).shape[:2] == maps.shape[:2]
            predictions[image_id] = Prediction(maps)
        return predictions


def rehearse(run: Path, made: competitions.Competition, monkeypatch) -> competitions.Competition:
    """Export the run, and apply its bundle to a hidden test set; what is in that. Writes bundle/, hidden/ and out/."""
    monkeypatch.setattr(competitions, "RANDOM", np.random.default_rng(1))
    monkeypatch.setattr(competitions, "TEST", 5)
    monkeypatch.setattr(competitions, "HIDDEN", True)
    hidden = competitions.make(made.maker, Path("hidden"))
    words = {"weights": "float32", "rules": None, "folds": None, "wheels": False}
    where = [] if made.test else [f"data.test_images={load_settings(preset(made.maker)).data.test_images}"]
    export(Namespace(run=run, out=Path("bundle"), overrides=where, **words))
    monkeypatch.setattr(MemberPredictor, "of", lambda member, classes: PlantedPredictor(hidden))
    words = {"images": None, "folds": None, "hours": None, "overlays": False}
    apply(Namespace(source=Path("bundle"), out=Path("out"), overrides=["data.root=hidden"], **words))
    return hidden


def key_of(row: list[str]) -> str | tuple[str, ...]:
    """The values beside the run lengths."""
    return row[0] if len(row) == 2 else tuple(row[:-1])


def read_submission(path: Path) -> tuple[list[str], dict]:
    """The header, and the run lengths of each mask by the other values, in the file's order; rows of a mask adjoin."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    found, last = {}, None
    for row in rows:
        key = key_of(row)
        assert key == last or key not in found
        found.setdefault(key, []).append(row[-1])
        last = key
    return header, found


@pytest.fixture(params=competitions.MAKERS)
def made(request, tmp_path, monkeypatch) -> tuple[str, competitions.Competition]:
    """A competition in data/ of the working folder, and the name of its preset."""
    monkeypatch.chdir(tmp_path)
    stages.leave_out_pictures(monkeypatch.setattr)
    name = request.param.removesuffix("_first_generation")
    return name, competitions.make(request.param, tmp_path / "data")


def test_every_preset_has_a_competition():
    assert sorted(name for name in competitions.MAKERS if not name.endswith("_generation")) == PRESETS


def test_planted_maps_come_out_as_the_planted_masks(made, capsys, monkeypatch):
    name, made = made
    run = prepare(name, made)
    said = capsys.readouterr().out
    assert f"{'assumed' if name in WITHOUT_RUN_LENGTHS else 'checked'}   data.rle" in said
    assert "warning   data.rle" not in said
    folds = pd.read_csv(run / "folds.csv", dtype={"id": str, "group": str}).set_index("id")
    assert sorted(folds.index) == sorted(made.train)
    for image_id, masks in made.train.items():
        for class_name, mask in zip(made.classes, masks, strict=True):
            assert folds.loc[image_id, f"coverage_{class_name}"] == pytest.approx(
                made.coverage.get(image_id, mask.mean()), rel=1e-5
            )
    assert folds.group.to_dict() == (made.groups or {image_id: image_id for image_id in made.train})

    plant(run, made)
    run_in_process("05_postprocess.py", Namespace(run=run, overrides=[] if made.test else ["data.test_images=null"]))
    said = capsys.readouterr().out
    assert "as reported" in said
    if made.test:
        check_submission(run, made)
    if made.objects:
        objects = json.loads((run / "objects.json").read_text())
        assert objects["metric"] == ("object F2" if name == "airbus" else "object AP")
        assert objects["nested"] == objects["in_sample"] == 1
    hidden = rehearse(run, made, monkeypatch)
    check_submission(Path("out"), hidden)
    check_score(hidden, load_settings(run / "config.yaml"))


def check_submission(folder: Path, made: competitions.Competition) -> None:
    """Exactly the planted masks are in the file to upload."""
    if made.upload:
        assert read_upload(folder / "submission.zip") == {
            made.upload.format(id=id): (mask * made.pixel).tobytes() for id, (mask,) in made.test.items()
        }
    else:
        check_csv(folder, made)


def check_score(made: competitions.Competition, settings: Settings) -> None:
    """lib.tools.score finds the submission in out/ right, and an all-empty one is worse."""
    if made.upload:
        submission, solution = Path("out/submission.zip"), Path("truth")
        for id, (mask,) in made.test.items():
            competitions.save(solution / made.upload.format(id=id), mask * made.pixel)
    else:
        submission, solution = Path("out/submission.csv"), Path("truth.csv")
        competitions.write_csv(solution, [made.sample[0], *true_rows(made, settings.submission.text == "json")])
    found = score_submission(submission, solution, settings)
    assert found.score == 1 > found.all_empty


def true_rows(made: competitions.Competition, as_json: bool) -> Iterator[list[str]]:
    for key, (image_id, index) in made.row_of.items():
        texts = [made.rle.write(mask) for mask in made.objects.get(image_id) or [made.test[image_id][index]]]
        if as_json and texts != [made.rle.empty]:
            texts = [";".join(f"[{text.replace(' ', ', ')}]" for text in texts)]
        yield from ([*([key] if isinstance(key, str) else key), f'"{text}"'] for text in texts)


def read_upload(path: Path) -> dict[str, bytes]:
    """The pixels of each mask file in a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: np.asarray(Image.open(archive.open(name))).tobytes() for name in archive.namelist()}


def check_csv(run: Path, made: competitions.Competition) -> None:
    """The sample's columns and rows, which decode to the test masks and their objects."""
    header, found = read_submission(run / "submission.csv")
    assert header == made.sample[0]
    in_sample = dict.fromkeys(map(key_of, made.sample[1:])) or made.row_of  # a sample may say no more than columns
    assert list(found) == list(in_sample)
    for key, texts in found.items():
        image_id, index = made.row_of[key]
        truth = made.test[image_id][index]
        if texts[0].startswith("["):  # all objects of an image in one row, as json
            texts = [" ".join(map(str, json.loads(part))) for part in texts[0].split(";")]
        read = [made.rle.read(text, truth.shape) for text in texts]
        if image_id in made.objects:
            expected = made.objects[image_id] or [truth]
            assert sorted(map(bytes, map(np.ascontiguousarray, read))) == sorted(map(bytes, expected))
            assert np.sum(read, axis=0, dtype=int).max() <= 1
        else:
            assert len(read) == 1
        np.testing.assert_array_equal(np.any(read, axis=0), truth)


def test_a_wrong_convention_is_noticed(made, capsys):
    name, made = made
    declared, other = ("row", "column") if made.rle.rows else ("column", "row")
    if name in WITHOUT_RUN_LENGTHS:
        prepare(name, made, f"data.rle.order={other}")
        assert "assumed   data.rle" in capsys.readouterr().out
    else:
        with pytest.raises(UserError, match=f"looks wrong.*set data.rle.order={declared}"):
            prepare(name, made, f"data.rle.order={other}")


def test_siim_stage_2(tmp_path, monkeypatch, capsys):
    """By the settings that the preset's comment names: the test images of stage 1 are training images of stage 2."""
    monkeypatch.chdir(tmp_path)
    stages.leave_out_pictures(monkeypatch.setattr)
    made, data = competitions.make("siim", Path("data")), Path("data")
    rows = [[id, made.rle.write(mask)] for id, (mask,) in (made.train | made.test).items()]
    competitions.write_csv(data / "stage_2_train.csv", [["ImageId", "EncodedPixels"], *rows])
    for id in ("ID_0011fe81e", "ID_003206608"):
        competitions.write_dicom(data / "stage_2_images" / f"{id}.dcm", competitions.draw_image((21, 17)))
    sample = [["ImageId", "EncodedPixels"], ["ID_003206608", "-1"], ["ID_0011fe81e", "-1"]]
    competitions.write_csv(data / "stage_2_sample_submission.csv", sample)
    comment = preset("siim").read_text().partition("data:\n")[0].replace("#", " ").replace('"', " ")
    run = prepare("siim", made, *(word for word in comment.split() if word.startswith("data.")))
    assert "2 test images, 2 rows of stage_2_sample_submission.csv" in capsys.readouterr().out
    assert sorted(pd.read_csv(run / "folds.csv", dtype={"id": str}).id) == sorted(made.train | made.test)


@pytest.mark.parametrize("name", ["dsb2018", "siim"])
def test_all_five_stages(name, tmp_path):
    """With a network too small to learn anything: what is written is valid all the same."""
    made = competitions.MAKERS[name](tmp_path / "data")
    said = stages.script(
        tmp_path, "01_prepare_folds.py", "--config", str(preset(name)), "data.root=data", *SMALL, *TINY
    )
    for script in stages.STAGES[1:]:
        assert said.code == 0, said.err
        said = stages.script(tmp_path, f"{script}.py", "--run", f"runs/{name}")
    assert said.code == 0 and "as reported" in said.out, said.err
    run = tmp_path / "runs" / name
    for image_id, masks in made.train.items():
        store = MapStore(run / "oof", tuple(made.classes))
        assert store.read(image_id).shape == (*masks[0].shape, len(masks))
    header, found = read_submission(run / "submission.csv")
    assert header == made.sample[0] and list(found) == [row[0] for row in made.sample[1:]]
    for key, texts in found.items():
        image_id, index = made.row_of[key]
        read = [made.rle.read(text, made.test[image_id][index].shape) for text in texts]
        assert np.sum(read, axis=0, dtype=int).max() <= 1
