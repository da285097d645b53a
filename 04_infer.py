"""Predict the test images with the average of all folds' models and, if there is one (train.all_images), fold_all's.

reads    runs/NAME/fold_K/ and the test images
writes   runs/NAME/test/ID.png (probability maps)
next     python 05_postprocess.py --run runs/NAME

Existing maps are kept as long as their models are the same.
"""

import argparse

from lib.base.cli import StageSummary
from lib.run.stage import run_stage, stage_parser


def infer(run, settings, arguments: argparse.Namespace) -> StageSummary | None:
    from lib.base.distributed import is_first
    from lib.data.competition import open_test
    from lib.prediction.ensemble import average_test
    from lib.prediction.run_maps import predict_test
    from lib.report.page import refresh_report
    from lib.run.lock import lock_run
    from lib.run.members import require_test_images
    from lib.run.provenance import require_thresholds, test_inputs, trained_folds
    from lib.run.record import StageRecord
    from lib.run.score_notes import note_of_all_images, warnings_of_unfinished

    lock_run(run)
    record = StageRecord(run, "04_infer")
    members = settings.ensemble.members
    if members:
        require_thresholds(run, settings)  # 03 finds the weights
        require_test_images(settings)
    made_from = test_inputs(run, settings)
    data = open_test(settings.data)
    if data.warning and is_first():
        print(f"warning   {data.warning}")
    record.begin(settings)
    make_maps = average_test if members else predict_test
    make_maps(run, settings, data)
    if not is_first():
        return None
    print(warnings_of_unfinished(run, settings), end="")
    seconds = record.write(made_from)
    refresh_report(run, settings)
    averaged = (
        f"{len(members)} runs" if members else f"{len(trained_folds(run, settings))} of {settings.folds.count} models"
    )
    print(f"{len(data.ids)} test images, each the average of {averaged}")
    print(note_of_all_images(run, settings), end="")
    return StageSummary([run.test], f"python {run.command('05_postprocess')}", seconds)


if __name__ == "__main__":
    run_stage(infer, stage_parser(__doc__))
