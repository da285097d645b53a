"""Check every training image and mask, find duplicates, and split the images into folds.

reads    a settings file and the training images and masks it points to
writes   runs/NAME/config.yaml, folds.csv (id, fold, group, stratum, size, coverage), duplicates.csv,
         hidden_groups.csv, training_files.json, report.html; with data.external also external.csv and
         external_files.json
next     python 02_train.py --run runs/NAME

Images of one group, and duplicates of one image, share a fold. Existing folds are never replaced. An ensemble
(ensemble.members) uses the folds of its members and continues with 03.
"""

import argparse

from lib.base.cli import StageSummary
from lib.run.stage import first_stage_parser, run_stage


def prepare_folds(run, settings, arguments: argparse.Namespace) -> StageSummary:
    from lib.checks.inspection import check_images, inspect_test, skipped_lines
    from lib.data.competition import open_training
    from lib.data.input_files import note_training_files
    from lib.data.network_input import describe_neighbours
    from lib.data.tables import write_table
    from lib.folds.duplicates import describe_duplicates, duplicates_table, merged_groups, near_links
    from lib.folds.external_check import ExternalCheck
    from lib.folds.group_search import HiddenGroupSearch
    from lib.folds.split import describe_groups, fold_table, image_table, split, write_folds
    from lib.report.page import refresh_report
    from lib.run.lock import lock_run
    from lib.run.record import StageRecord
    from lib.submission.outputs import require_format

    require_format(settings)  # 05 needs it: better an error now than after the training
    if settings.ensemble.members:
        return prepare_ensemble(run, settings)
    record = StageRecord(run, "01_prepare_folds")

    data = open_training(settings.data)
    search = HiddenGroupSearch(data, settings.folds)
    inspection = check_images(data, search.add)
    images = image_table(inspection.facts, data.groups, data.classes)
    if (hidden := search.finish()) is not None:
        images["group"] = hidden
    links = near_links(images.perceptual_hash if settings.folds.near_duplicates else [])
    duplicates = duplicates_table(images, links, data.read_mask)
    images["group"] = merged_groups(images, search.allowed(links))
    table = split(images, data, settings.folds)
    external = ExternalCheck(settings, table)
    print("\n".join([*skipped_lines(settings.data), inspect_test(settings.data)]))

    run.root.mkdir(parents=True, exist_ok=True)
    lock_run(run)
    write_folds(table, data.classes, run.folds)
    record.begin(settings)
    write_table(run.duplicates, duplicates)
    note_training_files(run, data, inspection.noted)
    external.write(run)
    search.write(run)
    seconds = record.write(settings.model_dump(mode="json", include={"data", "folds"}))
    refresh_report(run, settings)

    print(f"\n{fold_table(table)}\n")
    print(describe_neighbours(data, table) + search.describe(run, images), end="")
    print("groups    " + describe_groups(table).replace("\n", "\nwarning   "))
    print("found     " + describe_duplicates(duplicates).replace("\n", "\nwarning   "))
    print(external.describe(), end="")
    return StageSummary([run.folds, run.duplicates], f"python {run.command('02_train')}", seconds)


def prepare_ensemble(run, settings) -> StageSummary:
    """Use the folds, data and classes of the ensemble's members."""
    from lib.report.page import refresh_report
    from lib.run.lock import lock_run
    from lib.run.members import adopt_folds
    from lib.run.record import StageRecord

    record = StageRecord(run, "01_prepare_folds")
    run.root.mkdir(parents=True, exist_ok=True)
    lock_run(run)
    settings = adopt_folds(run, settings)
    record.begin(settings)
    seconds = record.write(settings.model_dump(mode="json", include={"data", "folds", "ensemble"}))
    refresh_report(run, settings)
    return StageSummary([run.folds], f"python {run.command('03_oof_threshold')}", seconds)


if __name__ == "__main__":
    run_stage(prepare_folds, first_stage_parser(__doc__))
