"""Write another submission of a finished run, with thresholds and morphology set by hand.

    python -m lib.tools.submit runs/NAME threshold=0.6 remove=200 --out uploads/t60
    python -m lib.tools.submit runs/NAME scratch.threshold=0.4 dent.remove=off --out uploads/per_class

threshold      a probability
gate           [probability, pixels]: the mask is empty unless so many pixels reach this probability
remove, fill   smallest component that stays, largest hole that is filled, in pixels; fill=on: every hole
opening, closing, dilation, erosion     radius in pixels
largest, hull  on

off drops a gate or step. Everything else stays as 05 chose it; CLASS. in front changes one class only.

reads    the maps of 03 and 04 and the rules of 05
writes   FOLDER/rules.json, and submission.csv or what submission.format names; the run is not changed. Without test
         images (data.test_images=null) only the rules
next     for a hidden test set: python -m lib.tools.export runs/NAME --rules FOLDER/rules.json

The out-of-fold score of these rules is printed. It is in-sample: if you try many rules, the best score is inflated.
"""

import argparse
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lib.base.cli import StageSummary, plain_parser, run_command, take_overrides
from lib.base.errors import UserError
from lib.base.files import write_json
from lib.config.schema import GROWING_STEPS, Settings
from lib.masks.objects import ObjectRule, Rules
from lib.masks.rules import STEPS, Gate, Rule, Step
from lib.run.folder import RunFolder, open_run, stages_of

if TYPE_CHECKING:
    from lib.data.competition import TrainingData

SIZED = {name for name, (_, text) in STEPS.items() if "{}" in text}
NO_DECIMAL = re.compile(r"\b0\w|:")  # 0200 and 3:20 are 128 and 200 in YAML


def submit(arguments: argparse.Namespace) -> StageSummary:
    from lib.data.input_files import open_unchanged_training
    from lib.prediction.run_maps import open_predicted
    from lib.run.provenance import require_stage, require_thresholds, submission_inputs
    from lib.submission.final import final_rules_file, final_score, read_final_rules
    from lib.submission.outputs import RECORD, RULES, require_apart, set_aside, write_outputs

    started = time.monotonic()
    run, settings = open_run(arguments.run)
    require_apart(arguments.out, run.root)
    training = open_unchanged_training(run, settings)
    made_from = require_thresholds(run, settings)
    require_stage(run, "05_postprocess", submission_inputs(run, settings, made_from))
    predicted = open_predicted(run, settings) if "04_infer" in stages_of(settings) else None
    rules = read_final_rules(final_rules_file(run, settings), settings)
    rules = changed_rules(rules, arguments.overrides, settings)
    reported = final_score(run, settings, processed=True).in_sample
    score = out_of_fold_score(run, settings, training, rules, made_from)
    print("\n".join(f"{name}: {rule}" for name, rule in rules.items()))
    print(f"out of fold {score:.4f} by these rules, {reported:.4f} by the run's own (both in-sample)")
    set_aside(arguments.out)
    rules_file, written = arguments.out / RULES, []
    if predicted:
        written, description = write_outputs(arguments.out, *predicted, rules, settings)
        print(f"{written[0]}: {description}")
    results = {"rules": {name: rule.to_dict() for name, rule in rules.items()}, "score": score, "run_score": reported}
    write_json(arguments.out / RECORD, {**results, "written": [str(path) for path in written]})
    by_class = {name: {"rule": rule} for name, rule in results["rules"].items()}
    write_json(rules_file, {"made_from": made_from, "classes": by_class})
    export = shlex.join(["python", "-m", "lib.tools.export", str(run.root), "--rules", str(rules_file)])
    next_command = f"upload {shlex.quote(str(written[0]))}" if written else export
    return StageSummary([*written, rules_file], next_command, time.monotonic() - started, results)


def changed_rules(rules: Rules, words: list[str], settings: Settings) -> Rules:
    """The rules with the changes that words such as `threshold=0.6` or `dent.remove=off` make, in their order.

    Raises UserError for an unknown class or rule, and for a value that makes no sense.
    """
    rules = dict(rules)
    for word in words:
        target, _, text = word.rpartition("=")  # a class may have one in its name
        class_name, _, key = target.rpartition(".")
        if key not in ("threshold", "gate", *STEPS):
            raise UserError(f"{word}: there is no rule '{key}'; rules are threshold, gate, {', '.join(STEPS)}")
        if class_name and class_name not in rules:
            raise UserError(f"{word}: there is no class '{class_name}'; classes are {', '.join(rules)}")
        if key in GROWING_STEPS and settings.data.are_exclusive and len(rules) > 1:
            raise UserError(f"{word}: classes exclude each other, and {key} could give a pixel to two of them")
        change = change_of(key, text, word)
        for name in [class_name] if class_name else rules:
            rule = rules[name]
            rules[name] = replace(rule, mask=change(rule.mask)) if isinstance(rule, ObjectRule) else change(rule)
    return rules


def change_of(key: str, text: str, word: str) -> Callable[[Rule], Rule]:
    """The change that `key=text` makes to a rule. Raises UserError, quoting the word, for an impossible value."""
    try:
        value = text if NO_DECIMAL.search(text) else yaml.safe_load(text)
    except yaml.YAMLError:
        value = text  # which the checks below quote
    if key == "threshold":
        threshold = map_value(value, word)
        return lambda rule: replace(rule, threshold=threshold)
    if key == "gate":
        gate = None if value is False else gate_of(value, word)
        return lambda rule: replace(rule, gate=gate)
    step = None if value is False else step_of(key, value, word)

    def with_step(rule: Rule) -> Rule:
        steps = [other for other in rule.steps if other.name != key] + ([step] if step else [])
        return replace(rule, steps=tuple(sorted(steps, key=lambda each: list(STEPS).index(each.name))))

    return with_step


def map_value(value: object, word: str) -> int:
    """The map value, 1 to 255, of a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise UserError(f"{word}: a probability is above 0 and at most 1")
    return max(1, round(255 * value))


def gate_of(value: object, word: str) -> Gate:
    if not isinstance(value, list) or len(value) != 2 or type(value[1]) is not int or value[1] < 1:
        raise UserError(f"{word}: a gate is a probability and a number of pixels, as in gate=[0.8,300], or off")
    return Gate(map_value(value[0], word), value[1])


def step_of(key: str, value: object, word: str) -> Step:
    if value is True and (key == "fill" or key not in SIZED):
        return Step(key)
    if key not in SIZED:
        raise UserError(f"{word}: {key} is on or off")
    if type(value) is not int or value < 1:
        raise UserError(f"{word}: {key} takes a number of pixels from 1, or off")
    return Step(key, value)


def out_of_fold_score(
    run: RunFolder, settings: Settings, training: "TrainingData", rules: Rules, made_from: dict
) -> float:
    """The score of the rules on the out-of-fold maps, each mask written as a submission's rows and read back."""
    from lib.folds.split import read_trained
    from lib.prediction.map_store import read_scored
    from lib.prediction.run_maps import open_oof_maps
    from lib.submission.round_trip import round_trip_score

    table = read_trained(run, settings, training)
    store = open_oof_maps(run, settings, table, made_from)
    return round_trip_score(read_scored(store, training, table.id, settings), rules, settings, store)


if __name__ == "__main__":
    command = plain_parser(__doc__)
    command.add_argument("run", type=Path, metavar="runs/NAME", help="a run after 05")
    take_overrides(command, "[CLASS.]rule=value", "what to change, as above")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="everything is written here")
    command.add_argument("--json", action="store_true", help="print the files, rules and scores as one line of JSON")
    run_command(submit, command)
