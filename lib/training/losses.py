"""The loss: a weighted sum of terms over independent sigmoid classes.

Every term is averaged over images and classes, computed in float32, and smaller for a better mask. `bce`, `focal` and
`lovasz` compare pixels, `dice` and `tversky` regions, `boundary` distances to the border.
"""

import math
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import FocalLoss, LovaszLoss
from torch import Tensor, nn

from lib.config.loss_terms import parse_terms
from lib.config.schema import Settings
from lib.config.training_settings import LossSettings
from lib.masks.metrics import IGNORED
from lib.model.network import Output, logits_of

SMOOTH_PIXELS = 1.0
FOCAL_TVERSKY_POWER = 0.75
SCHEDULE_START = 0.01
REBALANCE_END = 0.9
REGION_TERMS = ("dice", "tversky", "focal_tversky")


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """The signed distance map of one mask: negative inside, positive outside, zero on the line between the pixels.

    A pixel's distance is measured from its centre to the nearest pixel centre of the other kind, less the half pixel
    by which the border falls short of that centre: -0.5 px and +0.5 px on the two sides of a straight border.
    It is divided by the diagonal, so that a weight of the term means the same at every image size. The official code
    of the boundary loss has -0 px and +1 px there: the same map plus half a pixel, which shrinks every mask.

    mask: uint8 0, 1 or IGNORED, (height, width). Returns float32 (height, width) in (-1, 1): 0 where the mask is
    IGNORED, and everywhere for an empty or full mask, which has no border (there cv2 returns 1.8e19).
    """
    if not (mask == 1).any() or not (mask == 0).any():
        return np.zeros(mask.shape, np.float32)
    inside, outside = (_exact_distance((mask != value).view(np.uint8)) for value in (0, 1))
    distances = (outside - inside + (mask == 1) - np.float32(0.5)) / np.float32(math.hypot(*mask.shape))
    return np.where(mask == IGNORED, np.float32(0), distances)


def _exact_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each mask pixel to the nearest background pixel, float32; 0 elsewhere.

    The last bits of OpenCV's result depend on where the mask lies in memory. Squared distances between pixels are whole
    numbers, so rounding them makes the map exact and the training repeatable bit for bit.
    """
    return np.sqrt(np.rint(np.square(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))))


def signed_distances(masks: np.ndarray) -> np.ndarray:
    """The signed distance map of each class: uint8 (height, width, classes) -> float32 (classes, height, width)."""
    return np.stack([signed_distance(np.ascontiguousarray(mask)) for mask in np.moveaxis(masks, -1, 0)])


class Pixels(NamedTuple):
    """Predictions and truths, float32: all of a batch (images, classes, height, width), or some as (pixels,)."""

    logits: Tensor
    probabilities: Tensor
    truths: Tensor
    distances: Tensor | None

    def where(self, chosen: Tensor) -> "Pixels":
        """The pixels for which `chosen`, bool, is true."""
        return Pixels(*(None if values is None else values[chosen] for values in self))


class SegmentationLoss(nn.Module):
    """The weighted sum of the terms in `settings.terms`, plus the loss of the presence head if the network has one.

    If `needs_distance` is true, `forward` takes distance maps. With `may_ignore` masks may hold IGNORED; these pixels
    then change no term.
    """

    def __init__(self, settings: LossSettings, may_ignore: bool = False, presence_weight: float = 0.0):
        super().__init__()
        self.may_ignore = may_ignore
        self.presence_weight = presence_weight
        self.settings = settings
        self.weights = parse_terms(settings.terms)
        self.needs_distance = not self.weights.keys().isdisjoint({"boundary", "border_bce"})
        # smp computes the first over all pixels of the batch, the second for each image.
        self.focal = FocalLoss("binary", alpha=settings.focal_alpha, gamma=settings.focal_gamma)
        self.lovasz = LovaszLoss("binary", per_image=True, ignore_index=IGNORED if may_ignore else None)

    @classmethod
    def of(cls, settings: Settings) -> "SegmentationLoss":
        return cls(settings.loss, bool(settings.data.masks.ignore), settings.model.presence)

    def forward(
        self, output: Output, masks: Tensor, distances: Tensor | None, done_share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and every term of it: unweighted, detached, on the device.

        output: logits of any float type, (images, classes, height, width), or a pair of these and the logits of
        presence, (images, classes). masks: 0, 1 or IGNORED, of any type, same shape as the first.
        distances: the maps of `signed_distances`, same shape; None unless `needs_distance`.
        done_share: the share of the training that is done, 0 to 1, for the boundary schedule.
        """
        logits, presence = logits_of(output)
        with torch.autocast(logits.device.type, enabled=False):
            logits, truths = logits.float(), masks.float()
            if self.may_ignore and (masks == IGNORED).any():
                term = partial(self._term_of_known, known=masks != IGNORED)
            else:
                term = self._term
            pixels = Pixels(logits, logits.sigmoid(), truths, distances)
            terms = {name: term(name, pixels) for name in self.weights}
            if presence is not None:
                terms["presence"] = presence_loss(presence.float(), masks)
        region, boundary = schedule(self.settings.boundary_schedule, done_share)
        total = sum(
            weight * (boundary if name == "boundary" else region) * terms[name] for name, weight in self.weights.items()
        )
        if presence is not None:
            total = total + self.presence_weight * terms["presence"]
        return total, {name: term.detach() for name, term in terms.items()}

    def _term_of_known(self, name: str, pixels: Pixels, known: Tensor) -> Tensor:
        """A term without ignored pixels: left out of means; in region terms neither predicted nor true."""
        if not known.any():
            return pixels.logits.sum() * 0
        if name == "lovasz":  # which leaves them out itself
            return self._term(name, pixels)
        if name in REGION_TERMS:
            probabilities, truths = pixels.probabilities * known, pixels.truths * known
            return self._term(name, pixels._replace(probabilities=probabilities, truths=truths))
        if name == "border_bce":
            near = border_closeness(pixels.distances, self.settings.border_width)[known]
            return self._border_bce(pixels.logits[known], pixels.truths[known], near)
        return self._term(name, pixels.where(known))

    def _term(self, name: str, pixels: Pixels) -> Tensor:
        settings, (logits, probabilities, truths, distances) = self.settings, pixels
        match name:
            case "bce":
                return F.binary_cross_entropy_with_logits(logits, smoothed(truths, settings.label_smoothing))
            case "border_bce":
                return self._border_bce(logits, truths, border_closeness(distances, settings.border_width))
            case "dice":
                return tversky_losses(probabilities, truths, 0.5, settings.region).mean()
            case "tversky":
                return tversky_losses(probabilities, truths, settings.tversky_beta, settings.region).mean()
            case "focal_tversky":
                losses = tversky_losses(probabilities, truths, settings.tversky_beta, settings.region)
                # The derivative of the root is infinite at 0, the loss of a perfect mask.
                return losses.clamp_min(1e-6).pow(FOCAL_TVERSKY_POWER).mean()
            case "focal":
                return self.focal(logits, truths)
            case "lovasz":
                return self.lovasz(logits.flatten(0, 1), truths.flatten(0, 1))
            case "boundary":
                return boundary_loss(probabilities, distances)

    def _border_bce(self, logits: Tensor, truths: Tensor, near: Tensor) -> Tensor:
        weights = border_weights(near, self.settings.border_weight)
        targets = smoothed(truths, self.settings.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, targets, weights)


def presence_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of the presence of each class in each crop: 1 if its mask has a pixel.

    logits: float32 (images, classes). masks: 0, 1 or IGNORED, (images, classes, height, width); IGNORED pixels do not
    count as presence.
    """
    return F.binary_cross_entropy_with_logits(logits, (masks == 1).flatten(2).any(dim=2).float())


def schedule(kind: str, done_share: float) -> tuple[float, float]:
    """The factors of (all other terms, the boundary term) at a share of the training, 0 to 1.

    `constant`: 1 and 1. `ramp`: 1 and 0.01 rising to 1. `rebalance`: 1 - a and a, with a rising from 0.01 to 0.9. The
    other terms keep a tenth, as in the official code of the boundary loss: near an empty mask the boundary term has
    hardly any gradient and cannot recover alone.
    """
    match kind:
        case "constant":
            return 1.0, 1.0
        case "ramp":
            return 1.0, SCHEDULE_START + (1 - SCHEDULE_START) * done_share
        case "rebalance":
            share = SCHEDULE_START + (REBALANCE_END - SCHEDULE_START) * done_share
            return 1 - share, share


def boundary_loss(probabilities: Tensor, distances: Tensor) -> Tensor:
    """Mean over all pixels of probability times signed distance.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, arXiv 1812.07032. Negative for a
    good mask and smallest for the truth itself; every wrong pixel adds its distance to the true border. A truth without
    a border gives 0 and no gradient, so this term needs another one beside it.

    The values are small, as shares of the diagonal: at the start of training the gradient is about 15 times smaller
    than that of `dice`, so try weights from 1 to 10.
    """
    return (probabilities * distances).mean()


def tversky_losses(probabilities: Tensor, truths: Tensor, beta: float, over: str) -> Tensor:
    """1 - Tversky index (Salehi et al., MLMI 2017, arXiv 1706.05721); with beta 0.5 it is 1 - soft Dice.

    beta weighs missed truth, 1 - beta false alarms. over="image": per image and class, (images, classes), as
    the score is averaged; over="batch": per class, (classes,), pixels of all images pooled, as in smp. Unlike in smp an
    empty truth counts: the loss is then 1 - s / (s + (1 - beta) * sum of probabilities) with s = 1 pixel, which is 0
    only for an empty mask, as for Dice.
    """
    pixels = {"image": (2, 3), "batch": (0, 2, 3)}[over]
    hits = (probabilities * truths).sum(pixels)
    false_alarms = probabilities.sum(pixels) - hits
    missed = truths.sum(pixels) - hits
    return 1 - (hits + SMOOTH_PIXELS) / (hits + (1 - beta) * false_alarms + beta * missed + SMOOTH_PIXELS)


def border_closeness(distances: Tensor, width: float) -> Tensor:
    """exp(-d^2 / (2 width^2)) at d pixels from the border; 0 for a truth without a border."""
    pixels = distances * math.hypot(*distances.shape[-2:])
    near = torch.exp(-pixels.square() / (2 * width**2))
    return near * (distances != 0)  # exactly 0 marks a truth without a border


def border_weights(near: Tensor, weight: float) -> Tensor:
    """Pixel weights with mean 1, proportional to 1 + weight * near; `near` is the closeness to the border.

    The form of the U-Net paper's weight map (Ronneberger et al., 2015, equation 2) for the distance to one border.
    """
    weights = 1 + weight * near
    return weights / weights.mean()


def smoothed(truths: Tensor, smoothing: float) -> Tensor:
    """Targets moved towards one half: 0 becomes smoothing / 2, and 1 becomes 1 - smoothing / 2."""
    return truths * (1 - smoothing) + smoothing / 2
