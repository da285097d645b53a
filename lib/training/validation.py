"""Validation: scores of the averaged weights on the images of the fold."""

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from lib.base.distributed import own_share
from lib.masks.metrics import count_images
from lib.model.device import prediction_precision
from lib.model.network import SegmentationNet
from lib.prediction.map_store import keep_highest
from lib.prediction.predictor import Predictor
from lib.training.fold_job import FoldJob


def validate(network: SegmentationNet, job: FoldJob, accelerator: Accelerator) -> tuple[float, int] | tuple[None, None]:
    """Score the validation images by the run's metric at the best threshold; return both, the threshold 1 to 255.

    At the best threshold rather than a fixed one, epochs and losses can be compared whatever their calibration. Without
    test-time augmentation, at the size at which the network sees the images. Several processes share the images.
    Both are None if no image is left out.
    """
    if not job.images.validation:
        return None, None
    if accelerator.num_processes > 1:
        for statistics in network.buffers():  # each process has its own; the first one's are saved
            torch.distributed.broadcast(statistics, src=0)
    one_view = job.settings.infer.model_copy(update={"tta": "none"})
    predictor = Predictor(
        [network], one_view, job.device, prediction_precision(job.precision, job.device), [f"fold {job.fold}"]
    )
    images, share = job.images.validated, own_share(job.images.validation)
    decided = keep_highest if job.data.settings.are_exclusive else np.asarray
    stream = (
        (image_id, decided(prediction.maps), images.read_mask(image_id))
        for image_id, prediction in predictor.predict(images, share)
    )
    parts = gather_object([count_images(stream, job.data.classes)] if share else [])
    tp, fp, fn = (np.concatenate([getattr(part, name) for part in parts]) for name in ("tp", "fp", "fn"))
    scores = job.metric.score(tp, fp, fn).mean(axis=0)
    return float(scores.max()), int(scores.argmax()) + 1
