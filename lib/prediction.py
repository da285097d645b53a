"""Probability maps of whole images: batches of equal size, flips, and the average over networks."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from lib.device import autocast, is_out_of_memory
from lib.errors import UserError
from lib.maps import MapStore, to_map
from lib.models import SegmentationNet
from lib.parallel import THREADS, prefetched

FLIPS = {"none": [()], "hflip": [(), (3,)], "flips": [(), (3,), (2,), (2, 3)]}
MAX_BATCH_PIXELS = 1 << 22  # a batch of larger images is smaller, so that memory is bounded by this and not by the data


class Predictor:
    """Networks whose averaged probabilities are the prediction, on one device in one precision."""

    def __init__(
        self, networks: list[SegmentationNet], tta: str, batch_size: int, device: torch.device, precision: str
    ) -> None:
        self.networks = [network.to(device).eval() for network in networks]
        self.flips = FLIPS[tta]
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def predict(self, read_image: Callable[[str], np.ndarray], ids: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (id, uint8 map (height, width, classes)) of each image, at its own size, in order of completion."""
        images = prefetched(read_image, ids, ahead=2 * self.batch_size)
        for batch in batches_of_equal_size(images, self.batch_size):
            maps = self.predict_batch(np.stack([image for _, image in batch]))
            yield from ((image_id, one) for (image_id, _), one in zip(batch, maps, strict=True))

    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        """uint8 images (batch, height, width, channels) to uint8 maps (batch, height, width, classes).

        Where the memory does not hold a batch, this and all later ones are halved until it does. Raises UserError
        where it does not hold one image.
        """
        size = min(self.batch_size, len(images))
        try:
            parts = [self._predict_at_once(images[start : start + size]) for start in range(0, len(images), size)]
            return np.concatenate(parts)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                shape = " x ".join(map(str, images.shape[1:3]))
                raise UserError(f"out of memory: one image of {shape} pixels is too large for this machine") from None
        self.batch_size = size // 2  # here, where what the failed batch held is free again
        return self.predict_batch(images)

    @torch.inference_mode()
    def _predict_at_once(self, images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device, non_blocking=True)
        total = 0
        for network in self.networks:
            for axes in self.flips:
                with autocast(self.device, self.precision):
                    logits = network(pixels.flip(axes) if axes else pixels)
                probabilities = logits.float().sigmoid()
                total = total + (probabilities.flip(axes) if axes else probabilities)
        mean = total / (len(self.networks) * len(self.flips))
        return to_map(mean.permute(0, 2, 3, 1).cpu().numpy())


def batches_of_equal_size(
    images: Iterable[tuple[str, np.ndarray]], batch_size: int
) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Group a stream of (id, image) into batches of one shape, holding back at most four batches of images."""
    waiting: dict[tuple, list] = {}
    for image_id, image in images:
        batch = waiting.setdefault(image.shape, [])
        batch.append((image_id, image))
        if len(batch) >= min(batch_size, max(1, MAX_BATCH_PIXELS // (image.shape[0] * image.shape[1]))):
            yield waiting.pop(image.shape)
        elif sum(map(len, waiting.values())) >= 4 * batch_size:
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def predict_to_store(
    predictor: Predictor, read_image: Callable[[str], np.ndarray], ids: list[str], store: MapStore
) -> Iterator[str]:
    """Predict the images and write their maps while the next ones are computed; yield each id once it is handed over.

    Raises what a write raised (a full disk, say) before the next map is handed over.
    """
    with ThreadPoolExecutor(THREADS) as writers:
        waiting = deque()
        for image_id, probability_map in predictor.predict(read_image, ids):
            waiting.append(writers.submit(store.write, image_id, probability_map))
            if len(waiting) > 2 * predictor.batch_size:
                waiting.popleft().result()
            yield image_id
        for write in waiting:
            write.result()
