"""Provenance: the inputs of each file of a run, so that no stage mixes files that do not belong together.

Each `*_inputs` function describes the inputs as they are now; a record (lib/run/record.py) keeps them as they were when
a stage or a fold was made. If the two differ, the stage is refused, and the message names the stage to rerun.
"""

import csv
from contextlib import suppress
from pathlib import Path

from lib.base.errors import UserError
from lib.base.files import read_json, sha256_of_file, sha256_of_json
from lib.config.external_source import external_sources
from lib.config.schema import Settings
from lib.run.folder import ALL, Fold, RunFolder, open_run, stages_of, starting_run
from lib.run.members import open_members, require_present, runs_built_upon, runs_with_models
from lib.run.record import differences, fingerprint, is_intact, require_same, require_written
from lib.run.settings_by_stage import MAPS, SUBMISSION, THRESHOLDS, TRAINING, counted


def training_inputs(run: RunFolder, settings: Settings) -> dict:
    """The inputs of all models: folds, the content of images and masks, and the settings that count."""
    folds = fingerprint(run.folds, "run 01_prepare_folds.py")
    pseudo = pseudo_inputs(run, settings.train.pseudo_labels) if settings.train.pseudo_labels else None
    metric = settings.threshold.model_dump(include={"metric", "beta"}) if settings.train.keep == "best" else None
    return {
        "folds.csv": folds,
        "training_files": training_content(run),
        **counted(settings, TRAINING),
        "pseudo_labels": pseudo,
        "external": external_inputs(run, settings) if settings.data.external else None,
        "best_epoch_by": metric,
    }


def training_content(run: RunFolder) -> str | None:
    """One digest of all training images and masks; None of a run by a version that did not keep it."""
    return read_json(run.training_files).get("content") if run.training_files.is_file() else None


def fold_inputs(run: RunFolder, settings: Settings) -> dict[Fold, dict]:
    """The inputs of each fold's model: `training_inputs`, its number, the images it leaves out, and its first weights.

    The model of all images leaves out none. Raises UserError as `require_settings_of_folds` and `images_of_folds` do.
    """
    require_settings_of_folds(run, settings)
    shared, left_out = training_inputs(run, settings), {fold: [] for fold in (*range(settings.folds.count), ALL)}
    left_out |= images_of_folds(run.folds)
    return {
        fold: {**shared, "fold": fold, "left_out_images": sha256_of_json(sorted(ids)), **start_inputs(settings, fold)}
        for fold, ids in left_out.items()
    }


def images_of_folds(path: Path) -> dict[int, list[str]]:
    """The ids of each fold in folds.csv. Raises UserError for what an edit by hand may leave of the file.

    All else that `read_folds` checks is left to it, since that takes the images.
    """
    folds = {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        try:
            for row in rows:
                folds.setdefault(int(row["fold"]), []).append(row["id"])
        except KeyError as error:
            raise UserError(f"{path} has no column {error}; its columns must be separated by commas") from None
        except (TypeError, ValueError):
            raise UserError(
                f"{path}, line {rows.line_num}: '{row['fold']}' is no fold; write whole numbers from 0, such as 1"
            ) from None
    return folds


def require_settings_of_folds(run: RunFolder, settings: Settings) -> None:
    """Raise UserError where settings of which 01 made the folds are others now: the run would claim folds it has not.

    Not folds.count, which has to fit folds.csv: that may be edited by hand.
    """
    record = run.record("01_prepare_folds")
    made_from = read_json(record).get("made_from") if record.is_file() else None
    if made_from:
        folds = settings.folds.model_dump(mode="json", exclude={"count"})
        groups = settings.data.model_dump(mode="json", include={"group", "group_csv"})
        if changed := differences(made_from, {"folds": folds, "data": groups}):
            raise UserError(
                f"{changed[0]} would change nothing: 01_prepare_folds.py has made {run.folds} already; undo the "
                "change, or make another run with 01 (name=...)"
            )


def start_inputs(settings: Settings, fold: Fold) -> dict[str, str]:
    """The content of the file that model.weights names, or of the fold of the run that it names.

    Nothing where the file is gone: trained folds do not need it.
    """
    run = starting_run(settings.model.weights)
    path = run.fold(fold).weights if run else Path(settings.model.weights)
    return {"weights_file": sha256_of_file(path)} if path.is_file() else {}


def external_inputs(run: RunFolder, settings: Settings) -> dict:
    """The inputs from external images: content, groups, and the settings that each source is read and drawn with.

    Raises UserError if 01 has not checked them.
    """
    remedy = "run 01_prepare_folds.py again with the run's settings file, which checks data.external"
    inputs = {"external.csv": fingerprint(run.external, remedy), "files": read_json(run.external_files).get("content")}
    for number, (weight, data) in enumerate(external_sources(settings.data), start=1):
        reading = counted(settings.model_copy(update={"data": data}), TRAINING)["data"]
        inputs[str(number)] = {"weight": weight, **reading}
    return inputs


def pseudo_inputs(run: RunFolder, root: Path) -> str:
    """Fingerprint of the test maps and thresholds of the run at `root`, from which `run` learns.

    Raises UserError unless that run has gone through 04, and where it is built upon `run`, which would stay stale.
    """
    require_present(root, "train.pseudo_labels")
    if run.root.resolve() in runs_built_upon(root):
        raise UserError(
            f"train.pseudo_labels={root} has its masks by models of {run.root} itself; let another run learn from them "
            "(01 with name=...), or undo the setting"
        )
    other, settings = open_run(root)
    if settings.train.pseudo_labels:
        raise UserError(f"{root} was trained on pseudo-labels itself; name a run without them (train.pseudo_labels)")
    return sha256_of_json([require_maps(other, settings), require_thresholds(other, settings)])


def trained_folds(run: RunFolder, settings: Settings) -> list[int]:
    """The folds that have a model; of an ensemble all. Raises UserError if there is none."""
    if settings.ensemble.members:
        return list(range(settings.folds.count))
    folds = [fold for fold in range(settings.folds.count) if run.fold(fold).metrics.is_file()]
    if not folds:
        raise UserError(f"{run.root} has no trained fold; run {run.command('02_train')}")
    return folds


def require_trained(run: RunFolder, settings: Settings) -> dict[str, str]:
    """SHA-256 of the weights of each trained fold.

    Raises UserError if no fold is trained, or if one was trained on other folds, images or settings, belongs to another
    fold, or has other weights than training wrote.
    """
    made_from = fold_inputs(run, settings)
    return {f"fold_{fold}": require_fold(run, fold, made_from[fold]) for fold in trained_folds(run, settings)}


def all_images_model(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Fingerprint of what the maps of the model of all images are made from, of each run that has one.

    {} without train.all_images; of an ensemble, those of its members. Raises UserError where it is not trained, as
    require_fold does.
    """
    fingerprints = {}
    for number, (member, member_settings) in enumerate(runs_with_models(run, settings)):
        if member_settings.train.all_images:
            if not member.fold(ALL).metrics.is_file():
                remedy = f"run {member.command('02_train', '--folds', ALL)}"
                raise UserError(f"the model of all images of {member.root} (train.all_images) is not trained; {remedy}")
            weights = require_fold(member, ALL, fold_inputs(member, member_settings)[ALL])
            fingerprints[f"all_images_{number}"] = sha256_of_json([weights, counted(member_settings, MAPS)])
    return fingerprints


def models_to_average(run: RunFolder, settings: Settings) -> list[Fold]:
    """The models of a run that 04 averages: of the trained folds and, with train.all_images, of all images."""
    return [*trained_folds(run, settings), *([ALL] if settings.train.all_images else [])]


def require_fold(run: RunFolder, fold: Fold, made_from: dict) -> str:
    """SHA-256 of a fold's weights. Raises UserError unless it was made from `made_from` and its weights are intact."""
    weights = require_weights(run, fold)
    training = run.command("02_train", "--restart", "--folds", fold)
    require_same(run.fold(fold).metrics, made_from, f"undo the change, or run {training}")
    return weights


def require_weights(run: RunFolder, fold: Fold) -> str:
    """SHA-256 of a fold's weights. Raises UserError unless they are of this fold and what training wrote."""
    folder, remedy = run.fold(fold), f"run {run.command('02_train', '--restart', '--folds', fold)}"
    content = read_json(folder.metrics)
    if not is_intact(content):
        raise UserError(f"{folder.metrics} is not what training wrote (damaged or edited); put it back, or {remedy}")
    if content.get("fold", fold) != fold:
        raise UserError(f"{folder.root} holds fold {content['fold']}; put the folders back, or {remedy}")
    weights = fingerprint(folder.weights, remedy)
    if not folder.is_done:  # killed between the weights of an epoch and its metrics
        remedy = f"run {run.command('02_train', '--folds', fold)}, which continues it"
    if content.get("weights_sha256", weights) != weights:
        raise UserError(f"{folder.weights} is not what training wrote (damaged or replaced); {remedy}")
    return weights


def map_inputs(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Fingerprint of the inputs of each trained fold's maps: its weights and the prediction settings.

    For an ensemble: the members' maps and weights.
    """
    if settings.ensemble.members:
        return ensemble_inputs(run, settings)
    prediction = counted(settings, MAPS)
    return {fold: sha256_of_json([weights, prediction]) for fold, weights in require_trained(run, settings).items()}


def ensemble_inputs(run: RunFolder, settings: Settings) -> dict[str, str]:
    """Fingerprint of the inputs of an ensemble's maps, the same for all folds: the members' maps and weights.

    Raises UserError if a member is not trained on all folds, or if its folds are no longer the ensemble's.
    """
    folds, members = fingerprint(run.folds, "run 01_prepare_folds.py"), []
    for member, member_settings in open_members(settings):
        if fingerprint(member.folds, "run 01_prepare_folds.py") != folds:
            raise UserError(f"{member.root} now has other folds than {run.root}; make the ensemble again with 01")
        maps = map_inputs(member, member_settings)
        if missing := [fold for fold in range(settings.folds.count) if f"fold_{fold}" not in maps]:
            remedy = member.command("02_train", "--folds", *missing)
            raise UserError(f"{member.root} has not trained fold {', '.join(map(str, missing))}; run {remedy}")
        members.append(maps)
    score = settings.threshold.model_dump(include={"metric", "beta"}) | {"size": settings.submission.size}
    fingerprint_of_all = sha256_of_json([members, settings.ensemble.weights, score])
    return {f"fold_{fold}": fingerprint_of_all for fold in range(settings.folds.count)}


def test_inputs(run: RunFolder, settings: Settings) -> dict:
    """The inputs of the test maps, apart from the test images: the models of all trained folds, and of all images."""
    maps = map_inputs(run, settings) | all_images_model(run, settings)
    return {"maps": maps, **counted(settings, MAPS)}


def threshold_inputs(run: RunFolder, settings: Settings) -> dict:
    """The inputs of threshold.json: out-of-fold maps, images and masks, the size they are scored at, the settings.

    Images and masks count beside the models, which have not seen those of their own fold.
    """
    runs = [run, *(member for member, _ in open_members(settings))]
    return {
        "maps": map_inputs(run, settings),
        "training_files": [training_content(each) for each in runs],
        **counted(settings, MAPS),
        **counted(settings, THRESHOLDS),
    }


def submission_inputs(run: RunFolder, settings: Settings, of_thresholds: dict | None = None) -> dict:
    """The inputs of the submission: thresholds, test maps, the settings of 05, the sample submission.

    `of_thresholds` is the result of threshold_inputs where it is known, since that reads all weights.
    """
    sample = settings.data.sample_submission and settings.data.root / settings.data.sample_submission
    return {
        **(of_thresholds or threshold_inputs(run, settings)),
        "rules": counted(settings, SUBMISSION),
        "sample_submission": sha256_of_file(sample) if sample and sample.is_file() else None,
    }


def require_thresholds(run: RunFolder, settings: Settings) -> dict:
    """The inputs of threshold.json. Raises UserError unless 03 is done with the present models."""
    return require_stage(run, "03_oof_threshold", threshold_inputs(run, settings))


def require_maps(run: RunFolder, settings: Settings) -> dict:
    """The inputs of the test maps. Raises UserError unless 04 is done with the present models."""
    return require_stage(run, "04_infer", test_inputs(run, settings))


def require_stage(run: RunFolder, stage: str, made_from: dict) -> dict:
    """Return `made_from`. Raises UserError unless the stage was made from it and its files are as it left them."""
    remedy = f"run {run.command(stage)}"
    fingerprint(run.record(stage), remedy)
    require_same(run.record(stage), made_from, remedy)
    require_written(run.record(stage), remedy)
    return made_from


def stages_done(run: RunFolder, settings: Settings) -> frozenset[str]:
    """The stages from 03 on ("03", "04", "05") that are done with the present models, their files as they left them."""
    inputs = {"03_oof_threshold": threshold_inputs, "04_infer": test_inputs, "05_postprocess": submission_inputs}
    *before, last = [stage for stage in stages_of(settings) if stage in inputs]
    done = set()
    for stage in (*before, last):
        if run.record(stage).is_file():
            with suppress(UserError):
                require_stage(run, stage, inputs[stage](run, settings))
                done.add(stage[:2])
    return frozenset(done if done.issuperset(stage[:2] for stage in before) else done - {last[:2]})


def next_stage(run: RunFolder, settings: Settings, done: frozenset[str]) -> str | None:
    """The first stage after 01 whose results are missing or come from older models; `done` are those of stages_done."""
    folds = range(settings.folds.count)
    if settings.ensemble.members or all(run.fold(fold).metrics.is_file() for fold in folds):
        done |= {"02"}
    _, *stages = stages_of(settings)
    return next((stage for stage in stages if stage[:2] not in done), None)
