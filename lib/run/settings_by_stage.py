"""The settings that count for each stage: all of them, from training on, unless listed here.

A new setting that is not listed counts everywhere: at worst a stage must be rerun without need. The inputs of a stage
(lib/run/provenance.py) include those of the stage before it, so a setting is listed under the first stage whose results
it changes.
"""

from lib.config.schema import Settings
from lib.config.training_settings import AugmentSettings

TRAINING, MAPS, THRESHOLDS, SUBMISSION = ("training", "maps", "thresholds", "submission")

FIRST_STAGE = {  # sections as a whole, and single settings, which win over their section
    "infer": MAPS,
    "threshold": THRESHOLDS,  # with train.keep=best its metric counts for the training, too (training_inputs)
    "submission": SUBMISSION,
    "submission.size": THRESHOLDS,
    "data.unreadable_test_images": SUBMISSION,
    "data.sample_id_column": SUBMISSION,
    "data.sample_rle_column": SUBMISSION,
    "data.sample_class_column": SUBMISSION,
    "data.sample_id_pattern": SUBMISSION,
    "postprocess": SUBMISSION,
    "objects": SUBMISSION,
}

NO_STAGE = {  # setting or section: why it changes no pixel, or what counts instead
    "name": "the folder's name",
    "folds": "folds.csv counts, which may be edited by hand",
    "ensemble": "the members' maps and the weights count (ensemble_inputs)",
    "data.root": "a path; the content of the files counts",
    "data.train_images": "a path; the content of the files counts",
    "data.train_masks": "a path; the content of the files counts",
    "data.test_images": "a path; the content of the files counts",
    "data.test_images_without_row": "the ids of the test images count",
    "data.test_id": "the ids of the test images and the content of their files count",
    "data.sample_submission": "a path; the content of the file counts",
    "data.external": "the content of the files counts, and how they are read and drawn (external_inputs)",
    "data.exclude": "the ids in folds.csv count, and those of the test images",
    "data.images_without_mask": "the ids in folds.csv and the content of the masks count",
    "data.masks_without_image": "the ids in folds.csv count",
    "data.group": "the groups in folds.csv count",
    "data.group_csv": "the groups in folds.csv count",
    "data.compare_masks": "01 only checks data.rle by it",
    "data.doubtful_rle": "says whether 01 stops; masks are read as data.rle says",
    "data.resize_csv": "a place; the values in it count",
    "data.resize_test_csv": "a place; the values in it count",
    "data.max_pixels": "larger images are refused, not changed",
    "augment.preset": "the strengths it sets count",
    "train.all_images": "the model that 04 averages in counts (all_images_model)",
    "train.pseudo_labels": "a path; the other run's maps and thresholds count",
    "train.workers": "speed only",
    "train.cache_mb": "speed only",
    "train.tracker": "only shows numbers",
    "infer.batch_size": "speed only",
}


def first_stage(section: str, key: str) -> str | None:
    """The first stage whose results a setting changes; None if it changes none."""
    for name in (f"{section}.{key}", section):
        if name in NO_STAGE:
            return None
        if name in FIRST_STAGE:
            return FIRST_STAGE[name]
    return TRAINING


def counted(settings: Settings, stage: str) -> dict[str, dict]:
    """Values of the settings that count from `stage` on, by section and key, ready for JSON."""
    values = setting_values(settings)
    chosen = {
        section: {key: value for key, value in keys.items() if first_stage(section, key) == stage}
        for section, keys in values.items()
    }
    return {section: keys for section, keys in chosen.items() if keys}


def setting_values(settings: Settings) -> dict[str, dict]:
    """All settings by section and key, for `augment` the strengths that its preset sets."""
    values = settings.model_dump(mode="json", exclude={"name"})
    return values | {"augment": settings.augment.strengths}


def default_values() -> dict[str, dict]:
    """The value that each setting had, in effect, in versions of the code that did not have it yet."""
    return setting_values(Settings(name="default", augment=AugmentSettings(preset="none")))
