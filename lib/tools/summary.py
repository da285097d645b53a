"""Summarise a finished run: scores, seconds, and the files to look at.

    python -m lib.tools.summary runs/NAME [--solution data/NAME/solution.csv]

A run whose scores belong to older models is refused. With a solution (a table of run lengths like the submission) both
submissions are scored against it, if they are those that 05 wrote.
"""

import argparse
from pathlib import Path

from lib.base.cli import plain_parser, run_command
from lib.base.errors import UserError
from lib.base.files import read_json
from lib.masks.metrics import Metric
from lib.run.folder import RunFolder, open_run
from lib.run.provenance import require_stage, require_thresholds, submission_inputs, trained_folds
from lib.run.record import is_upload, stage_records
from lib.run.score_notes import notes_on_scores
from lib.tools.score import score_submission


def summarise(arguments: argparse.Namespace) -> None:
    run, settings = open_run(arguments.run)
    made_from = require_thresholds(run, settings)
    require_stage(run, "05_postprocess", submission_inputs(run, settings, made_from))
    threshold, postprocess = read_json(run.threshold), read_json(run.postprocess)
    if settings.ensemble.members:
        weights = read_json(run.ensemble)["weights"]
        lines = [("average of", ", ".join(f"{name} ({weight:.2f})" for name, weight in weights.items()))]
    else:
        first = run.fold(trained_folds(run, settings)[0])
        lines = [("encoder", f"{settings.model.encoder}, weights: {read_json(first.metrics)['weights_source']}")]
    if settings.submission.rows == "instance":
        lines += object_lines(read_json(run.objects))
    lines += oof_lines(threshold, postprocess)
    if arguments.solution:
        for name, path in (("threshold only", run.unprocessed), ("submission.csv", run.submission)):
            require_upload(run, path)
            lines.append((f"test, {name}", str(score_submission(path, arguments.solution, settings))))
    lines += [("seconds", seconds_per_stage(run)), ("look at", f"{run.report}, {run.before_after}")]
    width = max(len(name) for name, _ in lines)
    print("\n".join(["", *(f"{name.ljust(width)}   {text}" for name, text in lines)]))
    print(notes_on_scores(run, settings), end="")


def require_upload(run: RunFolder, path: Path) -> None:
    """Raise UserError where a submission is not the one that 05 wrote."""
    if path.is_file() and not is_upload(run.record("05_postprocess"), path):
        raise UserError(
            f"{path} is not what the last 05_postprocess.py wrote (edited, damaged or older); run "
            f"{run.command('05_postprocess')}, or score the file itself with lib.tools.score"
        )


def object_lines(objects: dict) -> list[tuple[str, str]]:
    """The out-of-fold scores of objects, which are the competition's where each row is an object."""
    metric, (low, high) = objects["metric"], objects["interval"]
    rules = ", ".join(f"{name}: {choice['rule']['name']}" for name, choice in objects["classes"].items())
    return [
        (f"{metric}, nested", f"{objects['nested']:.4f} (95 % {low:.4f} to {high:.4f}); {rules}"),
        (
            f"{metric}, in-sample",
            f"{objects['in_sample']:.4f} (gap {objects['in_sample'] - objects['nested']:+.4f})",
        ),
    ]


def oof_lines(threshold: dict, postprocess: dict) -> list[tuple[str, str]]:
    """The out-of-fold scores: nested first, then in-sample, where tuning and scoring use the same images."""
    low, high = threshold["interval"]
    metric = Metric(**threshold["metric"])
    about = {name: row.get("about_no_mask") for name, row in threshold["classes"].items()}
    notes = [("note", f"{name}: {sentence}") for name, sentence in about.items() if sentence]
    rules = ", ".join(f"{name}: {choice['rule']['name']}" for name, choice in postprocess["classes"].items())
    return [
        (f"{metric}, nested", f"{threshold['nested']:.4f} (95 % {low:.4f} to {high:.4f})"),
        (f"{metric}, in-sample", f"{threshold['in_sample']:.4f} (gap {threshold['gap']:+.4f})"),
        (f"{metric}, all empty", f"{threshold['all_empty']:.4f}"),
        ("with morphology", f"{postprocess['after']['nested']:.4f} nested; {rules}"),
        *notes,
    ]


def seconds_per_stage(run: RunFolder) -> str:
    """Seconds of each stage that has a record, and their sum."""
    seconds = {stage: record["seconds"] for stage, record in stage_records(run).items()}
    return (
        "   ".join(f"{stage[:2]} {value:.0f}" for stage, value in seconds.items())
        + f"   all {sum(seconds.values()):.0f}"
    )


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME")
    command.add_argument("--solution", type=Path, help="the true masks of the test images, if they are known")
    run_command(summarise, command)
