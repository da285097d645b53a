"""Groups that the data have and nobody names: frames of a video, tiles of a slide, images of a patient.

Candidates come from ids, folders and files' metadata; the images then say whether there is anything in them: where
the most similar other image is of the same group far more often than by chance, the images of a group are siblings.
docs/hidden_groups.md has the limits below, how they were found, and the false alarms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lib.data.id_patterns import Partition, Series, distinct, numbered_by_first
from lib.data.likeness import Likeness, likeness_beyond, likeness_of_groups, nearest
from lib.data.series import cut, likeness_of_series

if TYPE_CHECKING:
    import pandas as pd

FEWEST_IMAGES = 20  # fewer say nothing
STRONG, SURE_Z = 0.15, 6  # kappa and standard deviations from which a finding is strong
WEAK, LIKELY_Z = 0.05, 4  # and from which it is worth a warning
BEYOND = 0.3  # kappa of a coarser partition among images of different finer groups, from which it is preferred
LARGEST_SHARE = 0.5  # of the images in one group, at most
BLOCKS_PER_FOLD = 2  # at least, when a long series is cut
AT_STAKE = "If images of one scene are in several folds, the score is too high for new scenes."
UNDO = "If the test images are of these same scenes, or these are not scenes: folds.hidden_groups=warn"


@dataclass(frozen=True)
class Finding:
    """A partition, what the images say of it, and why it may not be used without being asked for ("" if it may)."""

    partition: Partition
    likeness: Likeness
    obstacle: str

    @property
    def count(self) -> int:
        """The number of groups."""
        return len(np.unique(self.partition.groups))

    @property
    def is_strong(self) -> bool:
        return self.likeness.kappa >= STRONG and self.likeness.z >= SURE_Z

    @property
    def is_weak(self) -> bool:
        return not self.is_strong and self.likeness.kappa >= WEAK and self.likeness.z >= LIKELY_Z

    def __str__(self) -> str:
        likeness = self.likeness
        return (
            f"{self.count} groups by {self.partition.name}: the most similar other image is of the same group for "
            f"{likeness.share:.0%} of the images, by chance for {likeness.chance:.0%}"
        )


def search(partitions: Sequence[Partition], series: Sequence[Series], vectors: np.ndarray, folds: int) -> list[Finding]:
    """Everything that the images confirm, the finding to use (if any is strong and has no obstacle) first.

    `vectors` are the images' `unit_vectors`.
    """
    count = len(vectors)
    if count < FEWEST_IMAGES:
        return []
    own = np.arange(count)
    neighbour, _ = nearest(vectors, vectors, (own, own))
    most = max(1, count // (BLOCKS_PER_FOLD * folds))
    candidates = list(partitions)
    for one in series:
        likeness = likeness_of_series(one, neighbour)
        if likeness.kappa >= STRONG and likeness.z >= SURE_Z:
            candidates += cut(one, vectors, most)
    findings = [
        Finding(partition, likeness_of_groups(partition.groups, neighbour), _obstacle(partition, folds))
        for partition in distinct(candidates)
    ]
    findings = [finding for finding in findings if finding.is_strong or finding.is_weak]
    findings.sort(key=lambda finding: (not finding.is_strong, bool(finding.obstacle), -finding.likeness.kappa))
    if findings and _is_usable(findings[0]):
        best = _best(findings, vectors)
        findings.sort(key=lambda finding: finding is not best)
    return findings


def chosen(findings: Sequence[Finding]) -> Finding | None:
    """The finding that folds are grouped by, where they are."""
    return findings[0] if findings and _is_usable(findings[0]) else None


def _is_usable(finding: Finding) -> bool:
    return finding.is_strong and not finding.obstacle


def _obstacle(partition: Partition, folds: int) -> str:
    sizes = np.unique(partition.groups, return_counts=True)[1]
    if len(sizes) < folds:
        return f"{len(sizes)} groups cannot fill {folds} folds; folds.count={len(sizes)} could"
    if sizes.max() > LARGEST_SHARE * sizes.sum():
        return f"one group holds {sizes.max() / sizes.sum():.0%} of the images"
    if partition.may_be_class:
        return "they may be kinds of images (organs, findings, devices) rather than scenes"
    return ""


def _best(findings: list[Finding], vectors: np.ndarray) -> Finding:
    """The finding to use: the finest within the first one, then as coarse as the images justify.

    A coarser partition holds more siblings always; it is preferred where images of its groups are alike even beyond
    the groups of the finer one.
    """
    first = findings[0]
    usable = [one for one in findings if _is_usable(one) and (one is first or not one.partition.by_images)]
    usable.sort(key=lambda finding: -finding.count)
    best = next(finding for finding in usable if is_nested(finding.partition.groups, first.partition.groups))
    for finding in usable:
        coarse, fine = finding.partition.groups, best.partition.groups
        if finding.count < best.count and is_nested(fine, coarse):
            likeness = likeness_beyond(coarse, fine, vectors)
            if likeness.kappa >= BEYOND and likeness.z >= LIKELY_Z:
                best = finding
    return best


def is_nested(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether each fine group lies in one coarse group."""
    pairs = numbered_by_first(fine) * len(coarse) + numbered_by_first(coarse)
    return len(np.unique(pairs)) == len(np.unique(fine))


def groups_table(ids: Sequence[str], findings: Sequence[Finding]) -> "pd.DataFrame":
    """The groups of every finding for data.group_csv: columns id, candidate_1, candidate_2, ..."""
    import pandas as pd

    columns = {f"candidate_{number}": finding.partition.groups for number, finding in enumerate(findings, start=1)}
    return pd.DataFrame({"id": list(ids)} | columns)


def describe(findings: Sequence[Finding], mode: str, table: str) -> str:
    """What was found, what is done about it and why, in lines for printing.

    `mode` is folds.hidden_groups; `table` is the path, as data.group_csv takes it, of what `groups_table` holds.
    """
    if not findings:
        return "hidden    no groups: ids, files and images show no scenes that several images share"
    best, lines = chosen(findings), []
    for number, finding in enumerate(findings, start=1):
        rule = finding.partition.setting
        setting = f'data.group="{rule}"' if rule else f"data.group_csv={table} data.group=candidate_{number}"
        if finding is best:
            verb = "folds are grouped by" if mode == "auto" else "folds could be grouped by"
            lines.append(f"{'hidden ' if mode == 'auto' else 'warning'}   {verb} {finding}")
        elif best is None or finding.is_strong:
            why = finding.obstacle or ("weak evidence" if finding.is_weak else "the first finding explains more")
            lines.append(f"{'hidden ' if best else 'warning'}   not used: {finding} ({why})")
        else:
            continue
        lines.append(f"          to {'set' if finding is best else 'use'} it: {setting}")
    lines.append(f"          {AT_STAKE}")
    if best and mode == "auto":
        lines.append(f"          {UNDO}")
    return "\n".join(lines)
