"""Stage 01's check of external images (data.external), and their duplicates among training and test images."""

import pandas as pd

from lib.base.errors import listed, or_none
from lib.base.prefetch import prefetched
from lib.base.progress import progress
from lib.checks.inspection import check_images, skipped_lines
from lib.config.data_settings import DataSettings
from lib.config.schema import Settings
from lib.data.competition import TestData, TrainingData, open_test_if_there
from lib.data.input_files import present_state, write_known
from lib.data.tables import write_table
from lib.folds.duplicates import merged_groups, near_links
from lib.folds.external import TRAINING, describe_table, file_sources, named_errors, open_sources
from lib.folds.split import are_empty, coverage_columns, coverage_columns_of, image_table
from lib.images.hashes import perceptual_hash, pixel_hash, thumbnail
from lib.run.folder import RunFolder


class ExternalCheck:
    """The external images, read and checked. Nothing is written before `write`.

    `training` is the table of the training images with their groups, hashes and folds. Raises UserError naming the
    source where it cannot be used.
    """

    def __init__(self, settings: Settings, training: pd.DataFrame) -> None:
        self.settings = settings
        self.sources = open_sources(settings.data)
        self.table = pd.DataFrame()
        if not self.sources:
            return
        with_hashes = pd.concat([_inspected(name, data) for name, (_, data) in self.sources.items()], ignore_index=True)
        near = settings.folds.near_duplicates
        self.table = with_twins(with_hashes, training, near)
        self.of_test = twins_in_test(with_hashes, settings.data, near)

    def write(self, run: RunFolder) -> None:
        """Write external.csv and the content of the files; remove those of settings without external images."""
        if not self.sources:
            run.external.unlink(missing_ok=True)
            run.external_files.unlink(missing_ok=True)
            return
        write_table(run.external, self.table, "%.6g")
        write_known(run.external_files, present_state(file_sources(self.sources), {})[0])

    def describe(self) -> str:
        """A line for each source, and one on duplicates of the run's images; empty without any source."""
        if not self.sources:
            return ""
        lines = []
        for name, (weight, data) in self.sources.items():
            rows = self.table[self.table.source == name]
            empty = are_empty(rows[coverage_columns(data.classes)]).sum()
            lines.append(
                f"{name}: {len(rows)} images of {data.settings.root / data.settings.train_images}, {empty} of them "
                f"empty; each is drawn {weight:g} times where a training image is drawn once"
            )
        lines.append(describe_table(self.table))
        text = "".join(f"external  {line}\n" for line in lines)
        if self.of_test:
            text += (
                f"warning   duplicates of test images are among the external ones ({len(self.of_test)}: "
                f"{listed(self.of_test)}); a score on the test images is then partly one on training images; "
                "exclude, in data.external, leaves images out\n"
            )
        return text


def with_twins(external: pd.DataFrame, training: pd.DataFrame, near: bool) -> pd.DataFrame:
    """The table of external images with their groups, and below it the training images of the same groups.

    A group holds images with the same pixels, with `near` also near duplicates, and those of a group that a source
    names, directly or by a chain.
    """
    renamed = external.assign(id=external.source + "/" + external.id)  # ids of training images may be the same
    combined = pd.concat([renamed, training.assign(source=TRAINING)], ignore_index=True)
    combined["group"] = merged_groups(combined, near_links(combined.perceptual_hash if near else []))
    combined["id"] = [*external.id, *training.id]
    is_external = combined.source != TRAINING
    combined = combined[is_external | combined.group.isin(combined.group[is_external])]
    return combined[["source", "id", "group", "height", "width", *coverage_columns_of(combined), "sha256"]]


def twins_in_test(external: pd.DataFrame, settings: DataSettings, near: bool) -> list[str]:
    """Ids of the external images that are duplicates of test images, as far as these can be read."""
    if (test := open_test_if_there(settings)) is None:
        return []
    seen = progress("test images", prefetched(lambda image_id: _hashes(test, image_id), test.ids), len(test.ids))
    rows = [(f"test/{image_id}", *hashes) for image_id, hashes in seen if hashes is not None]
    test_table = pd.DataFrame(rows, columns=["id", "sha256", "perceptual_hash"]).assign(is_test=True)
    renamed = external.assign(id=external.source + "/" + external.id, is_test=False)
    combined = pd.concat([test_table, renamed[test_table.columns]], ignore_index=True).assign(group=None)
    combined["group"] = merged_groups(combined, near_links(combined.perceptual_hash if near else []))
    return external.id[combined.group[len(rows) :].isin(combined.group[: len(rows)]).to_numpy()].tolist()


def _hashes(test: TestData, image_id: str) -> tuple[str, str] | None:
    image = or_none(test.read_image, image_id)
    return None if image is None else (pixel_hash(image), perceptual_hash(thumbnail(image)))


def _inspected(name: str, data: TrainingData) -> pd.DataFrame:
    """The table of a source's images, which are checked and reported like training images; `group` where it has any."""
    with named_errors(name):
        facts = check_images(data, source=name).facts
        for line in skipped_lines(data.settings):
            print(line)
        are_grouped = data.settings.group or data.settings.group_csv
        table = image_table(facts, data.groups if are_grouped else None, data.classes)
    table.insert(0, "source", name)
    return table
