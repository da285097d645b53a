"""The top of the page: scores, settings, commands, versions and seconds."""

from pathlib import Path

import yaml

from lib.base.files import read_json
from lib.config.schema import Settings
from lib.config.section import Section
from lib.masks.metrics import Metric
from lib.run.folder import RunFolder, stages_of
from lib.run.record import is_upload, stage_records
from lib.run.score_notes import reasons_for_optimism
from lib.submission.final import mask_score
from lib.submission.write import CHECKED, order_of_rows

PURPOSES = {
    "01_prepare_folds": "data checked, folds made",
    "02_train": "one model per fold",
    "03_oof_threshold": "out-of-fold maps and threshold",
    "04_infer": "test maps",
    "05_postprocess": "morphology and submission",
}

Card = dict[str, str]


def score_cards(run: RunFolder, settings: Settings, done: frozenset[str]) -> list[Card]:
    """The scores at a glance, of the stages that are done."""
    cards = []
    if "03" in done:
        cards += out_of_fold_cards(run, "05" in done)
        if "05" in done and settings.submission.rows == "instance":
            cards.insert(0, objects_card(run))
        if reasons := reasons_for_optimism(run, settings):
            optimistic = {"note": f"optimistic: {'; '.join(reasons)}"}
            cards = [each | optimistic if each["tone"] == "main" else each for each in cards]
    elif not settings.ensemble.members:
        cards += training_cards(run, settings)
    if {"04", "05"} <= done and settings.submission.format == "csv" and run.submission.is_file():
        cards.append(submission_card(run, settings))
    return cards


def submission_card(run: RunFolder, settings: Settings) -> Card:
    """Card of submission.csv: that it was checked, or that it is no longer the file that was."""
    with run.submission.open("rb") as file:
        rows = f"{run.submission.name}: {sum(1 for _ in file) - 1:,} rows"
    if not is_upload(run.record("05_postprocess"), run.submission):
        return card("Submission", "edited", rows, "not the file that 05 wrote and checked; run it again")
    return card("Submission", "ready", f"{rows} {order_of_rows(settings)}", CHECKED, tone="good")


def out_of_fold_cards(run: RunFolder, processed: bool) -> list[Card]:
    """Cards of the nested score, the in-sample score and the score of an empty submission."""
    threshold = read_json(run.threshold)
    metric, nested, in_sample, (low, high) = mask_score(run, processed)
    label, interval = f"{metric}, out of fold", f"95 % interval {low:.4f} to {high:.4f}"
    note = "nested: every image at a rule tuned on the other folds; expect this on new images"
    in_sample_note = "tuned and scored on the same images; the gap is how much tuning flatters"
    empty_note = "an honest score must be well above it"
    cards = [
        card(label, f"{nested:.4f}", interval, note, tone="main"),
        card("In-sample", f"{in_sample:.4f}", f"gap {in_sample - nested:+.4f}", in_sample_note),
        card("All empty", f"{threshold['all_empty']:.4f}", "what predicting nothing scores", empty_note),
    ]
    return [cards[0], morphology_card(read_json(run.postprocess)), *cards[1:]] if processed else cards


def morphology_card(content: dict) -> Card:
    """Card of what morphology gains, by the content of postprocess.json."""
    if not any(rule["adopted"] for rule in content["classes"].values()):
        return card("Morphology", "none", "the threshold alone is used", "no step gains on the folds left out")
    before, after = content["before"]["nested"], content["after"]["nested"]
    note = "gained on folds that took no part in choosing it"
    return card("Morphology", f"{after - before:+.4f}", f"threshold alone: {before:.4f}", note)


def objects_card(run: RunFolder) -> Card:
    """Card of the object score, the competition's metric where each row is an object."""
    objects = read_json(run.objects)
    low, high = objects["interval"]
    label, nested = f"Objects ({objects['metric']}), out of fold", f"{objects['nested']:.4f}"
    detail = f"95 % interval {low:.4f} to {high:.4f}; in-sample {objects['in_sample']:.4f}"
    all_empty = f", no object at all {objects['all_empty']:.4f}" if "all_empty" in objects else ""
    note = f"nested; connected components without cutting score {objects['components_nested']:.4f}{all_empty}"
    return card(label, nested, detail, note, tone="main")


def training_cards(run: RunFolder, settings: Settings) -> list[Card]:
    """Cards of the folds trained and the mean of their best validation scores."""
    folders = [run.fold(fold) for fold in range(settings.folds.count)]
    trained = [read_json(folder.metrics) for folder in folders if folder.metrics.is_file()]
    cards = [card("Folds trained", f"{len(trained)} of {len(folders)}", "one model per fold")]
    metric = Metric.of(settings.threshold)
    if scores := [metrics[metric.column] for metrics in trained if metric.column in metrics]:
        note = "each at its own best threshold, so optimistic; stage 03 gives the honest score"
        cards.append(
            card(f"Validation {metric}", f"{sum(scores) / len(scores):.4f}", f"mean of {len(scores)} folds", note)
        )
    return cards


def card(label: str, value: str, detail: str, note: str = "", tone: str = "") -> Card:
    return {"label": label, "value": value, "detail": detail, "note": note, "tone": tone}


def differing_settings(settings: Settings) -> str:
    """Settings that differ from the defaults, as YAML for `01_prepare_folds.py --config`; the defaults as comments."""
    lines = []
    from_members = {"data", "folds"} if settings.ensemble.members else set()
    for name, value in settings:
        if not isinstance(value, Section) or name in from_members:
            continue
        changed = _changed(value, indent=1)
        lines += [f"{name}:", *changed] if changed else []
    return "\n".join([f"name: {settings.name}", *lines]) + "\n"


def _changed(section: Section, indent: int) -> list[str]:
    lines = []
    for key, field in type(section).model_fields.items():
        value, default = getattr(section, key), field.get_default(call_default_factory=True)
        if value == default:
            continue
        if isinstance(value, Section):
            lines += ["  " * indent + f"{key}:", *_changed(value, indent + 1)]
        else:
            plain = section.model_dump(mode="json", include={key})[key]
            usual = f"  # default: {_inline(default)}"
            lines.append("  " * indent + f"{key}: {_inline(plain)}{usual}")
    return lines


def _inline(value: object) -> str:
    plain = str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def repeating_commands(settings: Settings) -> list[str]:
    """The commands that repeat the run, with the settings above saved as a file."""
    _, *stages = stages_of(settings)
    later = [f"python {stage}.py --run runs/{settings.name}" for stage in stages]
    return [f"python 01_prepare_folds.py --config configs/{settings.name}.yaml", *later]


def stage_times(run: RunFolder) -> list[dict]:
    return [
        {"stage": stage, "purpose": PURPOSES[stage], "seconds": record["seconds"], "finished": record["finished"]}
        for stage, record in stage_records(run).items()
    ]


def package_versions(run: RunFolder) -> dict[str, str]:
    records = stage_records(run).values()
    return max(records, key=lambda record: record["finished"])["versions"] if records else {}
