"""Choose threshold and morphology on the out-of-fold maps, apply them to the test maps, write the submission.

reads    runs/NAME/oof/, oof_counts.npz, threshold.json, test/ and the sample submission
writes   runs/NAME/postprocess.json, before_after.png, submission.csv, submission_unprocessed.csv, report.html
next     upload runs/NAME/submission.csv

submission_unprocessed.csv is the same without morphology: threshold only. With submission.rows=instance objects are
chosen by their own score, which objects.json holds. Last the out-of-fold maps are written as a submission would be,
read back and scored: the score must be the one told.
"""

import argparse

from lib.base.cli import StageSummary
from lib.run.stage import run_stage, stage_parser


def postprocess(run, settings, arguments: argparse.Namespace) -> StageSummary:
    from functools import partial

    from lib.base.files import read_json, write_json
    from lib.data.competition import open_test, open_training
    from lib.data.folds import read_folds
    from lib.masks.metrics import Counts
    from lib.masks.rules import read_rules
    from lib.prediction.map_store import MapStore, read_pairs
    from lib.report.figures import plot_before_after
    from lib.report.page import refresh_report
    from lib.run.lock import lock_run
    from lib.run.provenance import StageRecord, require_maps, require_thresholds
    from lib.submission.round_trip import rehearse, require_told
    from lib.submission.write import write_submission
    from lib.tuning.morphology_search import search_morphology
    from lib.tuning.object_search import as_objects, read_objects, search_objects

    lock_run(run)
    record = StageRecord(run, "05_postprocess")
    training, test = open_training(settings.data), open_test(settings.data)
    if test.warning:
        print(f"warning   {test.warning}")
    made_from = require_thresholds(run, settings) | require_maps(run, settings)
    table = read_folds(run.folds, training, settings.folds.count)
    oof, test_maps = (MapStore(folder, tuple(training.classes)) for folder in (run.oof, run.test))

    size = settings.submission.size
    result = search_morphology(
        partial(read_pairs, oof, training, size=size),
        Counts.load(run.oof_counts),
        table.fold.to_numpy(),
        table.group.to_numpy(),
        settings.threshold,
        settings.postprocess,
    )
    record.begin(settings)
    run.submission.unlink(missing_ok=True)  # what is uploaded is never of another postprocess.json
    write_json(run.postprocess, result.to_dict())
    result.write_gains(run.postprocess.with_suffix(".csv"))
    before, after = read_rules(run.threshold), read_rules(run.postprocess)
    plot_before_after(result, before, training, oof, size, run.before_after)
    if settings.submission.rows == "instance":
        objects = search_objects(oof, training, table, after, settings.objects)
        write_json(run.objects, objects.to_dict())
        result, told = f"{result}\n{objects}", objects.mean("in_sample")
        before, after = as_objects(before), objects.rules
        rehearsed = rehearse(read_objects(oof, training, objects.ids), after, settings)
    else:
        told = result.mean("after", "in_sample")
        rehearsed = rehearse(read_pairs(oof, training, result.ids.tolist(), size), after, settings)
    require_told(rehearsed, told)
    write_submission(run.unprocessed, test, test_maps, before, settings)
    rows = write_submission(run.submission, test, test_maps, after, settings)
    seconds = record.write(made_from)
    refresh_report(run, settings)

    print(f"\n{result}")
    print(f"\nrehearsal: the out-of-fold masks, written as a submission and read back, score {rehearsed:.6f} as told")
    print(f"{run.submission}: {rows} rows, columns and order of the sample, every mask decoded again and the same")
    written = [run.postprocess, run.report, run.submission]
    return StageSummary(written, f"upload {run.submission}", seconds, read_json(run.postprocess))


if __name__ == "__main__":
    run_stage(postprocess, stage_parser(__doc__))
