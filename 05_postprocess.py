"""Choose threshold and morphology on the out-of-fold maps, apply them to the test maps, write the submission.

reads    runs/NAME/oof/, oof_counts.npz, threshold.json, test/ and the sample submission
writes   runs/NAME/postprocess.json, postprocess.csv (the gain of each image), before_after.png, submission.csv or what
         submission.format names, report.html
next     upload runs/NAME/submission.csv

Beside submission.csv, submission_unprocessed.csv is the submission without morphology: threshold only. With
submission.rows=instance objects are chosen by the object score, which objects.json holds. The out-of-fold masks are
written as a submission, read back and scored; the score must be the one reported. Only then do the new files replace
the old ones. Without test images (data.test_images=null) the run ends with its score.
"""

import argparse
import shlex
from contextlib import nullcontext

from lib.base.cli import StageSummary
from lib.run.stage import run_stage, stage_parser


def postprocess(run, settings, arguments: argparse.Namespace) -> StageSummary:
    from lib.base.files import read_json
    from lib.data.input_files import open_unchanged_training
    from lib.folds.split import read_trained
    from lib.masks.rules import read_rules
    from lib.prediction.run_maps import open_oof_maps, open_predicted
    from lib.report.figures import plot_before_after
    from lib.report.page import refresh_report
    from lib.run.folder import stages_of
    from lib.run.lock import lock_run
    from lib.run.provenance import require_thresholds, submission_inputs
    from lib.run.record import StageRecord
    from lib.run.score_notes import notes_on_scores
    from lib.submission.outputs import new_submissions, require_format

    lock_run(run)
    require_format(settings)
    record = StageRecord(run, "05_postprocess")
    has_test = "04_infer" in stages_of(settings)

    training = open_unchanged_training(run, settings)
    made_from = require_thresholds(run, settings)
    thresholds = read_rules(run.threshold, training.classes)
    table = read_trained(run, settings, training)
    oof = open_oof_maps(run, settings, table, made_from)
    test, test_maps = open_predicted(run, settings) if has_test else (None, None)

    result, objects, rules = choose_rules(run, settings, training, table, oof)
    print(notes_on_scores(run, settings), end="")
    submissions = new_submissions(run, test, test_maps, thresholds, rules, settings) if has_test else nullcontext()
    with submissions as submission:  # they take their places at the end of the block
        record.begin(settings)
        results = write_choices(run, result, objects)
    plot_before_after(result, thresholds, training, oof, settings.submission.size, run.before_after)
    uploads = [path for path in submission.paths if path.is_file()] if has_test else []
    seconds = record.write(submission_inputs(run, settings, made_from), results, uploads)
    refresh_report(run, settings)

    if not has_test:
        print("no test images (data.test_images), so there is nothing to submit")
        return StageSummary([run.postprocess, run.report], f"look at {run.report}", seconds, read_json(run.postprocess))
    upload = submission.paths[0]
    print(f"{upload}: {submission.description}")
    written = [run.postprocess, run.report, *submission.paths]
    return StageSummary(written, f"upload {shlex.quote(str(upload))}", seconds, read_json(run.postprocess))


def write_choices(run, result, objects) -> list:
    """Write what was chosen; the files. An objects.json of an earlier 05, perhaps of other models, goes."""
    from lib.base.files import write_json

    write_json(run.postprocess, result.to_dict())
    result.write_gains(run.postprocess.with_suffix(".csv"))
    if not objects:
        run.objects.unlink(missing_ok=True)
        return [run.postprocess, run.postprocess.with_suffix(".csv")]
    write_json(run.objects, objects.to_dict())
    return [run.postprocess, run.postprocess.with_suffix(".csv"), run.objects]


def choose_rules(run, settings, training, table, oof) -> tuple:
    """Choose rules on the out-of-fold maps and print their scores: the search's result, that of objects, the rules."""
    from functools import partial

    from lib.masks.metrics import Counts
    from lib.prediction.map_store import read_pairs, read_scored
    from lib.submission.round_trip import require_reported, round_trip_score
    from lib.tuning.blind_maps import blind_maps_of
    from lib.tuning.morphology_search import search_morphology
    from lib.tuning.object_search import MaskRules, search_objects

    def reader(maps):
        return partial(read_pairs, maps, training, size=settings.submission.size)

    counts, blind = Counts.load(run.oof_counts), blind_maps_of(run, settings, training, table)
    result = search_morphology(
        reader(oof),
        counts,
        table.fold.to_numpy(),
        table.group.to_numpy(),
        settings.threshold,
        settings.steps_to_try,
        [(reader(each.maps), each) for each in blind],
    )
    rules = {name: outcome.rule for name, outcome in result.classes.items()}
    objects, ids, reported = None, result.ids.tolist(), result.mean("after", "in_sample")
    if settings.submission.rows == "instance":
        masks = {name: MaskRules(outcome.rule, outcome.without_part) for name, outcome in result.classes.items()}
        table = table.assign(part=result.parts)
        bootstrap = settings.threshold.bootstrap
        objects = search_objects(oof, training, table, masks, settings.objects, bootstrap, blind)
        rules, ids, reported = objects.rules, objects.ids, objects.mean("in_sample")
    score = round_trip_score(read_scored(oof, training, ids, settings), rules, settings, oof)
    require_reported(score, reported)
    print(f"\n{result}" + (f"\n{objects}" if objects else ""))
    print(f"\nround trip: the out-of-fold masks, written as a submission and read back, score {score:.6f} as reported")
    return result, objects, rules


if __name__ == "__main__":
    run_stage(postprocess, stage_parser(__doc__))
