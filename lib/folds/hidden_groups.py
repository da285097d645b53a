"""Hidden groups, which no column names: frames of a video, tiles of a slide, images of a patient.

Candidates come from ids, folders and file metadata, and are tested on the images: if the most similar other image is of
the same group far more often than by chance, the images of a group are siblings. docs/hidden_groups.md explains the
limits below, how they were chosen, and the false alarms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lib.base.errors import plural
from lib.folds.duplicates import joined
from lib.folds.group_sample import Sample
from lib.folds.id_patterns import Partition, Series, distinct, numbered_by_first
from lib.folds.likeness import Likeness, likeness_beyond, likeness_of_groups, nearest
from lib.folds.mosaics import find_mosaics
from lib.folds.overlaps import overlap_groups
from lib.folds.series import cut, likeness_of_series

if TYPE_CHECKING:
    import pandas as pd

FEWEST_IMAGES = 20  # fewer prove nothing
STRONG, SURE_Z = 0.15, 6  # kappa and standard deviations from which a finding is strong
WEAK, LIKELY_Z = 0.05, 4  # and from which it is worth a warning
BEYOND = 0.3  # kappa among images of different finer groups from which the coarser partition is preferred
LARGEST_SHARE = 0.5  # the largest share of the images that one group may hold
FEWEST_TEST = 10  # test images; fewer prove nothing
SAME_SCENES = 0.5  # share of test images in training scenes, relative to that of training images with siblings
BLOCKS_PER_FOLD = 2  # the fewest when a long series is cut
AT_STAKE = "If images of one scene are in several folds, the score is too high for new scenes."
MOST_NAMED = 6  # candidates that are named where none is strong
UNDO = "If the test images are of these same scenes, or these are not scenes: folds.hidden_groups=warn"


@dataclass(frozen=True)
class Finding:
    """A partition, its likeness on the images, and the reason not to use it without being told to ("" if none)."""

    partition: Partition
    likeness: Likeness
    obstacle: str
    folds: int  # to be filled

    @property
    def count(self) -> int:
        """The number of groups; images whose ids have another form than most are alone and do not count."""
        return len(np.unique(self.partition.groups)) - self.partition.others

    @property
    def is_strong(self) -> bool:
        return self.likeness.reaches(STRONG, SURE_Z)

    @property
    def is_weak(self) -> bool:
        return not self.is_strong and self.likeness.reaches(WEAK, LIKELY_Z)

    @property
    def is_usable(self) -> bool:
        """Whether folds may be grouped by it."""
        return self.is_strong and not self.obstacle

    def setting(self, table: str, column: str) -> str:
        """The settings that group folds by it: a rule for ids or headers, or else a column of the `table`."""
        rule = self.partition.setting
        setting = f'data.group="{rule}"' if rule else f"data.group_csv={table} data.group={column}"
        return setting if self.count >= self.folds else f"{setting} folds.count={self.count}"

    def __str__(self) -> str:
        likeness, others = self.likeness, self.partition.others
        alone = f" ({plural(others, 'other id')} alone)" if others else ""
        return (
            f"{self.count} groups by {self.partition.name}{alone}: the most similar other image is of the same group "
            f"for {likeness.share:.0%} of the images, by chance for {likeness.chance:.0%}"
        )


@dataclass(frozen=True)
class Scenes:
    """Groups that only the images show: parts of one scene, whatever their ids."""

    columns: dict[str, np.ndarray]  # of the table, (images,) whole numbers; the first one holds the groups
    relation: str  # of an image to another one of its scene, as a verb
    obstacle: str  # the reason not to use them without being told to ("" if none)
    of_test: str = ""  # how many test images are of the same scenes ("": not known)

    @property
    def groups(self) -> np.ndarray:
        return next(iter(self.columns.values()))

    @property
    def has_siblings(self) -> np.ndarray:
        """Whether each image shares its scene with another one."""
        return np.bincount(self.groups)[self.groups] > 1

    def beside_test(self, count: int, continuing: int) -> "Scenes":
        """The same, knowing how many of so many test images continue a training image.

        If about as many do as among the training images, the test set is a random part of these scenes. Then folds that
        keep scenes together would give the score on other scenes than those of the test set.
        """
        of_test = f"{continuing} of {count} test images continue a training image"
        of_same = count >= FEWEST_TEST and continuing / count >= SAME_SCENES * self.has_siblings.mean()
        obstacle = f"{of_test}, so the test set is of the same photos" if of_same else self.obstacle
        return replace(self, of_test=of_test, obstacle=obstacle)

    def describe(self, mode: str, table: str) -> str:
        """How many there are, whether folds are grouped by them, and the settings for it, as lines to print."""
        sizes, column = np.bincount(self.groups), next(iter(self.columns))
        is_used = mode == "auto" and not self.obstacle
        of_test = f"          {self.of_test}\n" if self.of_test and not self.obstacle else ""
        not_used = f"are not grouped by them: {self.obstacle}" if self.obstacle else "could be grouped by them"
        return (
            f"{'hidden ' if is_used else 'warning'}   {self.has_siblings.sum()} of {len(self.groups)} images "
            f"{self.relation}: {(sizes > 1).sum()} scenes, at most {sizes.max()} images each\n"
            f"{of_test}"
            f"          folds {'are grouped by them' if is_used else not_used}\n"
            f"          to {'set' if is_used else 'use'} them: data.group_csv={table} data.group={column}"
        )


def strong_series(series: Sequence[Series], vectors: np.ndarray, sample: Sample) -> list[Series]:
    """Those whose close images are alike; `vectors` are the `unit_vectors` of the sample's images."""
    if len(vectors) < FEWEST_IMAGES:
        return []
    neighbour = _neighbours(vectors)
    return [
        order
        for order, judges in zip(series, sample.of_series, strict=True)
        if likeness_of_series(order, neighbour, sample.images, judges).reaches(STRONG, SURE_Z)
    ]


def search(
    partitions: Sequence[Partition], strong: Sequence[Series], vectors: np.ndarray, folds: int, sample: Sample
) -> list[Finding]:
    """All partitions that the images confirm; the one to use, if one is strong and has no obstacle, comes first.

    `vectors` are the `unit_vectors` of the sample's images; where there are `strong` series, of all images.
    """
    if len(vectors) < FEWEST_IMAGES:
        return []
    neighbour = _neighbours(vectors)
    judges = {id(partition): part for partition, part in zip(partitions, sample.of_partition, strict=True)}
    most = max(1, len(vectors) // (BLOCKS_PER_FOLD * folds))
    candidates = [*partitions, *(blocks for order in strong for blocks in cut(order, vectors, most))]
    findings = []
    for partition in distinct(candidates):
        groups = partition.groups[sample.images]
        likeness = likeness_of_groups(groups, neighbour, judges.get(id(partition)))
        findings.append(Finding(partition, likeness, _obstacle(partition, folds), folds))
    findings = [finding for finding in findings if finding.is_strong or finding.is_weak]
    findings.sort(key=lambda finding: (not finding.is_strong, bool(finding.obstacle), -finding.likeness.kappa))
    if chosen(findings):
        best = _best(findings, vectors, sample.images)
        findings.sort(key=lambda finding: finding is not best)
    return findings


def search_scenes(borders: np.ndarray, thumbnails: np.ndarray | None, vectors: np.ndarray, folds: int) -> Scenes | None:
    """Images that continue or overlap one another; `borders` are those of lib/folds/mosaics.py.

    `thumbnails` are uint8 (images, 64, 64), `vectors` their `unit_vectors`. Without thumbnails no overlap is found.
    """
    mosaics = find_mosaics(borders)
    overlaps = None if thumbnails is None else overlap_groups(thumbnails, vectors)
    if mosaics is None:
        relation = "share pixels with another one, at another place"
        return None if overlaps is None else Scenes({"overlaps": overlaps}, relation, "look at them first")
    row, column = mosaics.places.T
    columns = {"mosaics": mosaics.groups, "mosaic_row": row, "mosaic_column": column}
    relation = "continue another one at a border, as the tiles of one photo do"
    if overlaps is not None:
        columns = {"scenes": joined(mosaics.groups, overlaps)} | columns
        relation = "continue or overlap another one, as crops of one photo do"
    return Scenes(columns, relation, unsuited(next(iter(columns.values())), folds))


def chosen(findings: Sequence[Finding]) -> Finding | None:
    """The finding that folds are grouped by, if any."""
    return findings[0] if findings and findings[0].is_usable else None


def _obstacle(partition: Partition, folds: int) -> str:
    kinds = "they may be kinds of images (organs, findings, devices) rather than scenes"
    reasons = [kinds if partition.may_be_class else "", unsuited(partition.groups, folds, partition.others)]
    return "; ".join(filter(None, reasons))


def unsuited(groups: np.ndarray, folds: int, others: int = 0) -> str:
    """The reason why groups cannot be spread over so many folds; "" if they can. `others` are groups not to count."""
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) - others < folds:
        return f"{len(sizes) - others} groups cannot fill {folds} folds"
    if sizes.max() > LARGEST_SHARE * sizes.sum():
        return f"one group holds {sizes.max() / sizes.sum():.0%} of the images"
    return ""


def _neighbours(vectors: np.ndarray) -> np.ndarray:
    """The number of the most similar other image of each."""
    numbers = np.arange(len(vectors))
    return nearest(vectors, vectors, (numbers, numbers))[0]


def _best(findings: list[Finding], vectors: np.ndarray, images: np.ndarray) -> Finding:
    """The finding to use: the finest partition within the first one, then as coarse as the images justify.

    A coarser partition always holds more siblings; it is preferred if images of its groups are alike even across the
    groups of the finer one.
    """
    first = findings[0]
    usable = [each for each in findings if each.is_usable and (each is first or not each.partition.by_images)]
    usable.sort(key=lambda finding: -finding.count)
    best = next(finding for finding in usable if is_nested(finding.partition.groups, first.partition.groups))
    for finding in usable:
        coarse, fine = finding.partition.groups, best.partition.groups
        is_coarser = finding.count < best.count and is_nested(fine, coarse)
        if is_coarser and likeness_beyond(coarse[images], fine[images], vectors).reaches(BEYOND, LIKELY_Z):
            best = finding
    return best


def is_nested(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether each fine group lies in one coarse group."""
    pairs = numbered_by_first(fine) * len(coarse) + numbered_by_first(coarse)
    return len(np.unique(pairs)) == len(np.unique(fine))


def groups_table(ids: Sequence[str], findings: Sequence[Finding], scenes: Scenes | None = None) -> "pd.DataFrame":
    """The groups of every finding, for data.group_csv: id, candidate_1, candidate_2, ..., columns of the scenes."""
    import pandas as pd

    columns = {f"candidate_{number}": finding.partition.groups for number, finding in enumerate(findings, start=1)}
    columns |= scenes.columns if scenes else {}
    return pd.DataFrame({"id": list(ids)} | columns)


def describe_findings(
    findings: Sequence[Finding],
    mode: str,
    table: str,
    scenes: Scenes | None = None,
    folds: Sequence[str] = (),
    of_test: str = "",
    tested: Sequence[str] = (),
) -> str:
    """The findings, their use and the reasons, as lines to print.

    `mode` is folds.hidden_groups; `table` is the path, as data.group_csv takes it, of the `groups_table`; `folds` is
    what the folds by each finding would hold, `of_test` how many test images are of the groups to use ("": not said),
    `tested` the names of the candidates.
    """
    if not findings and scenes is None:
        return _describe_nothing(tested)
    best, lines = chosen(findings), []
    for number, finding in enumerate(findings, start=1):
        if finding is best:
            verb = "folds are grouped by" if mode == "auto" else "folds could be grouped by"
            lines.append(f"{'hidden ' if mode == 'auto' else 'warning'}   {verb} {finding}")
        elif best is None or (finding.is_strong and not finding.partition.is_cut and not finding.partition.by_images):
            why = finding.obstacle or ("weak evidence" if finding.is_weak else "the first finding explains more")
            lines.append(f"{'hidden ' if best else 'warning'}   not used: {finding} ({why})")
        else:
            continue
        lines.append(
            f"          to {'set' if finding is best else 'use'} it: {finding.setting(table, f'candidate_{number}')}"
        )
        if finding is best and of_test:
            lines.append(f"          {of_test}")
        if folds and folds[number - 1]:
            lines.append(f"          its folds would hold {folds[number - 1]}")
    if scenes:
        lines.append(scenes.describe(mode, table))
    lines.append(f"          {AT_STAKE}")
    if mode == "auto" and (best or (scenes and not scenes.obstacle)):
        lines.append(f"          {UNDO}")
    return "\n".join(lines)


def _describe_nothing(tested: Sequence[str]) -> str:
    names = ", ".join(tested[:MOST_NAMED]) + (f" and {len(tested) - MOST_NAMED} more" if tested[MOST_NAMED:] else "")
    alike = (
        f"by {names} images are no more alike than any others, and none continues"
        if tested
        else ("neither ids nor folders nor tables name any, and no image continues")
    )
    return f"hidden    no groups: {alike} another one at a border; scenes that show in no other way cannot be found"
