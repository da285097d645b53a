"""The gain of architecture, encoder, augmentation, test-time augmentation, more folds and ensembles.

    python benchmarks/ablations.py WORK [--only ROW ...]      needs the demo data (`make demo` makes it)

Every row changes one thing of the first, on the same folds with the same seeds. A stopped command continues when typed
again. The rows `average ...` are means of the finished rows' out-of-fold maps, with thresholds chosen on the mean.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from experiments import (
    Run,
    chosen,
    comparison,
    data_folder,
    finish,
    finished_variants,
    markdown,
    parser,
    result_folder,
    spread,
)

from lib.base.cli import run_command
from lib.base.files import read_json, write_json, write_text

BASE = ("augment.preset=medium",)  # of all rows: the demo's settings have another, for its few steps
OTHER_DECODER = "model.decoder_channels=null"  # the demo's narrow decoder is a setting of unet alone
VARIANTS = {
    "default": (),
    "unet_wide": (OTHER_DECODER,),
    "linknet": ("model.architecture=linknet", OTHER_DECODER),
    "fpn": ("model.architecture=fpn", OTHER_DECODER),
    "pspnet": ("model.architecture=pspnet", OTHER_DECODER),
    "lite1": ("model.encoder=tf_efficientnet_lite1",),
    "lite2": ("model.encoder=tf_efficientnet_lite2",),
    "augment_none": ("augment.preset=none",),
    "augment_light": ("augment.preset=light",),
    "augment_heavy": ("augment.preset=heavy",),
    "tta_none": ("infer.tta=none",),
    "tta_d4": ("infer.tta=d4",),
}
SAME_MODELS = {"tta_none", "tta_d4"}  # rows that predict with the models of `default`
AVERAGES = (("default", "linknet"), ("default", "fpn"), ("default", "linknet", "fpn"))


def ablations(arguments) -> None:
    config, work, data = arguments.config.resolve(), arguments.work.resolve(), data_folder(arguments)
    has_solution = (data / "solution.csv").is_file()
    runs = [
        Run(
            variant,
            seed,
            config,
            data,
            (*BASE, *arguments.overrides, *VARIANTS[variant], f"train.seed={seed}"),
            test=variant == "default" and has_solution,
            models_of=f"{config.stem}-default-{seed}" if variant in SAME_MODELS else None,
        )
        for seed in arguments.seeds
        for variant in chosen(VARIANTS, arguments.only)
    ]
    finish([run for run in runs if run.variant not in SAME_MODELS], work, arguments.parallel)
    finish([run for run in runs if run.variant in SAME_MODELS], work, arguments.parallel)
    finished = finished_variants(runs, work)
    for rows in AVERAGES:
        if finished.keys() >= set(rows):
            members = zip(*(finished[row] for row in rows), strict=False)
            finished["average " + " + ".join(rows)] = [average(list(names), work) for names in members]
    print(markdown(comparison(finished, work), "row"))
    if "default" in finished and has_solution:
        print()
        print(markdown(fold_table([single_folds(name, work) for name in finished["default"]])))


def average(names: list[str], work: Path) -> str:
    """Average the out-of-fold maps of runs on the same folds and keep the results like a run's; its name."""
    from lib.data.competition import open_training
    from lib.folds.split import read_folds
    from lib.masks.metrics import Metric, count_images
    from lib.prediction.map_store import MapStore, read_pairs
    from lib.run.folder import open_run
    from lib.tools.compare import ScoredRun, score_images, score_table

    name = "average-" + "-".join(names)
    folder, root = result_folder(name, work), work / "runs" / name
    if (folder / "images.csv").is_file():
        return name
    run, settings = open_run(work / "runs" / names[0])
    data = open_training(settings.data)
    table = read_folds(run.folds, data, settings.folds.count)
    members = [MapStore(work / "runs" / member / "oof", tuple(data.classes)) for member in names]
    store = MapStore(root / "oof", tuple(data.classes))
    for image_id in table.id:
        maps = np.stack([member.read(image_id) for member in members])
        store.write(image_id, np.rint(maps.mean(axis=0, dtype=float)).astype(np.uint8))
    counts = count_images(read_pairs(store, data, table.id, None), data.classes)
    finished = [ScoredRun.of_counts(store, settings, counts, table)]
    scores = score_table(finished, score_images(finished, data, table, Metric()), data, table)
    write_text(folder / "images.csv", scores.to_csv(index=False, float_format="%.6f"))
    return name


def single_folds(name: str, work: Path) -> dict:
    """Dice on the test images of each fold's model alone, and of all folds' average, at the run's threshold."""
    path = result_folder(name, work) / "single_folds.json"
    if not path.is_file():
        write_json(path, {"single": predict_by_folds(work / "runs" / name), "all": test_score(name, work)})
    return read_json(path)


def test_score(name: str, work: Path) -> float:
    return read_json(result_folder(name, work) / "result.json")["test_before"]


def predict_by_folds(root: Path) -> list[float]:
    """Mean test Dice of each fold's model, every image at the run's threshold; needs solution.csv."""
    from lib.data.competition import open_test
    from lib.masks.metrics import count_mask, dice
    from lib.masks.rle import decode
    from lib.masks.rules import apply_rules, read_rules
    from lib.model.device import best_device, resolve_precision
    from lib.model.network import load_weights
    from lib.prediction.predictor import Predictor
    from lib.run.folder import open_run

    run, settings = open_run(root)
    data, rules = open_test(settings.data), read_rules(run.threshold, settings.data.classes)
    truths = pd.read_csv(settings.data.root / "solution.csv", dtype=str, keep_default_na=False).set_index("id").rle
    device = best_device()
    precision = resolve_precision(settings.train.precision, device)
    scores = []
    for fold in range(settings.folds.count):
        network = load_weights(run.fold(fold).weights, settings.model, len(rules), settings.data.network_channels)
        predictor = Predictor([network], settings.infer, device, precision)
        of_fold = []
        for image_id, prediction in predictor.predict(data, data.ids):
            mask = apply_rules(rules, prediction.maps)[..., 0]
            truth = decode(truths[image_id], mask.shape)
            of_fold.append(dice(*count_mask(mask, truth)))
        scores.append(float(np.mean(of_fold)))
    return scores


def fold_table(results: list[dict]) -> pd.DataFrame:
    """Test Dice with the models of one fold (mean over folds, then seeds) and of all folds, and the difference."""
    single = np.array([np.mean(result["single"]) for result in results])
    everything = np.array([result["all"] for result in results])
    row = {
        "one fold's model": f"{single.mean():.4f}" + spread(single),
        "all folds' average": f"{everything.mean():.4f}" + spread(everything),
        "difference": f"{(everything - single).mean():+.4f}" + spread(everything - single),
    }
    return pd.DataFrame.from_dict({"test Dice": row}, orient="index")


if __name__ == "__main__":
    run_command(ablations, parser(__doc__))
