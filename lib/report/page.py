"""`report.html`, made from the run folder: a part appears once its stage is done with the present models."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib.base.files import write_text
from lib.config.schema import Settings
from lib.data.competition import open_test, open_training
from lib.folds.split import coverage_columns, stored_folds
from lib.masks.metrics import Counts, Metric
from lib.masks.rules import read_rules
from lib.prediction.map_store import MapStore, read_pairs
from lib.report import overview
from lib.report.findings import certainty_chart, coverage_part, errors_part
from lib.report.galleries import OofPainter, TestPainter, certainty_galleries, changed_galleries, ranked_galleries
from lib.report.groups_part import groups_part
from lib.report.measures import OofScores, measure_oof, measure_test, sample
from lib.report.presence_part import presence_part
from lib.report.stages import ensemble_part, folds_part, morphology_part, threshold_part, training_part
from lib.run.folder import RunFolder
from lib.run.provenance import next_stage, stages_done

TEMPLATES = Path(__file__).parent / "templates"


def refresh_report(run: RunFolder, settings: Settings) -> None:
    """Write the page. A failure is only reported: a failing report must not stop a training."""
    try:
        write_report(run, settings)
    except Exception as error:
        print(f"warning   {run.report} is not up to date ({type(error).__name__}: {error})", file=sys.stderr)


def write_report(run: RunFolder, settings: Settings) -> None:
    """Write `report.html`. While 02 trains this takes a tenth of a second; with the galleries, seconds."""
    done = stages_done(run, settings)
    parts = {"folds": folds_part(run, settings.data.classes), "training": training_part(run, settings)}
    if "03" in done:
        if settings.ensemble.members:
            parts["ensemble"] = ensemble_part(run)
        parts["threshold"] = threshold_part(run)
        parts["presence"] = presence_part(run)
        parts |= map_parts(run, settings, done)
        parts["scenes"] = groups_part(run, settings)
    if "05" in done:
        parts["morphology"] = morphology_part(run)
    write_page(
        run.report,
        "run.html",
        title=settings.name,
        settings=settings,
        cards=overview.score_cards(run, settings, done),
        changed=overview.differing_settings(settings),
        commands=overview.repeating_commands(settings),
        times=overview.stage_times(run),
        versions=overview.package_versions(run),
        done=done,
        following=next_stage(run, settings, done),
        parts=parts,
        refresh=parts["training"] is not None and parts["training"]["training"] > 0,
    )


def map_parts(run: RunFolder, settings: Settings, done: frozenset[str]) -> dict:
    """Parts that read images and maps: galleries, errors by kind, the test set."""
    training = open_training(settings.data)
    table = stored_folds(run.folds)
    oof_maps = MapStore(run.oof, tuple(training.classes), settings.data.are_exclusive)
    before = read_rules(run.threshold, training.classes)
    after = read_rules(run.postprocess, training.classes) if "05" in done else None
    rules, size = after or before, settings.submission.size

    scores = OofScores.of(Counts.load(run.oof_counts), before)
    pixels = float((table.height * table.width).mean())
    sampled = sample(scores.ids, pixels)
    oof_stats = measure_oof(read_pairs(oof_maps, training, sampled, size), rules, oof_maps)
    painter = OofPainter(training, oof_maps, size, before, after)
    parts = {"galleries": ranked_galleries(scores, painter.paint), "errors": errors_part(scores, oof_stats)}
    if after:
        gains = read_gains(run, scores)
        metric = Metric.of(settings.threshold)
        headings = [
            ("better", "Improved by morphology", f"Where {metric} rises most."),
            ("worse", "Harmed by morphology", f"Where {metric} falls most."),
        ]
        parts["changed"] = changed_galleries(gains, scores.ids, painter.paint, headings)
    if "04" in done and (test := open_test(settings.data)).ids:
        test_maps = MapStore(run.test, tuple(test.classes), settings.data.are_exclusive)
        stats = measure_test(sample(test.ids, pixels), rules, test_maps, size)
        truth = table[coverage_columns(test.classes)].to_numpy()
        oof, predicted = (np.stack([image.coverage for image in part.values()]) for part in (oof_stats, stats))
        parts["test"] = coverage_part(truth, oof, predicted, test.classes, len(test.ids))
        if chart := certainty_chart(stats):
            parts["test"]["charts"].append(chart)
        parts["test"]["galleries"] = certainty_galleries(stats, TestPainter(test, test_maps, size, rules).paint)
    return parts


def read_gains(run: RunFolder, scores: OofScores) -> np.ndarray:
    """Gain of each image by morphology, (images, classes) in the order of `scores`, from postprocess.csv."""
    path = run.postprocess.with_suffix(".csv")
    table = pd.read_csv(path, dtype={"id": str}, keep_default_na=False).set_index("id")
    return table.loc[scores.ids, [f"gain_{name}" for name in scores.classes]].to_numpy()


def write_page(path: Path, template: str, **values: object) -> None:
    """Render a template and write it, whole or not at all."""
    write_text(path, environment().get_template(template).render(values))


@cache
def environment() -> Environment:
    """The Jinja templates; inserted values are escaped."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["style"] = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    templates.globals["script"] = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    return templates
