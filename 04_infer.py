"""Predict the test images with the average of all folds' models.

reads    runs/NAME/fold_K/ and the test images
writes   runs/NAME/test/ID.png (probability maps)
next     python 05_postprocess.py --run runs/NAME

Maps already there are kept as long as the models that made them are the same.
"""

import argparse

from lib.cli import closing, run_parser, run_stage


def infer(arguments: argparse.Namespace) -> None:
    from lib.config import save_settings
    from lib.data import open_test
    from lib.provenance import StageRecord, map_inputs
    from lib.run import open_run

    run, settings = open_run(arguments.run, arguments.overrides)
    record = StageRecord(run, "04_infer")
    made_from = map_inputs(run, settings)
    save_settings(settings, run.config)
    data = open_test(settings.data)

    from lib.inference import predict_test

    predict_test(run, settings, data)
    seconds = record.write({"maps": made_from})
    print(f"{len(data.ids)} test images, each the average of {settings.folds.count} models")
    closing([run.test], f"python 05_postprocess.py --run {run.root}", seconds)


if __name__ == "__main__":
    run_stage(infer, run_parser(__doc__))
