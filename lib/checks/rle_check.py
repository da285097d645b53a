"""Check, by the masks themselves, that data.rle is the convention in which the run lengths were written.

Competition pages have named the wrong pixel order, and a mask decoded in the wrong order is still a valid mask. So a
sample of the masks is decoded in every convention. If the same masks exist as images (data.compare_masks), the right
convention agrees with them pixel by pixel. Otherwise it gives the fewest connected components: in the wrong order a
mask falls apart into stripes. If only the number of the first pixel is wrong, what touches an edge of the image leaves
a sliver at the opposite edge. On square images the wrong order only mirrors the mask, which changes no count; there the
border of the right mask lies on edges of the image.
"""

from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import cv2
import numpy as np

from lib.base.errors import UserError, or_none
from lib.checks.rle_components import count_components
from lib.checks.rle_numbers import other_numbers
from lib.config.data_settings import RleSettings
from lib.data.competition import TrainingData, open_compared
from lib.data.mask_index import is_rle_table
from lib.masks.metrics import count_mask, iou
from lib.masks.rle import decode_union, divided, is_empty

SAMPLE = 24  # masks, each decoded in every convention
FEWEST_SLIVERS = 3  # masks with fewer components, and none with more, if pixels are counted from the other number
CLEARLY_MORE = 1.5  # times as many components; one pixel of shift adds a few, the wrong order multiplies them
FACTORS = (2, 3, 4, 8)  # how many times smaller the images may be that the run lengths were written for
SAME_IOU = 0.005  # difference of IoU that is no difference
AGREEING = 0.9  # mean IoU from which two sources hold the same masks; a few files may differ
CLEARLY = 3  # standard errors, for a difference of edge strengths
MAX_EDGE_PIXELS = 50_000_000  # largest image that is decoded for its edges


class Reading(NamedTuple):
    """The run lengths of one mask."""

    id: str
    texts: list[str]
    shape: tuple[int, int]  # height and width of the image
    factor: int = 1  # how many times larger the image is than the encoded mask

    def decoded(self, convention: RleSettings) -> np.ndarray:
        return decode_union(self.texts, self.shape, convention, self.factor)

    def count_components(self, convention: RleSettings) -> int:
        return count_components(self.texts, divided(self.shape, self.factor), convention)


@dataclass(frozen=True)
class Verdict:
    """The result of the check of data.rle."""

    label: Literal["checked", "assumed", "warning"]  # assumed: nothing can be checked; warning: it looks wrong
    text: str
    remedy: str = ""  # the settings under which the masks look right, if any do

    @property
    def is_wrong(self) -> bool:
        return self.label == "warning"


def check_convention(training: TrainingData) -> Verdict:
    """Decode up to 24 training masks in every convention and judge the declared one.

    Raises UserError if data.compare_masks cannot be read, or if the run lengths are those of smaller images.
    """
    compared = training.settings.compare_masks
    sources = [training, open_compared(training)] if compared else [training]
    tables = [source for source in sources if is_rle_table(source.settings.train_masks)]
    if not tables:
        reason = "only the submission uses it, and mask images cannot tell; data.compare_masks may name a csv that does"
        return Verdict("assumed", reason)
    readings, truths = _sample(tables[0], next((source for source in sources if source is not tables[0]), None))
    if not readings:
        reason = "no training mask with pixels is written as run lengths, so nothing can be checked"
        return Verdict("assumed", reason)
    if doubt := other_numbers((reading.texts, reading.shape) for reading in readings):
        return Verdict("warning", f"looks wrong: {doubt}")
    counts = _counts(readings, training.settings.rle)
    _refuse_smaller_size(readings, training.settings.rle, min(counts.values(), default=None))
    if truths:
        return _judge_by_images(readings, truths, training.settings.rle, compared)
    return _judge_by_components(readings, counts, training)


def require_convention(training: TrainingData) -> Verdict:
    """Check the convention. Raises UserError if it looks wrong, unless data.doubtful_rle is `read`."""
    verdict, settings = check_convention(training), training.settings
    if verdict.is_wrong and settings.doubtful_rle == "error":
        remedy = f"set {verdict.remedy}" if verdict.remedy else "look at the masks"
        raise UserError(
            f"data.rle ({describe_convention(settings.rle)}) {verdict.text}; {remedy}, or data.doubtful_rle=read if "
            "you are sure that it is right"
        )
    return verdict


def candidates(declared: RleSettings) -> list[RleSettings]:
    """Every convention with the declared empty token, the declared one first."""
    others = [
        declared.model_copy(update={"order": order, "base": base, "starts": starts})
        for order, base, starts in product(("column", "row"), (1, 0), ("absolute", "relative"))
    ]
    return [declared, *(other for other in others if other != declared)]


def describe_convention(convention: RleSettings) -> str:
    """A convention in words, without its empty token."""
    return f"{convention.order}s, from {convention.base}, {convention.starts} starts"


def settings_of(convention: RleSettings, declared: RleSettings) -> str:
    """The settings, as `data.rle.key=value`, that turn the declared convention into another."""
    names = ("order", "base", "starts")
    changed = [name for name in names if getattr(convention, name) != getattr(declared, name)]
    return " ".join(f"data.rle.{name}={getattr(convention, name)}" for name in changed)


def _sample(table: TrainingData, images: TrainingData | None) -> tuple[list[Reading], list[np.ndarray]]:
    """Run lengths of masks with pixels, spread evenly over the ids, and the same masks from `images` if given."""
    readings, truths = [], []
    for image_id in spread([image_id for image_id in table.ids if images is None or image_id in images.files]):
        class_index, texts = _first_texts(table.pieces(image_id), table.settings.rle)
        if not texts:
            continue
        shape = or_none(table.image_size, image_id)
        truth = or_none(images.read_mask, image_id) if images else None
        if shape and (images is None or truth is not None):  # broken files are reported when all are checked
            readings.append(Reading(image_id, texts, shape, table.settings.rle_factor))
            if images:
                truths.append(truth[:, :, class_index])
        if len(readings) == SAMPLE:
            break
    return readings, truths


def _first_texts(pieces: list[list[str]], convention: RleSettings) -> tuple[int, list[str]]:
    """The first class with pixels, and its run lengths without the blank ones."""
    for class_index, texts in enumerate(pieces):
        if kept := [text for text in texts if not is_empty(text, convention)]:
            return class_index, kept
    return 0, []


def spread(ids: list[str]) -> list[str]:
    """The ids reordered so that any first part of them is spread evenly over the whole."""
    step = max(1, len(ids) // SAMPLE)
    return [image_id for offset in range(step) for image_id in ids[offset::step]]


def _judge_by_images(
    readings: list[Reading], truths: list[np.ndarray], declared: RleSettings, compared: str
) -> Verdict:
    scores = {}
    for convention in candidates(declared):
        pairs = zip(readings, truths, strict=True)
        scores[convention] = np.mean([_iou(reading, truth, convention) for reading, truth in pairs])
    evidence = f"IoU {scores[declared]:.3f} with {compared} over {len(readings)} masks"
    best = max(scores, key=scores.get)
    if scores[best] < AGREEING:
        reason = f"{evidence}, at most {scores[best]:.3f} in other conventions; {compared} holds other masks"
        return Verdict("warning", f"cannot be checked: {reason}")
    if scores[best] > scores[declared] + SAME_IOU:
        text = f"looks wrong: {evidence}; as {describe_convention(best)} it is {scores[best]:.3f}"
        return Verdict("warning", text, remedy=settings_of(best, declared))
    return Verdict("checked", evidence)


def _judge_by_components(readings: list[Reading], counts: dict[RleSettings, int], training: TrainingData) -> Verdict:
    declared = training.settings.rle
    best = min(counts, key=counts.get, default=None)
    if best is None:  # the check of all images will name the mask, and what is wrong with it
        text = f"some of {len(readings)} masks cannot be decoded in any convention"
        return Verdict("assumed", text)
    if declared not in counts:
        text = f"looks wrong: some of {len(readings)} masks cannot be decoded"
        other = f"; {describe_convention(best)} works, with {counts[best]} components"
        return Verdict("warning", text + other, remedy=settings_of(best, declared))
    evidence = f"{counts[declared]} components in {len(readings)} masks"
    if counts[declared] > CLEARLY_MORE * counts[best]:
        text = f"looks wrong: {evidence}; as {describe_convention(best)} there are {counts[best]}"
        return Verdict("warning", text, remedy=settings_of(best, declared))
    other_base = declared.model_copy(update={"base": 1 - declared.base})
    fewer, more = _changes(readings, declared, other_base)
    if fewer >= FEWEST_SLIVERS and not more:
        text = f"looks wrong: {evidence}; counted from {other_base.base}, {fewer} masks have fewer and none has more"
        return Verdict("warning", text, remedy=settings_of(other_base, declared))
    turned = declared.model_copy(update={"order": "row" if declared.order == "column" else "column"})
    if turned not in counts or counts[turned] > CLEARLY_MORE * counts[declared]:
        return Verdict("checked", f"{evidence}; in the other order {counts.get(turned, 'not all can be decoded')}")
    return _judge_by_edges(readings, training, turned)


def _counts(readings: list[Reading], declared: RleSettings) -> dict[RleSettings, int]:
    """Total components of the masks, for each convention in which all of them can be decoded."""
    counts = {}
    for convention in candidates(declared):
        of_masks = []
        for reading in readings:
            of_masks.append(or_none(reading.count_components, convention))
            if of_masks[-1] is None:
                break
        else:
            counts[convention] = sum(of_masks)
    return counts


def _changes(readings: list[Reading], declared: RleSettings, other: RleSettings) -> tuple[int, int]:
    """The number of masks with fewer components in the other convention, and with more or that it cannot decode."""
    pairs = [(reading.count_components(declared), or_none(reading.count_components, other)) for reading in readings]
    fewer = sum(count is not None and count < of_declared for of_declared, count in pairs)
    return fewer, sum(count is None or count > of_declared for of_declared, count in pairs)


def _refuse_smaller_size(readings: list[Reading], declared: RleSettings, fewest: int | None) -> None:
    """Raise UserError if the run lengths fit smaller images, where they give far fewer components."""
    if readings[0].factor > 1 or fewest is None:
        return
    results = set()
    for factor in FACTORS:
        counts = _counts([reading._replace(factor=factor) for reading in readings], declared)
        results |= {
            (count, convention != declared, factor, describe_convention(convention))
            for convention, count in counts.items()
        }
    count, _, factor, convention = min(results, default=(fewest, True, 1, ""))
    if CLEARLY_MORE * count < fewest:
        raise UserError(
            f"the run lengths of the training masks are those of images {factor} times smaller: there they make "
            f"{count} components in {len(readings)} masks ({convention}), and {fewest} in the size of the images; set "
            f"data.rle_factor={factor}"
        )


def _judge_by_edges(readings: list[Reading], training: TrainingData, turned: RleSettings) -> Verdict:
    small = [reading for reading in readings if reading.shape[0] * reading.shape[1] <= MAX_EDGE_PIXELS]
    measured = [or_none(_edge_strengths, reading, training, turned) for reading in small]
    strengths = np.array([pair for pair in measured if pair and min(pair) > 0])
    if len(strengths) < 2:
        return Verdict(
            "checked", "these masks do not show the order: they have as many components in both; check before_after.png"
        )
    gains = np.log(strengths[:, 0] / strengths[:, 1])
    error = gains.std(ddof=1) / len(gains) ** 0.5
    declared, other = strengths.mean(axis=0)
    evidence = (
        f"edges under the borders of {len(gains)} masks are {declared:.2f} of the mean, in the other order {other:.2f}"
    )
    if gains.mean() < -CLEARLY * error:
        return Verdict("warning", f"looks wrong: {evidence}", remedy=settings_of(turned, training.settings.rle))
    if gains.mean() > CLEARLY * error:
        return Verdict("checked", evidence)
    return Verdict("checked", f"these masks do not show the order: {evidence}; check before_after.png")


def _edge_strengths(reading: Reading, training: TrainingData, turned: RleSettings) -> list[float]:
    """Mean gradient under the mask's border relative to the whole image: as declared, and in the other order."""
    gray = training.read_image(reading.id).mean(axis=2, dtype=np.float32)
    change = cv2.magnitude(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    strengths = []
    for convention in (training.settings.rle, turned):
        border = cv2.morphologyEx(reading.decoded(convention), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        strengths.append(float(change[border].mean() / max(change.mean(), 1e-6)) if border.any() else 0.0)
    return strengths


def _iou(reading: Reading, truth: np.ndarray, convention: RleSettings) -> float:
    """IoU of the decoded mask with the truth; 0 if the run lengths cannot be decoded."""
    mask = or_none(reading.decoded, convention)
    return 0 if mask is None else float(iou(*count_mask(mask, truth)))
