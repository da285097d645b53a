"""A bundle predicts as its run does: as on Kaggle, moved, of some folds, of an ensemble, rounded, interrupted."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lib.base import distributed
from lib.base.errors import UserError
from lib.base.files import read_json, sha256_of_file, write_json
from lib.config.data_settings import DataSettings
from lib.config.schema import Settings
from lib.data.competition import open_test
from lib.deploy import apply
from lib.deploy.apply import Maps, MemberPredictor, predict_images
from lib.deploy.bundle import write_bundle
from lib.deploy.finished import open_finished
from lib.deploy.float16 import check_float16
from lib.deploy.loaded_run import LoadedRun
from lib.deploy.notebook import write_notebook
from lib.deploy.time_budget import ViewsAndFolds
from lib.masks.rules import NO_MASK, Rule, read_rules
from lib.prediction.map_store import MapStore
from lib.prediction.predictor import OutOfMemory, Predictor, predict_to_store
from lib.prediction.run_maps import build_predictor
from lib.run.folder import RunFolder, open_run
from lib.run.settings_by_stage import SUBMISSION, counted
from lib.submission.write import write_submission
from tests import REPOSITORY
from tests.conftest import blob_image, write_competition
from tests.stages import SETTINGS, run_all

BLOCKED = """
import socket, sys
def refuse(*_, **__):
    raise OSError("the network is off")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
assert not any(path == {repository!r} for path in sys.path)
"""

WRITES_AREAS = """
import json, sys
from pathlib import Path
out, root = Path(sys.argv[sys.argv.index("--out") + 1]), Path(sys.argv[-2].removeprefix("data.root="))
out.mkdir()
(out / "areas.csv").write_text(next(root.glob("test*")).name + ",12")
(out / "written.json").write_text(json.dumps({"written": [str(out / "areas.csv")]}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder after all five stages, with a second competition folder of hidden images."""
    folder = tmp_path_factory.mktemp("finished")
    write_competition(folder / "data" / "blobs")
    (folder / "blobs.yaml").write_text(SETTINGS.replace("weights: random", "weights: random, presence: 0.5"))
    run_all(folder)
    write_hidden(folder / "hidden")
    return folder


@pytest.fixture
def run(folder, monkeypatch) -> Path:
    monkeypatch.chdir(folder)
    return Path("runs/blobs")


def write_hidden(root: Path) -> None:
    """Nine images of three sizes, some under ids of the visible ones, and their sample in another order."""
    random = np.random.default_rng(5)
    (root / "test_images").mkdir(parents=True)
    names = [f"test_{number:03d}" for number in range(9)]
    for number, name in enumerate(names):
        image, _ = blob_image(random, empty=False)
        cv2.imwrite(str(root / "test_images" / f"{name}.png"), cv2.resize(image, (64 + 10 * (number % 3), 40)))
    (root / "sample_submission.csv").write_text("id,rle\n" + "".join(f"{name},\n" for name in reversed(names)))


def expected(run: Path, target: Path, folds: list[int], *overrides: str) -> bytes:
    """The submission for the hidden images by the road that 04 and 05 go."""
    run, settings = open_run(run, ["data.root=hidden", *overrides])
    data, store = open_test(settings.data), MapStore(target / "expected", ("blob",))
    list(predict_to_store(build_predictor(run, settings, ["blob"], folds), data, data.ids, store))
    write_submission(target / "expected.csv", data, store, read_rules(run.postprocess, data.classes), settings)
    return (target / "expected.csv").read_bytes()


def applied(
    source: Path, out: Path, *overrides: str, folds: list[int] | None = None, hours: float | None = None
) -> Maps:
    finished = open_finished(source, ["data.root=hidden", *overrides], folds)
    data = open_test(finished.settings.data)
    maps = predict_images(finished, data, out / "maps", hours or None, started=0.0)
    write_submission(out / "submission.csv", data, maps, finished.rules, finished.settings)
    return maps


def notebook_code(path: Path, inputs: Path, working: Path) -> str:
    """The code of a notebook, its folders replaced."""
    cells = json.loads(path.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return code.replace("/kaggle/input", str(inputs)).replace("/kaggle/working", str(working))


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


def test_as_on_kaggle(run, folder, tmp_path):
    """The notebook in a fresh process: no network, no home, other folders, inputs left as they were."""
    inputs, working, elsewhere = (tmp_path / name for name in ("input", "working", "elsewhere"))
    for path in (working, elsewhere, tmp_path / "site", tmp_path / "tmp"):
        path.mkdir()
    write_bundle(open_finished(run), inputs / "mine" / "bundle", as_float16=False, wheels=False)
    shutil.copytree(folder / "hidden", inputs / "competitions" / "blobs")
    images = inputs / "competitions" / "blobs" / "test_images"
    (images / "test_004.png").write_bytes((images / "test_004.png").read_bytes()[:99])
    (images / "test_005.png").unlink()
    (working / "submission.csv").write_text("of another day")
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKED.format(repository=str(REPOSITORY)))
    code = notebook_code(inputs / "mine" / "bundle" / "notebook.ipynb", inputs, working)
    before = snapshot(inputs)
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {
        **kept,
        "HOME": "/nonexistent",
        "PYTHONPATH": str(tmp_path / "site"),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = [f"data.root={images.parent}", "data.unreadable_test_images=empty"]
    assert (working / "submission.csv").read_bytes() == expected(run, tmp_path, [0, 1, 2], *data)
    assert "\ntest_004,\n" in (working / "submission.csv").read_text() and "2 of 9 test images" in done.stdout
    assert snapshot(inputs) == before and not list(elsewhere.iterdir())

    (inputs / "mine" / "bundle" / "apply.py").write_text("raise SystemExit(2)")
    code = code.replace("import torch", "").replace("torch.cuda.device_count()", "0")  # to spare the test its import
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True)
    assert done.returncode != 0 and not (working / "submission.csv").exists()


def test_the_notebook_submits_what_a_function_of_ones_own_has_written(tmp_path, monkeypatch):
    for name in ("bundle/lib", "blobs/test_images", "working", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("bundle/manifest.json", "blobs/sample_submission.csv"):
        (tmp_path / name).touch()
    (tmp_path / "bundle" / "apply.py").write_text(WRITES_AREAS)
    write_notebook(tmp_path / "notebook.ipynb", Settings(name="blobs", data=DataSettings(root="blobs")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    exec(notebook_code(tmp_path / "notebook.ipynb", tmp_path, tmp_path / "working"), {})
    assert [path.name for path in (tmp_path / "working").iterdir()] == ["areas.csv"]
    assert (tmp_path / "working" / "areas.csv").read_text() == "test_images,12"


def test_a_folder_that_no_name_tells_from_others_is_asked_for(tmp_path):
    (tmp_path / "bundle" / "lib").mkdir(parents=True)
    for name in ("manifest.json", "apply.py"):
        (tmp_path / "bundle" / name).touch()
    data = DataSettings(root="blobs", test_images="*/{id}.png", sample_submission=None)
    write_notebook(tmp_path / "notebook.ipynb", Settings(name="blobs", data=data))
    find = notebook_code(tmp_path / "notebook.ipynb", tmp_path, tmp_path / "working").partition("wheels")[0]
    with pytest.raises(FileNotFoundError, match="write into NEEDED a name"):
        exec(find, {})


def test_before_the_hidden_test_set_is_there(run, tmp_path):
    """The visible data of some competitions has no test image, and a sample of one line; the notebook ends."""
    data = tmp_path / "input" / "blobs"
    write_bundle(open_finished(run, folds=[0]), tmp_path / "input" / "bundle", as_float16=False, wheels=False)
    data.mkdir()
    (data / "sample_submission.csv").write_text("id,rle\n")
    code = notebook_code(tmp_path / "input" / "bundle" / "notebook.ipynb", tmp_path / "input", tmp_path / "working")
    find = code.partition("wheels")[0]
    exec(find, found := {})
    assert (found["BUNDLE"], found["DATA"]) == (tmp_path / "input" / "bundle", data)
    with pytest.raises(UserError, match=r"folder .* does not exist \(data.test_images\)"):
        applied(found["BUNDLE"], tmp_path / "out", f"data.root={data}")
    for path in (None, data / "test_images"):
        if path:
            path.mkdir()
        applied(found["BUNDLE"], tmp_path / "out", f"data.root={data}", "data.unreadable_test_images=empty")
        assert (tmp_path / "out" / "submission.csv").read_text() == "id,rle\n"
    (data / "sample_submission.csv").write_text("id,rle\na,\n")
    with pytest.raises(UserError, match="no file is found"):
        applied(found["BUNDLE"], tmp_path / "out", f"data.root={data}", "data.unreadable_test_images=empty")
    (data / "sample_submission.csv").unlink()
    with pytest.raises(UserError, match=r"the data folder nowhere does not exist"):
        applied(found["BUNDLE"], tmp_path / "out", "data.root=nowhere", "data.unreadable_test_images=empty")
    with pytest.raises(FileNotFoundError, match="add it as an input"):
        exec(find, {})


def test_some_folds_of_a_run_or_a_bundle(run, tmp_path):
    for source in (run, tmp_path / "bundle"):
        applied(source, tmp_path / source.name, folds=[0, 2])
        assert (tmp_path / source.name / "submission.csv").read_bytes() == expected(run, tmp_path, [0, 2])
        if source == run:
            write_bundle(open_finished(run, folds=[0, 2]), tmp_path / "bundle", as_float16=False, wheels=False)
    with pytest.raises(UserError, match=r"fold 1 of .* has no model; it has those of fold 0, 2$"):
        open_finished(tmp_path / "bundle", folds=[0, 1])


def test_rounded_weights_change_no_more_than_the_check_says(run, tmp_path):
    finished = open_finished(run)
    check = check_float16(finished)
    assert check.images == 24 and check.mask > 1000 and check.share < 0.01
    weights = []
    for as_float16 in (True, False):
        size = write_bundle(finished, tmp_path / str(as_float16), as_float16, wheels=False)
        weights.append(sum(path.stat().st_size for path in (tmp_path / str(as_float16)).rglob("*.safetensors")))
        assert size > weights[-1]
    assert weights[0] < 0.55 * weights[1]
    found = [applied(tmp_path / name, tmp_path / "out" / name) for name in ("True", "False")]
    for image_id in found[0].sizes:
        difference = np.abs(found[0].read(image_id).astype(int) - found[1].read(image_id))
        assert difference.max() <= 3


def test_float16_is_checked_on_the_masks_that_are_submitted_image_by_image(run, monkeypatch):
    """Every pixel of a map is mask by this rule; at submission.size these are 12 x 16 of each image."""
    predict, together = MemberPredictor.predict, []
    monkeypatch.setattr(MemberPredictor, "predict", lambda *of: together.append(len(of[2])) or predict(*of))
    finished = open_finished(run, ["submission.size=[12, 16]"])
    check = check_float16(replace(finished, rules={"blob": Rule(0)}))
    assert (check.images, check.mask, check.changed) == (24, 24 * 12 * 16, 0)
    assert set(together) == {1}


def test_no_mask_at_all_is_a_rule_that_travels(run, tmp_path, monkeypatch):
    """Chosen where nothing scores better; the rounding then changes nothing, of no pixels."""
    shutil.copytree(run, tmp_path / "run")
    content = read_json(tmp_path / "run" / "postprocess.json")
    content["classes"]["blob"]["rule"] = Rule(NO_MASK).to_dict()
    write_json(tmp_path / "run" / "postprocess.json", content)
    monkeypatch.setattr("lib.deploy.finished.require_stage", lambda *_: None)  # as if 05 had written it
    finished = open_finished(tmp_path / "run", folds=[0])
    check = check_float16(finished)
    assert (check.changed, check.mask, check.share) == (0, 0, 0)
    write_bundle(finished, tmp_path / "bundle", as_float16=True, wheels=False)
    applied(tmp_path / "bundle", tmp_path / "out")
    lines = (tmp_path / "out" / "submission.csv").read_text().splitlines()
    assert sorted(lines) == sorted(["id,rle", *(f"test_{number:03d}," for number in range(9))])


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.classes=[other]", "data.classes=['blob'], which cannot be changed to ['other']"),
        ("data.channels=1", "data.channels=3"),
        ("model.presence=0", "model.presence=0.5"),
    ],
)
def test_what_models_were_trained_with_cannot_be_changed(run, tmp_path, override, named):
    write_bundle(open_finished(run, folds=[0]), tmp_path / "bundle", as_float16=False, wheels=False)
    for source in (run, tmp_path / "bundle"):
        with pytest.raises(UserError, match=re.escape(named)):
            open_finished(source, [override])


def test_a_bundle_with_damaged_weights_or_other_rules_is_refused(run, tmp_path):
    write_bundle(open_finished(run, folds=[1]), tmp_path / "bundle", as_float16=True, wheels=False)
    bundle = RunFolder(tmp_path / "bundle")
    for path, damage in (
        (bundle.fold(1).weights, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
        (bundle.postprocess, lambda content: content.replace(b'"threshold": ', b'"threshold": 1')),
    ):
        content = path.read_bytes()
        path.write_bytes(damage(content))
        with pytest.raises(UserError, match=f"{path.name} is not the file that"):
            open_finished(tmp_path / "bundle")
        path.write_bytes(content)
    open_finished(tmp_path / "bundle")


def test_rules_that_05_would_choose_otherwise_now_are_refused(run, tmp_path):
    changed = Path(shutil.copytree(run, tmp_path / "runs" / "blobs"))
    content = yaml.safe_load((changed / "config.yaml").read_text())
    content["postprocess"]["areas"] = [9]
    (changed / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"postprocess.areas.*run 05_postprocess.py"):
        open_finished(changed)


def test_only_a_bundle_is_replaced(run, tmp_path):
    finished = open_finished(run, folds=[0])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(UserError, match="is not a bundle"):
        write_bundle(finished, tmp_path / "photos", as_float16=True, wheels=False)
    for _ in range(2):
        write_bundle(finished, tmp_path / "bundle", as_float16=True, wheels=False)
        (tmp_path / "bundle" / "dataset-metadata.json").write_text("the user's")
        (tmp_path / "bundle" / "fold_0" / "old.txt").touch()
    write_bundle(finished, tmp_path / "bundle", as_float16=True, wheels=False)
    assert (tmp_path / "bundle" / "dataset-metadata.json").read_text() == "the user's"
    assert not (tmp_path / "bundle" / "fold_0" / "old.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "photos"]


def ensemble_of(run: Path, root: Path) -> Path:
    """An ensemble of the run and a copy that shares its first two folds' models, .75 to .25."""
    members = [root / "a", root / "b"]
    for member in members:
        shutil.copytree(run, member)
    shutil.copyfile(members[1] / "fold_0" / "model.safetensors", members[1] / "fold_2" / "model.safetensors")
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["ensemble"] = {"members": list(map(str, members)), "weights": "search"}
    (root / "both").mkdir()
    (root / "both" / "config.yaml").write_text(yaml.safe_dump(content))
    write_json(RunFolder(root / "both").ensemble, {"weights": dict(zip(map(str, members), (0.75, 0.25), strict=True))})
    shutil.copyfile(run / "postprocess.json", root / "both" / "postprocess.json")
    return root / "both"


def test_an_ensemble_can_be_moved(run, tmp_path, monkeypatch):
    both = ensemble_of(run, tmp_path)
    monkeypatch.setattr("lib.deploy.finished.require_thresholds", lambda *_: {})
    rules = counted(open_run(both)[1], SUBMISSION)
    write_json(RunFolder(both).record("05_postprocess"), {"made_from": {"rules": rules}})
    write_bundle(open_finished(both), tmp_path / "bundle", as_float16=False, wheels=False)
    for name in ("a", "b", "both"):
        shutil.rmtree(tmp_path / name)
    shutil.move(tmp_path / "bundle", tmp_path / "moved")
    maps = applied(tmp_path / "moved", tmp_path / "out")
    data = open_test(open_run(run, ["data.root=hidden"])[1].data)
    settings = open_run(run)[1]
    parts = []
    for folds in ([0, 1, 2], [0, 1, 0]):
        built = build_predictor(RunFolder(run), settings, ["blob"], folds)
        parts.append(dict(built.predict(data, data.ids)))
    for image_id in data.ids:
        exact = 0.75 * parts[0][image_id].maps + 0.25 * parts[1][image_id].maps.astype(float)
        np.testing.assert_array_equal(maps.read(image_id), np.rint(exact))
        exact = 0.75 * parts[0][image_id].presence + 0.25 * parts[1][image_id].presence.astype(float)
        np.testing.assert_array_equal(maps.presence(image_id), np.rint(exact))


def test_a_bundle_and_a_run_in_memory_ask_for_presence(run, tmp_path):
    write_bundle(open_finished(run), tmp_path / "bundle", as_float16=False, wheels=False)
    maps = applied(tmp_path / "bundle", tmp_path / "out")
    presence = {image_id: int(maps.presence(image_id)[0]) for image_id in maps.sizes}
    path = RunFolder(tmp_path / "bundle").postprocess
    content, manifest = read_json(path), tmp_path / "bundle" / "manifest.json"
    listed = read_json(manifest)
    for asked in (max(presence.values()), max(presence.values()) + 1):
        content["classes"]["blob"]["rule"] = Rule(1, presence=asked).to_dict()
        write_json(path, content)
        listed["files"]["postprocess.json"] = sha256_of_file(path)  # as if the run had been exported with this rule
        write_json(manifest, listed)
        applied(tmp_path / "bundle", tmp_path / "out")
        with (tmp_path / "out" / "submission.csv").open() as file:
            rows = dict(list(csv.reader(file))[1:])
        expected = {image_id: value >= asked for image_id, value in presence.items()}
        assert {image_id: bool(text) for image_id, text in rows.items()} == expected
        loaded, data = LoadedRun.open(tmp_path / "bundle"), open_test(open_run(run, ["data.root=hidden"])[1].data)
        for image_id in data.ids:
            assert loaded.predict(data.read_image(image_id)).any() == expected[image_id]


def test_other_images_of_the_same_ids_are_predicted_anew(run, tmp_path):
    first = applied(run, tmp_path / "out", "data.root=data/blobs")
    second = applied(run, tmp_path / "out")
    assert (tmp_path / "out" / "submission.csv").read_bytes() == expected(run, tmp_path, [0, 1, 2])
    assert len(set(first.names.values()) & set(second.names.values())) == 0
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 6 + 9


def test_processes_that_begin_one_after_the_other_predict_every_image(run, tmp_path, monkeypatch):
    """The second process finds the maps of the first, as where it starts a little later."""
    monkeypatch.setattr(distributed, "COUNT", 2)
    monkeypatch.setattr(apply, "wait_for_all", lambda: None)
    for number, there in ((0, 5), (1, 9)):
        monkeypatch.setattr(distributed, "NUMBER", number)
        assert len(applied(run, tmp_path / "out", folds=[0]).names) == there


def test_an_interrupted_command_goes_on(run, tmp_path, monkeypatch):
    monkeypatch.setattr(apply, "PART_PIXELS", 4000)
    write, left = MapStore.write, [4]

    def stop_after_some(store: MapStore, image_id: str, *prediction: np.ndarray | None) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(store, image_id, *prediction)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MapStore, "write", stop_after_some)
        applied(run, tmp_path)
    done = snapshot(tmp_path / "maps")
    assert len(done) == 4
    applied(run, tmp_path)
    assert (tmp_path / "submission.csv").read_bytes() == expected(run, tmp_path, [0, 1, 2])
    assert done.items() <= snapshot(tmp_path / "maps").items()


def test_short_time_drops_folds_and_says_so(run, tmp_path, monkeypatch, capsys):
    now, predict = [0.0], MemberPredictor.predict

    def slowly(member, images, ids, used):
        now[0] += 60 * len(ids) * used.count(3)  # a minute an image and model
        return predict(member, images, ids, used)

    monkeypatch.setattr(apply, "TIMED_PIXELS", 4000)
    monkeypatch.setattr(apply.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(MemberPredictor, "predict", slowly)
    maps = applied(run, tmp_path, hours=17 / 60)
    assert "views none and 1 fold" in capsys.readouterr().out and len(maps.names) == 9
    assert 10 * 60 < now[0] <= 17 * 60
    now[0] = 0.0
    few = applied(run, tmp_path / "few", hours=5 / 60)
    assert 0 < len(few.names) < 9
    with (tmp_path / "few" / "submission.csv").open() as file:
        rows = dict(list(csv.reader(file))[1:])
    assert len(rows) == 9 and all(not text for name, text in rows.items() if name not in few.names)


def test_what_does_not_fit_into_the_memory_goes_by_smaller_windows(run, tmp_path, monkeypatch, capsys):
    settings = open_run(run, ["data.root=big"])[1]
    Path("big/test_images").mkdir(parents=True)
    cv2.imwrite("big/test_images/large.png", np.random.default_rng(0).integers(0, 256, (600, 700), np.uint8))
    Path("big/sample_submission.csv").write_text("id,rle\nlarge,\n")
    at_once, sizes = Predictor._predict_at_once, []

    def limited(predictor, images, precision="fp32"):
        if images.shape[1] * images.shape[2] > 300 * 300:
            raise RuntimeError("CUDA out of memory")
        sizes.append(images.shape[1:3])
        return at_once(predictor, images, precision)

    monkeypatch.setattr(Predictor, "_predict_at_once", limited)
    maps = applied(run, tmp_path, "data.root=big")
    assert "in windows of 256 pixels" in capsys.readouterr().out and max(max(size) for size in sizes) <= 256
    monkeypatch.setattr(Predictor, "_predict_at_once", at_once)
    infer = settings.infer.model_copy(update={"window": 256})
    member = open_finished(run).members[0]
    small = replace(member, settings=settings.model_copy(update={"infer": infer}))
    data = open_test(settings.data)
    np.testing.assert_array_equal(
        maps.read("large"), MemberPredictor.of(small, ["blob"]).predict(data, ["large"], ViewsAndFolds())["large"].maps
    )
    monkeypatch.setattr(Predictor, "_predict_at_once", lambda *_: limited(None, np.zeros((1, 999, 999, 3))))
    with pytest.raises(OutOfMemory, match=r"256"):
        applied(run, tmp_path / "none", "data.root=big")
