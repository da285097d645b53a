"""The page of all runs, `leaderboard.html`: runs on the same folds by score, and the settings in which they differ."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.base.errors import UserError
from lib.base.files import sha256_of_file
from lib.config.check import dotted
from lib.config.schema import ObjectSettings, Settings
from lib.masks.metrics import Metric
from lib.masks.objects import describe_score
from lib.report.charts import Axis, Chart
from lib.report.overview import stage_times
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import next_stage, stages_done, trained_folds
from lib.run.score_notes import note_of_all_images, reasons_for_optimism
from lib.submission.final import final_score

NOT_COMPARED = {"name"}
OF_MEMBERS = {"model", "augment", "loss", "train", "infer"}  # sections that an ensemble has no use for


@dataclass(frozen=True)
class Score:
    """The score that ranks runs: nested, with its 95 % interval and the gap to the in-sample score."""

    metric: str
    nested: float
    interval: tuple[float, float]
    gap: float

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.nested:.4f}  {low:.4f} to {high:.4f}  gap {self.gap:+.4f}"


@dataclass
class Entry:
    """One run: its settings as {dotted key: value}, the fingerprint of its folds, its score once 03 is done."""

    name: str
    folds: str
    scored: str  # which folds the score is of, unless it is of all
    settings: dict[str, object]
    score: Score | None
    state: str
    seconds: float
    has_report: bool
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Board:
    """Runs whose scores are of the same images, in the same measure, best first; runs without a score come last."""

    title: str
    entries: list[Entry]

    @property
    def chart(self) -> Chart | None:
        """The nested scores with their intervals, best on top; None unless two runs have one."""
        scored = [entry for entry in self.entries if entry.score]
        if len(scored) < 2:
            return None
        names = [entry.name for entry in scored][::-1]
        x = Axis.around(scored[0].score.metric, [end for entry in scored for end in entry.score.interval])
        chart = Chart("Nested score", x, Axis("", 0, len(scored)), height=50 + 22 * len(scored), y_names=names)
        for place, entry in enumerate(reversed(scored)):
            chart.line(entry.score.interval, [place + 0.5] * 2, "s0", width=2)
            chart.dot(entry.score.nested, place + 0.5, "s0", f"{entry.name}: {entry.score}")
        chart.caption = "Runs whose intervals overlap may still differ: lib.tools.compare pairs them image by image."
        return chart


def read_entries(folder: Path) -> tuple[list[Entry], list[str]]:
    """Every run below `folder`, and a sentence for each that cannot be read."""
    entries, unreadable = [], []
    for config in sorted(folder.glob("*/config.yaml")):
        try:
            entries.append(read_entry(*open_run(config.parent)))
        except UserError as error:
            unreadable.append(str(error))
        except KeyError as error:
            unreadable.append(f"{config.parent} was made by another version: its files lack {error}")
    return entries, unreadable


def read_entry(run: RunFolder, settings: Settings) -> Entry:
    done = stages_done(run, settings)
    scored = trained_folds(run, settings) if "03" in done else range(settings.folds.count)
    return Entry(
        run.root.name,
        sha256_of_file(run.folds) if run.folds.is_file() else "",
        "" if len(scored) == settings.folds.count else f"fold {', '.join(map(str, scored))} of ",
        dotted(settings.model_dump(mode="json", exclude=NOT_COMPARED)),
        read_score(run, settings, done) if "03" in done else None,
        state_of(run, settings, done),
        sum(row["seconds"] for row in stage_times(run)),
        run.report.is_file(),
    )


def read_score(run: RunFolder, settings: Settings, done: frozenset[str]) -> Score:
    metric, nested, in_sample, interval = final_score(run, settings, "05" in done)
    return Score(metric, nested, interval, in_sample - nested)


def state_of(run: RunFolder, settings: Settings, done: frozenset[str]) -> str:
    """Whether the run is finished or which stage is next, and what to know of its score."""
    notes = ["finished" if "05" in done else f"next: {next_stage(run, settings, done)}.py"]
    if "05" in done and note_of_all_images(run, settings):
        notes.append("its test maps are also of the model of all images")
    if "03" in done and reasons_for_optimism(run, settings):
        notes.append("its score is optimistic, as its report says")
    return "; ".join(notes)


def boards(entries: Sequence[Entry]) -> list[Board]:
    """The runs by folds and measure; the board of the most runs first."""
    by_folds: dict[tuple, list[Entry]] = {}
    for entry in entries:
        measure = measure_of(entry.settings, entry.score)
        by_folds.setdefault((entry.folds, entry.scored, measure), []).append(entry)
    result = []
    for (fingerprint, scored, measure), group in sorted(by_folds.items(), key=lambda item: len(item[1]), reverse=True):
        name_differences(group)
        group.sort(key=lambda entry: (entry.score is None, -entry.score.nested if entry.score else 0))
        first = group[0].settings
        folds = f"{scored}{first['folds.count']} folds ({fingerprint[:6] or 'not made yet'})"
        result.append(Board(f"{first['data.root']}, {folds}, {measure}", group))
    return result


def measure_of(settings: dict[str, object], score: Score | None) -> str:
    """The measure of a run: metric, objects or not, and the size of the masks.

    That of its score where it has one: a run whose rows are objects has a score of its masks before 05.
    """
    name = str(Metric(settings["threshold.metric"], settings["threshold.beta"]))
    if settings["submission.rows"] == "instance":
        name = describe_score(ObjectSettings(metric=settings["objects.metric"], beta=settings["objects.beta"]))
    name, size = score.metric if score else name, settings["submission.size"]
    return name if size is None else f"{name} at {size[0]} x {size[1]}"


def name_differences(entries: list[Entry]) -> None:
    """Give each run the settings in which it differs from most of them; ties go to the default."""
    default = dotted(Settings(name="default").model_dump(mode="json", exclude=NOT_COMPARED))
    for key in sorted(set().union(*(entry.settings for entry in entries))):
        is_of_members = key.partition(".")[0] in OF_MEMBERS
        using = [entry for entry in entries if not (is_of_members and entry.settings["ensemble.members"])]
        values = Counter(str(entry.settings.get(key)) for entry in using) or Counter([""])
        usual = max(values, key=lambda value: (values[value], value == str(default.get(key)), value))
        for entry in using:
            if str(entry.settings.get(key)) != usual:
                entry.differences.append(f"{key}={entry.settings.get(key)}")
