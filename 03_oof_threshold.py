"""Predict every training image with the model that was not trained on it, and choose the threshold on these maps.

reads    runs/NAME/fold_K/ and the training images and masks
writes   runs/NAME/oof/ID.png (probability maps), oof_counts.npz, threshold.json, threshold.csv, threshold.png,
         leak.json (how far the test images are from the training images), report.html
next     python 04_infer.py --run runs/NAME

Existing maps are kept as long as their model is the same. An ensemble (ensemble.members) averages the maps of its
members; ensemble.json holds the weight and worth of each.
"""

import argparse

from lib.base.cli import StageSummary
from lib.run.stage import run_stage, stage_parser


def cross_validate_threshold(run, settings, arguments: argparse.Namespace) -> StageSummary | None:
    from lib.base.distributed import is_first
    from lib.base.files import read_json, write_json
    from lib.data.input_files import open_unchanged_training
    from lib.folds.split import read_folds
    from lib.prediction.ensemble import average_out_of_fold
    from lib.prediction.run_maps import predict_out_of_fold
    from lib.report.page import refresh_report
    from lib.run.folder import stages_of
    from lib.run.lock import lock_run
    from lib.run.provenance import threshold_inputs, trained_folds
    from lib.run.record import StageRecord
    from lib.run.score_notes import notes_on_scores, warnings_of_unfinished
    from lib.tuning.leak import measure_leak
    from lib.tuning.member_scores import describe_members, score_members

    lock_run(run)
    record = StageRecord(run, "03_oof_threshold")

    data = open_unchanged_training(run, settings)
    made_from = threshold_inputs(run, settings)
    table = read_folds(run.folds, data, settings.folds.count)
    record.begin(settings)
    make_maps = average_out_of_fold if settings.ensemble.members else predict_out_of_fold
    store = make_maps(run, settings, data, table)
    if not is_first():
        return None

    trained = trained_folds(run, settings)
    if len(trained) < settings.folds.count:
        numbers = ", ".join(map(str, trained))
        print(f"trained   fold {numbers} of {settings.folds.count}; the score is of the images that these leave out")
    print(warnings_of_unfinished(run, settings), end="")
    scored = table[table.fold.isin(trained)]
    result = tune_thresholds(store, run, settings, data, scored)
    leak = measure_leak(run, settings, data, table, trained, result)
    if settings.ensemble.members:
        content = score_members(read_json(run.ensemble), result.mean("nested"), settings, data, scored)
        write_json(run.ensemble, content)
        print(describe_members(content))

    results = [run.threshold, run.threshold.with_suffix(".csv"), run.oof_counts, run.leak, run.ensemble]
    seconds = record.write(made_from, [path for path in results if path.is_file()])
    refresh_report(run, settings)
    print(result)
    print(leak)
    print(notes_on_scores(run, settings), end="")
    stages = stages_of(settings)
    following = run.command(stages[stages.index("03_oof_threshold") + 1])
    return StageSummary([run.oof, run.threshold], f"python {following}", seconds, result.to_dict())


def tune_thresholds(store, run, settings, data, table):
    """Score the maps at every threshold, choose one, and write both; the pixel counts are freed at the end."""
    from lib.base.files import write_json
    from lib.report.figures import plot_thresholds
    from lib.tuning.blind_maps import blind_maps_of
    from lib.tuning.thresholds import score_maps

    blind = blind_maps_of(run, settings, data, table)
    counts, result = score_maps(store, blind, data, table, settings)
    counts.save(run.oof_counts)
    result.write_curves(run.threshold.with_suffix(".csv"))
    plot_thresholds(result, run.threshold.with_suffix(".png"))
    write_json(run.threshold, result.to_dict())
    return result


if __name__ == "__main__":
    run_stage(cross_validate_threshold, stage_parser(__doc__))
