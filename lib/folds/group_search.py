"""Stage 01's search for hidden groups: finds candidates, tests them on the images, and reports the result."""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib.base.errors import UserError, or_none
from lib.base.prefetch import prefetched
from lib.base.progress import progress
from lib.config.data_settings import DataSettings
from lib.config.schema import FoldSettings
from lib.data.competition import TrainingData, open_test_if_there
from lib.data.groups import ID_GROUP, group_in_id
from lib.data.tables import write_table
from lib.folds.file_metadata import column_partitions, metadata_candidates, path_partitions
from lib.folds.group_sample import Sample
from lib.folds.hidden_groups import (
    FEWEST_IMAGES,
    Finding,
    Scenes,
    chosen,
    describe_findings,
    groups_table,
    search,
    search_scenes,
    strong_series,
)
from lib.folds.id_patterns import Partition, distinct, id_partitions, id_series
from lib.folds.kept_features import encoded, write_features
from lib.folds.likeness import Likeness, unit_vectors
from lib.folds.mosaics import borders_of, count_continuing
from lib.images.hashes import thumbnail
from lib.run.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

FIRST = 64  # images passed to the encoder at a time
MOST_PROPOSED = 3  # settings that are named where too few images are there to compare
TEST_SAMPLE = 1000  # test images of which the borders are compared


class HiddenGroupSearch:
    """Collect the thumbnail of every image while 01 checks it, then search for groups.

    Does nothing if the data have groups or folds.hidden_groups is `off`.
    """

    def __init__(self, data: TrainingData, settings: FoldSettings) -> None:
        self.data = data
        self.settings = settings
        self.is_on = data.groups is None and settings.hidden_groups != "off"
        self.findings: list[Finding] = []
        self.seconds = 0.0
        self.encoder = None
        self.scenes: Scenes | None = None  # shown by the images alone; searched for where nothing else is found
        self._waiting: list[np.ndarray] = []  # thumbnails
        self._gray: list[np.ndarray] = []  # thumbnails of the images compared
        self._borders: list[np.ndarray] = []  # of all images, 256 bytes each
        if self.is_on:
            self._timed(self._prepare)

    def _prepare(self) -> None:
        """Find the candidates, and choose the images that judge them."""
        partitions, series = metadata_candidates(self.data)
        named = [*path_partitions(self.data), *partitions, *column_partitions(self.data)]
        self.partitions = distinct([*id_partitions(self.data.ids), *named])
        self.series = [*id_series(self.data.ids), *series]
        self.sample = Sample.of(self.partitions, self.series, len(self.data.ids))
        self._sampled = {self.data.ids[number] for number in self.sample.images.tolist()}

    def add(self, image_id: str, small: np.ndarray) -> None:
        """Take the next image's `thumbnail`, uint8 (64, 64, channels)."""
        if not self.is_on:
            return
        self._borders.append(borders_of(small))
        if image_id not in self._sampled:
            return
        self._waiting.append(small)
        self._gray.append(small.mean(axis=2).astype(np.uint8))
        if len(self._waiting) == FIRST:
            self._timed(self._encode)

    def finish(self) -> np.ndarray | None:
        """Search for groups, after the last image: the groups to use, (images,) in the order of ids, or None."""
        if not self.is_on:
            return None
        self._timed(self._encode)
        self.findings = self._timed(self._search)
        if chosen(self.findings) is None:
            self.scenes = self._timed(self._search_scenes)
        if self.settings.hidden_groups != "auto":
            return None
        if self.scenes and not self.scenes.obstacle:
            first = np.unique(self.scenes.groups, return_index=True)[1]  # image of each scene, after which it is named
            return np.array(self.data.ids)[first[self.scenes.groups]]
        return self.used.partition.groups if self.used else None

    @property
    def used(self) -> Finding | None:
        """The finding by which folds are grouped."""
        return chosen(self.findings) if self.settings.hidden_groups == "auto" else None

    def allowed(self, links: np.ndarray) -> np.ndarray:
        """The links between near duplicates without those across a cut through a scene, which would undo the cut."""
        if not self.used or not self.used.partition.is_cut:
            return links
        groups = self.used.partition.groups
        return links[groups[links[:, 0]] == groups[links[:, 1]]]

    def write(self, run: RunFolder) -> None:
        """Keep the features, and the groups of every finding as a table that data.group_csv can name."""
        run.hidden_groups.unlink(missing_ok=True)
        if self.encoder and len(self.sample.images) == len(self.data.ids):
            write_features(run.features, self.data, self.encoder.features())
        if self.findings or self.scenes:
            write_table(run.hidden_groups, groups_table(self.data.ids, self.findings, self.scenes))

    def describe(self, run: RunFolder, images: "pd.DataFrame") -> str:
        """The findings and the seconds spent, as lines to print; empty if nothing was searched.

        `images` is the `image_table`, from which the folds by each finding that is not used are made.
        """
        if not self.encoder:
            return ""
        if len(self.data.ids) < FEWEST_IMAGES and self.scenes is None:
            return describe_too_few(self.partitions, len(self.data.ids), self.settings.count)
        table = os.path.relpath(run.hidden_groups, self.data.settings.root)
        of_test = count_in_groups(self.findings, self.data.settings)
        folds = self._folds(images)
        tested = [each.name for each in (*self.partitions, *self.series)]
        text = describe_findings(self.findings, self.settings.hidden_groups, table, self.scenes, folds, of_test, tested)
        compared, count = len(self.sample.images), len(self.data.ids)
        which = "images" if compared == count else f"{compared} of {count} images"
        return f"{text}\n          ({which} were compared in {self.seconds:.1f} s)\n"

    def _folds(self, images: "pd.DataFrame") -> list[str]:
        """For each finding what its folds would hold; empty for the one in use, and where groups are too few."""
        from lib.folds.split import assign_folds, describe_folds

        lines = []
        for finding in self.findings:
            shows = finding is not self.used and finding.count >= self.settings.count
            by_finding = images.assign(group=finding.partition.groups)
            made = assign_folds(by_finding, self.settings.count, self.settings.seed) if shows else None
            lines.append("" if made is None else describe_folds(made))
        return lines

    def _search(self) -> list[Finding]:
        strong = strong_series(self.series, self._vectors(), self.sample)
        if strong and len(self.sample.images) < len(self.data.ids):  # blocks are cut where successive images differ
            self.sample = Sample.everything(len(self.data.ids), len(self.partitions), len(self.series))
            self.encoder = encoded(self.data)  # decodes all images again: of those seen before no pixels are kept
            strong = strong_series(self.series, self._vectors(), self.sample)
        return search(self.partitions, strong, self._vectors(), self.settings.count, self.sample)

    def _search_scenes(self) -> Scenes | None:
        has_all = len(self._gray) == len(self.data.ids)
        thumbnails, borders = np.stack(self._gray) if has_all else None, np.stack(self._borders)
        scenes = search_scenes(borders, thumbnails, self._vectors(), self.settings.count)
        if scenes is None or scenes.obstacle:
            return scenes
        tests = borders_of_test(self.data.settings)
        return scenes.beside_test(len(tests), count_continuing(tests, borders)) if len(tests) else scenes

    def _vectors(self) -> np.ndarray:
        features = self.encoder.features().astype(np.float32)
        return unit_vectors(features, features.mean(axis=0), features.std(axis=0))

    def _encode(self) -> None:
        """Encode the collected thumbnails. torch is imported here, so that errors before the first batch come fast."""
        self.encoder = self.encoder or self._encoder()
        for small in self._waiting:
            self.encoder.add(small)
        self._waiting.clear()

    def _encoder(self):
        from lib.folds.features import ImageEncoder

        try:
            return ImageEncoder()
        except UserError as error:
            raise UserError(f"{error}; or set folds.hidden_groups=off, and no images are compared") from None

    def _timed(self, function, *arguments):
        started = time.monotonic()
        result = function(*arguments)
        self.seconds += time.monotonic() - started
        return result


def describe_too_few(partitions: Sequence[Partition], count: int, folds: int) -> str:
    """That so few images are not compared, and the settings that would group them, as lines to print."""
    proposed = [partition for partition in partitions if partition.setting and not partition.may_be_class]
    lines = [f"hidden    groups were not looked for: {count} images are too few to compare, {FEWEST_IMAGES} are needed"]
    for partition in proposed[:MOST_PROPOSED]:
        finding = Finding(partition, Likeness(0, 0, 0), "", folds)
        lines.append(
            f"          {finding.count} groups by {partition.name}, if these are scenes: {finding.setting('', '')}"
        )
    if not proposed:
        lines.append("          if several show one scene, say which: data.group")
    return "\n".join(lines) + "\n"


def count_in_groups(findings: Sequence[Finding], settings: DataSettings) -> str:
    """How many test images have an id of a training group, where ids make the groups to use; else ""."""
    finding = chosen(findings)
    if finding is None or not (finding.partition.setting or "").startswith(ID_GROUP):
        return ""
    if (data := open_test_if_there(settings)) is None:
        return ""
    training = set(finding.partition.groups.tolist())
    count = sum(or_none(group_in_id, finding.partition.setting, image_id) in training for image_id in data.ids)
    return f"{count or 'none'} of {len(data.ids)} test images are of these groups, by their ids"


def borders_of_test(settings: DataSettings) -> np.ndarray:
    """The borders, as `borders_of` makes them, of the test images that can be read; of many, of some."""
    if (data := open_test_if_there(settings)) is None:
        return np.empty(0)

    def borders(image_id: str) -> np.ndarray | None:  # in the threads: many images at full size would take gigabytes
        image = or_none(data.read_image, image_id)
        return None if image is None else borders_of(thumbnail(image))

    ids = np.random.default_rng(0).permutation(data.ids)[:TEST_SAMPLE].tolist()
    read = progress("test images", prefetched(borders, ids), len(ids))
    known = [of_image for _, of_image in read if of_image is not None]
    return np.stack(known) if known else np.empty(0)
