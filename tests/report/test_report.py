"""The page of a run: what is on it, that it is safe and small, and that it works in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from accelerate import Accelerator
from scipy import ndimage
from scipy.stats import ks_2samp, kstwobign

from lib.base.errors import UserError
from lib.base.files import read_json, write_json, write_text
from lib.checks.inspection import inspect_all
from lib.config.check import check_settings, save_settings
from lib.config.load import load_settings
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.folds.duplicates import duplicates_table
from lib.folds.split import assign_folds, image_table, write_folds
from lib.masks.metrics import dice
from lib.masks.rules import Gate, Rule, Step, read_rules
from lib.prediction.map_store import MapStore, count_maps, read_pairs
from lib.report import measures, overview, stages
from lib.report.charts import Axis, Chart
from lib.report.comparison import write_comparison
from lib.report.figures import plot_before_after, plot_thresholds
from lib.report.findings import shift_in_words
from lib.report.galleries import IN_GALLERY, ranked_galleries
from lib.report.page import refresh_report, write_report
from lib.report.pictures import FALSE_ALARM, MISSED, SIDE, TRUTH, data_uri, errors_picture, shown_image
from lib.report.stages import ensemble_part, training_part
from lib.run.folder import RunFolder
from lib.run.provenance import stages_done, submission_inputs, test_inputs, threshold_inputs, training_inputs
from lib.run.record import StageRecord, history_digest
from lib.submission.write import write_submission
from lib.tools.compare import describe_difference, mask_scores
from lib.training.tracking import require_tracker, tracked
from lib.tuning.morphology_search import search_morphology
from lib.tuning.thresholds import choose_thresholds
from tests import REPOSITORY
from tests.conftest import write_competition

FOLDS = 3
HOSTILE_ID = "$^{$a\"><img src=q onerror=alert(1)>&amp;'{{ 7*7 }}"
HOSTILE_CLASS = "<b title='x'>&\"$^{$"
SECTIONS = {
    "prepare": {"scores", "folds", "made"},
    "train": {"scores", "folds", "training", "made"},
    "choose": {"scores", "folds", "training", "threshold", "galleries", "errors", "made"},
    "infer": {"scores", "folds", "training", "threshold", "galleries", "errors", "test", "made"},
    "postprocess": {"scores", "folds", "training", "threshold", "galleries", "morphology", "errors", "test", "made"},
}
VOID = {"meta", "img", "br", "hr", "input", "link"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
test_inputs.__test__ = False  # not a test, whatever pytest makes of its name


def blurred(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A probability map as a model might make it of a mask, uint8."""
    likely = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2)
    noise = cv2.GaussianBlur(random.normal(0, 1, mask.shape).astype(np.float32), (0, 0), 1.5)
    return np.clip(255 * likely + 60 * noise, 0, 255).astype(np.uint8)


class FakeRun:
    """A run folder as the five stages leave it, without any training: the maps are blurred truths.

    The hostile one has two classes and an image with names that would be HTML, masks of another size, and presence.
    """

    def __init__(self, folder: Path, training: int = 36, test: int = 12, hostile: bool = False) -> None:
        data = write_competition(folder / "data", training, test)
        classes = ["blob"]
        if hostile:
            classes = [HOSTILE_CLASS, "core"]
            (data / "train_images" / "train_000.png").rename(data / "train_images" / f"{HOSTILE_ID}.png")
            for name in ("train.csv", "sample_submission.csv"):
                table = pd.read_csv(data / name, keep_default_na=False).replace("train_000", HOSTILE_ID)
                pd.concat([table.assign(kind=kind) for kind in classes]).to_csv(data / name, index=False)
        self.run = RunFolder(folder / "runs" / "blobs")
        content = {
            "name": "blobs",
            "data": {"root": str(data), "classes": classes, "class_column": "kind" if hostile else None},
            "folds": {"count": FOLDS},
            "train": {"epochs": 4, "workers": 0},
            "submission": {"size": (20, 40) if hostile else None},
            "postprocess": {"steps": ["opening", "remove"], "radii": [1, 2], "areas": [16, 64]},
        }
        self.has_presence = hostile
        self.settings = check_settings(content, Path("blobs.yaml"))
        self.training, self.test = open_training(self.settings.data), open_test(self.settings.data)
        self.random = np.random.default_rng(0)

    @classmethod
    def finished(cls, folder: Path, **options: object) -> "FakeRun":
        """All five stages, and the page."""
        fake = cls(folder, **options)
        for stage in (fake.prepare, fake.train, fake.choose, fake.infer, fake.postprocess):
            stage()
        write_report(fake.run, fake.settings)
        return fake

    @property
    def page(self) -> str:
        return self.run.report.read_text()

    def prepare(self) -> None:
        record = StageRecord(self.run, "01_prepare_folds")
        images = image_table(inspect_all(self.training).facts, None, self.training.classes)
        images["group"] = images.id
        self.table = assign_folds(images, FOLDS, 0)
        write_folds(self.table, self.training.classes, self.run.folds)
        none = duplicates_table(images, np.empty((0, 3), int), self.training.read_mask)
        write_text(self.run.root / "duplicates.csv", none.to_csv(index=False))
        save_settings(self.settings, self.run.config)
        record.write({})

    def train(self, folds: tuple[int, ...] = tuple(range(FOLDS))) -> None:
        for fold in folds:
            rows = [
                {"epoch": e, "lr": 0.1 / e, "images_per_second": 9.5, "loss": 1 / e, "loss_dice": 0.6 / e}
                | {"loss_focal": 0.4 / e, "val_dice": 0.9 - 0.1 * abs(e - 3) - fold / 50, "threshold": 120 + e}
                for e in range(1, 5)
            ]
            folder = self.run.fold(fold)
            write_text(folder.history, pd.DataFrame(rows).to_csv(index=False))
            write_text(folder.weights, f"weights {fold}")
            made_from = training_inputs(self.run, self.settings)
            content = {"fold": fold, "val_dice": 0.9 - fold / 50, "epoch": 3, "weights_source": "random"}
            write_json(folder.metrics, content | {"precision": "fp32", "made_from": made_from})

    def choose(self) -> None:
        record = StageRecord(self.run, "03_oof_threshold")
        store = MapStore(self.run.oof, tuple(self.training.classes))
        for image_id in self.training.ids:
            truth = self.training.read_mask(image_id)
            presence = np.where(truth.any(axis=(0, 1)), 200, 30).astype(np.uint8) if self.has_presence else None
            maps = np.stack([blurred(plane, self.random) for plane in np.moveaxis(truth, -1, 0)], -1)
            store.write(image_id, maps, presence)
        self.counts = count_maps(store, self.training, self.table.id, self.settings.submission.size)
        self.counts.save(self.run.oof_counts)
        result = choose_thresholds(self.counts, self.table.fold.to_numpy(), self.settings.threshold, None)
        result.write_curves(self.run.threshold.with_suffix(".csv"))
        write_json(self.run.threshold, result.to_dict())
        record.write(threshold_inputs(self.run, self.settings))

    def infer(self) -> None:
        record = StageRecord(self.run, "04_infer")
        store = MapStore(self.run.test, tuple(self.test.classes))
        for number, image_id in enumerate(self.test.ids):
            mask = np.zeros((48, 64), np.uint8)
            cv2.circle(mask, (20 + number, 24), 5 + number // 2, 1, -1)
            plane = blurred(mask * (number != 3), self.random)
            presence = np.full(len(self.test.classes), 200, np.uint8) if self.has_presence else None
            store.write(image_id, np.stack([plane] * len(self.test.classes), axis=-1), presence)
        record.write(test_inputs(self.run, self.settings))

    def postprocess(self) -> None:
        record = StageRecord(self.run, "05_postprocess")
        table, maps = self.table, MapStore(self.run.oof, tuple(self.training.classes))
        self.result = search_morphology(
            partial(read_pairs, maps, self.training, size=self.settings.submission.size),
            self.counts,
            table.fold.to_numpy(),
            table.group.to_numpy(),
            self.settings.threshold,
            self.settings.postprocess,
        )
        write_json(self.run.postprocess, self.result.to_dict())
        self.result.write_gains(self.run.postprocess.with_suffix(".csv"))
        store = MapStore(self.run.test, tuple(self.test.classes))
        write_submission(
            self.run.submission, self.test, store, read_rules(self.run.postprocess, self.test.classes), self.settings
        )
        record.write(submission_inputs(self.run, self.settings), uploads=[self.run.submission])


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> FakeRun:
    return FakeRun.finished(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> FakeRun:
    return FakeRun.finished(tmp_path_factory.mktemp("hostile"), training=18, test=6, hostile=True)


class Page(HTMLParser):
    """The content of a page; each tag that opens must also close, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.found, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def pictures(self) -> list[dict]:
        """The buttons of the galleries."""
        return [button for button in self.all("button") if "data-title" in button]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sections(page: str) -> set[str]:
    return {section["id"] for section in Page(page).all("section")}


def test_each_stage_adds_its_part(tmp_path):
    fake = FakeRun(tmp_path, training=18, test=6)
    for stage, expected in SECTIONS.items():
        getattr(fake, stage)()
        write_report(fake.run, fake.settings)
        page = Page(fake.page)
        assert {section["id"] for section in page.all("section")} == expected
        anchors = {link["href"] for link in page.all("a")}
        assert anchors <= {f"#{name}" for name in expected}


def test_while_folds_train_the_page_has_their_curves_and_looks_for_news(tmp_path):
    fake = FakeRun(tmp_path, training=12, test=4)
    fake.prepare()
    fake.train((0,))
    (fake.run.fold(0).metrics).unlink()  # in training
    write_report(fake.run, fake.settings)
    page = Page(fake.page)
    assert "3 of 3 folds are not trained yet" in page.text and "0 of 3" in page.text
    assert {"http-equiv": "refresh", "content": "30"} in page.all("meta")
    fake.train()
    write_report(fake.run, fake.settings)
    assert not any(meta.get("http-equiv") == "refresh" for meta in Page(fake.page).all("meta"))


def test_results_of_older_models_are_not_shown(tmp_path, fake):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    assert stages_done(run, fake.settings) == {"03", "04", "05"}
    weights = run.fold(1).weights.read_text()
    write_text(run.fold(1).weights, "others")
    assert stages_done(run, fake.settings) == frozenset()
    write_report(run, fake.settings)
    assert sections(run.report.read_text()) == SECTIONS["train"]
    write_text(run.fold(1).weights, weights)
    run.record("04_infer").unlink()
    assert stages_done(run, fake.settings) == {"03"}


@pytest.mark.parametrize("was_predicted", [False, True])
def test_without_test_images_the_run_ends_with_the_score_of_05(tmp_path, fake, was_predicted):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    if not was_predicted:
        run.record("04_infer").unlink()
    settings = fake.settings.model_copy(
        update={"data": fake.settings.data.model_copy(update={"test_images": None, "sample_submission": None})}
    )
    StageRecord(run, "05_postprocess").write(submission_inputs(run, settings))
    assert stages_done(run, settings) == {"03", "05"}
    write_report(run, settings)
    text = run.report.read_text()
    assert sections(text) == SECTIONS["postprocess"] - {"test"}
    assert "Next:" not in text and "submission.csv: " not in Page(text).text
    assert "05_postprocess.py" in text and "04_infer.py" not in text


def test_a_hidden_test_set_has_no_image_yet_and_the_page_no_part_of_it(tmp_path, fake):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    shutil.copytree(fake.settings.data.root, tmp_path / "data")
    for path in (tmp_path / "data" / "test_images").iterdir():
        path.unlink()
    sample = tmp_path / "data" / "sample_submission.csv"
    sample.write_text(sample.read_text().partition("\n")[0] + "\n")
    data = fake.settings.data.model_copy(update={"root": tmp_path / "data", "unreadable_test_images": "empty"})
    settings = fake.settings.model_copy(update={"data": data})
    StageRecord(run, "05_postprocess").write(submission_inputs(run, settings))
    assert stages_done(run, settings) == {"03", "04", "05"}
    write_report(run, settings)
    assert sections(run.report.read_text()) == SECTIONS["postprocess"] - {"test"}


def test_the_model_of_all_images_counts_as_one_of_04(tmp_path, fake):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    settings = fake.settings.model_copy(update={"train": fake.settings.train.model_copy(update={"all_images": True})})
    assert stages_done(run, settings) == {"03"}
    shutil.copytree(run.fold(1).root, run.fold("all").root)
    write_json(run.fold("all").metrics, read_json(run.fold("all").metrics) | {"fold": "all"})
    StageRecord(run, "04_infer").write(test_inputs(run, settings))
    assert stages_done(run, settings) == {"03", "04", "05"}


def test_edited_scores_are_not_shown(tmp_path, fake):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    StageRecord(run, "03_oof_threshold").write(threshold_inputs(run, fake.settings), [run.threshold])
    assert "03" in stages_done(run, fake.settings)
    run.threshold.write_text(run.threshold.read_text().replace('"nested": 0.', '"nested": 0.9'))
    assert stages_done(run, fake.settings) == {"04"}


def test_a_submission_that_was_edited_is_not_called_checked(tmp_path, fake):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    texts = []
    for line in ("", "test_999,1 1\n"):
        run.submission.write_text(run.submission.read_text() + line)
        write_report(run, fake.settings)
        texts.append(Page(run.report.read_text()).text)
    assert ["every mask was decoded again and is the same" in text for text in texts] == [True, False]
    assert ["not the file that 05 wrote and checked" in text for text in texts] == [False, True]


def test_curves_that_training_did_not_write_are_not_shown(tmp_path, fake):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    for fold in range(FOLDS):
        digest = history_digest(run.fold(fold).history)
        write_json(run.fold(fold).metrics, read_json(run.fold(fold).metrics) | {"history_sha256": digest})
    run.fold(0).history.write_text(run.fold(0).history.read_text().replace("0.8", "0.9"))
    assert [row["fold"] for row in training_part(run, fake.settings)["rows"]] == list(range(1, FOLDS))


def test_curves_of_training_are_named_by_the_metric_of_then(fake):
    metric = fake.settings.threshold.model_copy(update={"metric": "iou"})
    part = training_part(fake.run, fake.settings.model_copy(update={"threshold": metric}))
    assert part["score"] == "Dice" and part["charts"][0].title == "Validation Dice"


def test_the_cards_say_what_the_files_say(fake):
    cards = {
        card["label"]: card for card in overview.score_cards(fake.run, fake.settings, frozenset(("03", "04", "05")))
    }
    threshold, postprocess = read_json(fake.run.threshold), read_json(fake.run.postprocess)
    text = Page(fake.page).text
    low, high = postprocess["interval"]
    assert cards["Dice, out of fold"]["value"] == f"{postprocess['after']['nested']:.4f}"
    assert f"95 % interval {low:.4f} to {high:.4f}" in text
    assert cards["In-sample"]["value"] == f"{postprocess['after']['in_sample']:.4f}"
    assert cards["All empty"]["value"] == f"{threshold['all_empty']:.4f}"
    assert f"submission.csv: {len(fake.test.ids)} rows" in text
    for number in (threshold["nested"], threshold["in_sample"], threshold["at_half"]):
        assert f"{number:.4f}" in text


def test_of_objects_too_an_optimistic_score_is_said_to_be_one(tmp_path, fake, monkeypatch):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(fake.run.root, run.root)
    scores = {"metric": "object AP", "nested": 0.5, "in_sample": 0.6, "interval": [0.4, 0.6], "components_nested": 0.4}
    write_json(run.objects, scores)
    submission = fake.settings.submission.model_copy(update={"rows": "instance"})
    settings = fake.settings.model_copy(update={"submission": submission})
    monkeypatch.setattr(overview, "reasons_for_optimism", lambda run, settings: ["it has seen them"])
    objects, masks, *others = overview.score_cards(run, settings, frozenset(("03", "04", "05")))
    assert objects["label"] == "Objects (object AP), out of fold" and masks["label"] == "Dice, out of fold"
    assert objects["note"] == masks["note"] == "optimistic: it has seen them"
    assert not any("optimistic" in card["note"] for card in others)


def test_the_page_is_alone_in_the_world(fake, hostile):
    for run in (fake, hostile):
        page = Page(run.page)
        assert all(image.get("src", "data:").startswith("data:image/jpeg;base64,") for image in page.all("img")[:-1])
        assert not page.all("link") and not page.all("iframe")
        assert all("src" not in script for script in page.all("script"))
        assert "://" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", run.page)
        assert "url(" not in run.page and "@import" not in run.page


def test_the_page_is_laid_out_before_its_pictures_are_decoded(fake):
    for button, image in zip(Page(fake.page).pictures, Page(fake.page).all("img"), strict=False):
        encoded = base64.b64decode(image["src"].split(",")[1])
        height, width = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        assert (image["width"], image["height"]) == (str(width), str(height)), button
        assert "loading" not in image


def test_headings_are_in_order_and_tables_can_be_scrolled_by_keyboard(fake, hostile):
    for run in (fake, hostile):
        levels = [int(tag[1]) for tag, _ in Page(run.page).found if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
        scrolled = [attributes for attributes in Page(run.page).all("div") if attributes.get("class") == "scroll"]
        assert len(scrolled) == len(Page(run.page).all("table"))
        assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolled)


def test_names_from_the_competition_stay_text(hostile):
    page = Page(hostile.page)
    assert all("onerror" not in attributes for _, attributes in page.found)
    assert not page.all("b")
    assert len(page.all("script")) == 1
    shown = {button["data-id"] for button in page.pictures}
    assert any(name.startswith(HOSTILE_ID) for name in shown)
    assert f"{HOSTILE_ID} · {HOSTILE_CLASS}" in shown or f"{HOSTILE_ID} · core" in shown
    assert HOSTILE_CLASS in page.text


def test_charts_are_whole_svg_without_gaps_in_their_numbers(fake, hostile):
    for run in (fake, hostile):
        charts = re.findall(r'<svg viewBox="0 0 \d+ \d+" role="img".*?</svg>', run.page, re.DOTALL)
        assert len(charts) >= 12
        for chart in charts:
            root = ElementTree.fromstring(chart)
            assert "nan" not in chart.replace(root.get("aria-label"), "") and "inf" not in chart


def test_settings_on_the_page_make_the_same_run(tmp_path):
    content = {
        "name": "odd",
        "data": {"classes": ["1", "no", "a: b"], "rle": {"order": "row", "base": 0}, "exclude": ["x*"], "root": "d"},
        "loss": {"terms": "bce", "focal_alpha": 0.25},
        "threshold": {"metric": "f_beta", "beta": 2},
        "postprocess": {"steps": []},
        "submission": {"size": [101, 101]},
    }
    settings = check_settings(content, Path("odd.yaml"))
    path = tmp_path / "odd.yaml"
    path.write_text(overview.differing_settings(settings))
    assert load_settings(path) == settings
    assert "epochs" not in path.read_text()  # as by default
    assert yaml.safe_load(overview.differing_settings(Settings(name="plain"))) == {"name": "plain"}


def test_the_page_stays_small(tmp_path, fake):
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", fake.page)
    assert len(fake.page) - sum(map(len, pictures)) < 150_000
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    shown = shown_image(noise)
    assert max(shown.shape) == SIDE
    pictures = 5 * IN_GALLERY * 5 + 2 * IN_GALLERY * 3  # of a finished run: out-of-fold, changed, test
    assert pictures * len(data_uri(shown)) < 19.5e6  # were they all of mere noise


def test_pictures_decode_to_what_was_drawn(fake):
    uri = Page(fake.page).all("img")[0]["src"]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (round(SIDE * 48 / 64), SIDE, 3)


def test_errors_are_told_apart_by_colour():
    shown = np.full((SIDE, SIDE, 3), 100, np.uint8)
    mask, truth = np.zeros((2, 4, 4), np.uint8)
    mask[:2, :2], truth[:2, 1:] = 1, 1
    picture = errors_picture(shown, mask, truth).astype(int)
    eighth = SIDE // 8
    alarm, hit, missed, ground = (picture[eighth, column * SIDE // 4 + eighth] for column in (0, 1, 2, 3))
    ground = picture[-eighth, -eighth]
    assert alarm[0] > alarm[2] + 50 and missed[2] > missed[0] + 50
    assert (hit == ground).all() and np.ptp(ground) == 0


def test_masks_before_and_after_show_errors_in_the_colours_of_the_page(tmp_path, hostile):
    thresholds = read_rules(hostile.run.threshold, hostile.training.classes)
    maps, size = MapStore(hostile.run.oof, tuple(hostile.training.classes)), hostile.settings.submission.size
    plot_before_after(hostile.result, thresholds, hostile.training, maps, size, tmp_path / "figure.png")
    picture = cv2.imread(str(tmp_path / "figure.png"))[..., ::-1].astype(int)
    shares = [(np.abs(picture - colour).max(axis=-1) < 25).mean() for colour in (FALSE_ALARM, MISSED, TRUTH)]
    assert min(shares) > 1e-4


def test_dollars_in_a_class_are_no_formula_in_the_figure_of_thresholds(tmp_path, hostile):
    result = choose_thresholds(hostile.counts, hostile.table.fold.to_numpy(), hostile.settings.threshold, None)
    assert HOSTILE_CLASS in result.classes and "$^{$" in HOSTILE_CLASS
    plot_thresholds(result, tmp_path / "figure.png")
    assert cv2.imread(str(tmp_path / "figure.png")) is not None


@pytest.mark.parametrize(("folds", "name"), [(3, "each fold"), (1, "each part")])
def test_curves_of_parts_that_stand_in_for_folds_are_drawn_and_named_so(tmp_path, fake, folds, name, monkeypatch):
    """Also where fold 0 is not among the trained ones."""
    table = fake.table.assign(fold=fake.table.fold % folds + 1)
    result = choose_thresholds(fake.counts, table.fold.to_numpy(), fake.settings.threshold, table.group.to_numpy())
    result.write_curves(tmp_path / "threshold.csv")
    write_json(tmp_path / "threshold.json", result.to_dict())
    (chart,) = stages.threshold_part(RunFolder(tmp_path))["charts"]
    assert name in [swatch[0] for swatch in chart.legend] and sum("faint" in part for part in chart.parts) == len(
        set(result.parts)
    )
    drawn = []
    monkeypatch.setattr("lib.report.figures.save_figure", lambda figure, path: drawn.append(figure))
    plot_thresholds(result, tmp_path / "threshold.png")
    texts = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert texts.count(name) == 1


def test_the_chart_of_no_mask_at_all_marks_no_threshold():
    curves = pd.DataFrame({"threshold": range(1, 256), "score": 0.3, "fold_0": 0.4})
    row = {"name": "blob", "plateau": [100, 140], "rule": {"threshold": 120}, "all_empty": 0.9}
    chosen = stages._threshold_chart(row, curves, "Dice", 1)
    empty = stages._threshold_chart(row | {"plateau": [256, 256], "rule": {"threshold": 256}}, curves, "Dice", 1)
    assert [swatch[0] for swatch in chosen.legend[2:]] == ["chosen: 0.47", "plateau"]
    assert [swatch[0] for swatch in empty.legend[2:]] == ["chosen: no mask at all"]
    assert "circle" in chosen.svg() and "circle" not in empty.svg() and "nan" not in empty.svg()
    assert empty.y.low < 0.3 and empty.y.high > 0.9


def test_scores_from_counts_are_those_of_the_masks(fake):
    rule = Rule(90, Gate(top=200, area=60), (Step("dilation", 4),))
    scores = measures.OofScores.of(fake.counts, {"blob": rule})
    maps = MapStore(fake.run.oof, ("blob",))
    shut = 0
    for row, image_id in enumerate(scores.ids):
        probability_map, truth = maps.read(image_id)[..., 0], fake.training.read_mask(image_id)[..., 0]
        mask = (probability_map >= 90) & ((probability_map >= 200).sum() >= 60)
        shut += not mask.any()
        tp, fp, fn = ((mask & (truth > 0)).sum(), (mask & (truth == 0)).sum(), (~mask & (truth > 0)).sum())
        assert scores.dice[row, 0] == dice(tp, fp, fn)
        assert (scores.wrong[row, 0], scores.predicted[row, 0]) == (fp + fn, mask.sum())
        assert scores.coverage[row, 0] == pytest.approx(truth.mean())
    assert 0 < shut < len(scores.ids)


def test_worst_and_best_are_those_of_the_lowest_and_highest_dice(fake):
    scores = measures.OofScores.of(fake.counts, read_rules(fake.run.threshold, fake.training.classes))
    painted = []
    found = {g.key: [item.id for item in g.items] for g in ranked_galleries(scores, lambda p: painted.append(p) or p)}
    by_id = dict(zip(scores.ids, scores.dice[:, 0], strict=True))
    full = {image_id for image_id, positives in zip(scores.ids, scores.positives[:, 0], strict=True) if positives}
    assert [by_id[i] for i in found["worst"]] == sorted(by_id.values())[: len(found["worst"])]
    assert [by_id[i] for i in found["best"]] == sorted((by_id[i] for i in full), reverse=True)[: len(found["best"])]
    assert len(set(sum(found.values(), []))) == len(painted) == 24
    middle = np.median([by_id[i] for i in full])
    assert min(by_id[i] for i in found["median"]) <= middle <= max(by_id[i] for i in found["median"])


def test_wrong_pixels_by_distance_agree_with_a_search_over_all_pixels():
    rng = np.random.default_rng(3)
    truth = np.zeros((24, 31), np.uint8)
    truth[5:15, 8:20] = 1
    mask = (rng.random(truth.shape) < 0.3).astype(np.uint8)
    expected = np.zeros((2, len(measures.BORDER_NAMES)), int)
    places = {kind: np.argwhere(truth == kind) for kind in (0, 1)}
    for y, x in np.argwhere(mask != truth):
        steps = np.ceil(np.hypot(*(places[1 - truth[y, x]] - (y, x)).T).min())
        row = next(i for i, last in enumerate((1, 2, 4, 8, 16, 32, np.inf)) if steps <= last)
        expected[truth[y, x], row] += 1
    counts, borderless = measures.border_distances(mask, truth)
    assert np.array_equal(counts, expected) and borderless == 0
    assert measures.border_distances(mask, np.ones_like(truth))[1] == (mask == 0).sum()


def test_objects_covered_agree_with_scipy():
    rng = np.random.default_rng(4)
    truth, mask = (rng.random((2, 40, 50)) < 0.3).astype(np.uint8)
    labels, count = ndimage.label(truth, np.ones((3, 3)))
    expected = sorted(((labels == n).sum(), mask[labels == n].mean()) for n in range(1, count + 1))
    np.testing.assert_allclose(sorted(measures.objects_covered(mask, truth)), expected)
    assert measures.objects_covered(mask, np.zeros_like(truth)) == []


def test_expected_dice_by_hand():
    maps = np.array([[255, 51, 0]], np.uint8)[..., None]
    masks = (maps >= 255).astype(np.uint8)
    assert measures.expected_dice(masks, maps) == pytest.approx([2 * 1 / (1 + 1.2)])
    assert np.isnan(measures.expected_dice(np.zeros_like(maps), maps)).all()


def test_a_shift_is_told_and_chance_is_not():
    rng = np.random.default_rng(5)
    oof, same, other = rng.beta(2, 5, 400), rng.beta(2, 5, 300), rng.beta(2, 8, 300)
    assert measures.largest_gap(oof, other)[0] == pytest.approx(ks_2samp(oof, other).statistic)
    chance = measures.largest_gap(oof, other)[1]
    assert kstwobign.isf(0.01) * np.sqrt(700 / (400 * 300)) == pytest.approx(chance, rel=1e-3)
    assert not shift_in_words(oof, same)["shift"]
    shifted = shift_in_words(oof, other)
    assert shifted["shift"] and "less is predicted" in shifted["text"] and f"{other.mean():.1%}" in shifted["text"]


def test_a_sample_has_as_many_images_as_a_page_can_read():
    ids = [str(number) for number in range(10_000)]
    assert measures.sample(ids[:300], 128 * 128) == ids[:300]
    assert len(measures.sample(ids, 128 * 128)) == 1000
    few = measures.sample(ids, 1280 * 1918)
    assert few[0] == "0" and few[-1] == "9999" and len(few) == measures.LEAST + 2
    assert len(measures.sample(ids, 1e9)) == measures.LEAST and measures.sample([], 1) == []


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", -0.3, 0.31), [-0.2, 0, 0.2]),
        (Axis("", 3, 97), [20, 40, 60, 80]),
        (Axis("", 0.8, 120, log=True), [1, 3, 10, 30, 100]),
    ],
)
def test_ticks_are_round_numbers_inside(axis, expected):
    assert [number for number, _ in axis.ticks()] == pytest.approx(expected)


def test_lines_break_where_there_is_no_number_and_stay_inside():
    chart = Chart("", Axis("", 0, 4), Axis("", 0, 1))
    chart.line([0, 1, 2, 3, 4], [0.5, np.nan, 0.5, 9, 0.5], "s0")
    path = re.search(r'd="([^"]+)"', chart.parts[0])[1]
    assert path.count("M") == 2 and path.count("L") == 2
    heights = [float(text) for text in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    assert min(heights) == 10  # the 9 is held at the top
    assert Axis.around("", [np.nan]).ticks() and Axis.around("", [2, 2]).low < 2 < Axis.around("", [2, 2]).high


def test_a_page_that_fails_stops_nothing(tmp_path, capsys):
    fake = FakeRun(tmp_path, training=6, test=2)
    refresh_report(fake.run, fake.settings)
    assert "report.html is not up to date (FileNotFoundError" in capsys.readouterr().err


def test_a_page_of_curves_needs_neither_torch_nor_matplotlib():
    code = "import sys, lib.report.page; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'smp')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


def test_an_ensemble_says_what_its_members_are_worth(fake, tmp_path):
    run = RunFolder(tmp_path / "runs" / "both")
    settings = check_settings({"name": "both", "ensemble": {"members": ["runs/a", "runs/b"]}}, Path("both.yaml"))
    weights, alone, without = ({"a": one, "b": other} for one, other in ((0.75, 0.25), (0.8, 0.7), (0.71, 0.83)))
    content = {"weights": weights, "metric": "dice", "nested": 0.82, "alone": alone, "without": without}
    write_json(run.ensemble, content)
    assert [row["adds"] for row in ensemble_part(run)["rows"]] == pytest.approx([0.11, -0.01])
    assert overview.score_cards(run, settings, frozenset()) == []
    assert not any("02_train" in command for command in overview.repeating_commands(settings))
    path = tmp_path / "both.yaml"
    adopted = settings.model_copy(update={"data": fake.settings.data})  # what 01 keeps, and refuses in a settings file
    path.write_text(overview.differing_settings(adopted))
    assert load_settings(path) == settings


def test_a_comparison_shows_where_runs_differ(fake, tmp_path):
    before, maps = read_rules(fake.run.threshold, fake.training.classes)["blob"], MapStore(fake.run.oof, ("blob",))

    class Run(NamedTuple):
        name: str
        rule: Rule
        size: None = None

        def predict(self, image_id: str) -> np.ndarray:
            return self.rule.apply(np.ascontiguousarray(maps.read(image_id)[..., 0]))[..., None]

    runs = [Run("good", before), Run(HOSTILE_CLASS, Rule(230))]
    table = fake.table
    truths = [fake.training.read_mask(image_id) for image_id in table.id]
    scores = np.array([[mask_scores(run.predict(i), t) for i, t in zip(table.id, truths, strict=True)] for run in runs])
    content = {"images": len(table), "against": {HOSTILE_CLASS: describe_difference(scores[0], scores[1], table, 100)}}
    write_comparison(tmp_path / "compare.html", content, runs, scores, fake.training, table)
    page = Page((tmp_path / "compare.html").read_text())
    assert not page.all("b") and f"{HOSTILE_CLASS} is worse" in page.text
    shown = [button["data-id"] for button in page.pictures if button["data-title"] == "image"]
    differences = (scores[1] - scores[0])[:, 0, 0]
    worst = table.id.iloc[np.argsort(differences, kind="stable")[:IN_GALLERY]].tolist()
    rises = int((differences > 0).sum())
    assert shown[min(rises, IN_GALLERY) :] == worst
    for measure in content["against"][HOSTILE_CLASS].values():
        assert f"{measure['difference']:+.4f}" in page.text


def test_a_tracker_that_is_not_installed_is_an_error(monkeypatch):
    monkeypatch.setattr("lib.training.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="train.tracker=wandb needs the package wandb"):
        require_tracker("wandb")
    require_tracker("none")


def test_each_fold_is_a_run_of_the_tracker(monkeypatch):
    heard = []

    class Stub:
        name, requires_logging_directory = "tensorboard", True

        def __init__(self, name: str, folder: str) -> None:
            heard.append(("begins", name, Path(folder).name))

        def start(self) -> None: ...

        def store_init_configuration(self, values: dict) -> None:
            heard.append(("settings", values["train.epochs"], values["data.rle.order"]))

        def log(self, values: dict, step: int) -> None:
            heard.append((step, values))

        def finish(self) -> None:
            heard.append("ends")

    monkeypatch.setattr("accelerate.accelerator.LOGGER_TYPE_TO_CLASS", {"tensorboard": Stub})
    accelerator = Accelerator(cpu=True, project_dir="tracker")
    accelerator.log_with = ["tensorboard"]  # accelerate itself drops what is not installed
    settings = check_settings({"name": "x", "train": {"tracker": "tensorboard"}}, Path("x.yaml"))
    with tracked(accelerator, settings, 2):
        accelerator.log({"loss": 0.5}, step=7)
    accelerator.log({"loss": 0.4}, step=8)  # of no fold
    settings_told = ("settings", str(settings.train.epochs), "column")
    assert heard == [("begins", "fold_2", "tracker"), settings_told, (7, {"loss": 0.5}), "ends"]


DRIVE = """
<script>
const log = [];
window.addEventListener("error", (event) => log.push("error " + event.message));
document.addEventListener("securitypolicyviolation", (event) => log.push("blocked " + event.blockedURI));
window.addEventListener("load", async () => {
  const images = [...document.querySelectorAll(".pictures img")];
  const loaded = images.every((image) => image.complete && image.naturalWidth > 0);
  const tall = document.documentElement.scrollHeight;
  const zoom = document.getElementById("zoom");
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const shown = () => [zoom.querySelector("strong").textContent, zoom.querySelector("span").textContent.split(" ")[0]];
  const steps = {};
  buttons[1].click();
  steps.clicked = shown();
  press("ArrowRight"); steps.right = shown();
  press("ArrowLeft"); press("ArrowLeft"); steps.left = shown();
  press("ArrowDown"); steps.down = shown();
  steps.open = zoom.open && zoom.querySelector("img").src === buttons[shownIndex()].querySelector("img").src;
  zoom.click();
  steps.closed = !zoom.open;
  buttons[1].click();
  zoom.querySelector("[data-move=ArrowRight]").click(); steps.next = shown();
  zoom.querySelector("[data-move=Escape]").click();
  steps.closed_by_button = !zoom.open;
  dispatchEvent(new Event("beforeprint"));
  const unfolded = images.every((image) => image.checkVisibility());
  dispatchEvent(new Event("afterprint"));
  const folded = !images.every((image) => image.checkVisibility());
  const wide = document.documentElement.scrollWidth;
  const result = { log, steps, wide, tall, inner: innerWidth, images: loaded, printed: unfolded && folded };
  result.dark = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(JSON.stringify(result), "*");
});
function shownIndex() { return shown; }
</script>
"""

FRAME = """
<pre id="result"></pre>
<script>
addEventListener("message", (event) => { document.getElementById("result").textContent = event.data; });
</script>
<iframe src="page.html" width="WIDTH" height="900" style="border:0"></iframe>
"""  # a window is at least 500 wide, a frame may be narrower


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")
@pytest.mark.parametrize(("width", "scheme"), [(400, 0), (1000, 1), (1600, 1)])
def test_the_page_works_in_a_browser(fake, tmp_path, width, scheme):
    path = tmp_path / "frame.html"
    path.write_text(FRAME.replace("WIDTH", str(width)))
    (tmp_path / "page.html").write_text(fake.page.replace("</head>", DRIVE + "</head>"))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr"]
    command += ["--window-size=1700,1000", f"--blink-settings=preferredColorScheme={scheme}", f"file://{path}"]
    command += ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", "--virtual-time-budget=20000", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    result = json.loads(html.unescape(re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert result["log"] == [] and "CONSOLE" not in done.stderr
    assert result["images"] and result["printed"] and result["inner"] == width and result["wide"] <= width
    assert width < 1000 or result["tall"] <= 9000
    assert result["dark"] == ("rgb(18, 21, 27)" if scheme == 0 else "rgb(246, 247, 249)")
    first, second = [b["data-id"] for b in Page(fake.page).pictures if b["data-title"] == "image"][:2]
    steps = result["steps"]
    assert steps["clicked"] == [first, "truth"] and steps["right"] == [first, "probability"]
    assert steps["left"] == [first, "image"] and steps["down"] == [second, "image"]
    assert steps["next"] == steps["right"]
    assert steps["open"] and steps["closed"] and steps["closed_by_button"]
