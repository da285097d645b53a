"""Probability maps of whole images: batches of equal size, windows of large images, views, averages over networks."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

import numpy as np
import torch

from lib.base.distributed import is_first
from lib.base.errors import UserError
from lib.base.prefetch import THREADS, prefetched
from lib.config.schema import InferSettings
from lib.data.images import Images
from lib.data.network_input import as_network_sees
from lib.model.device import autocast, is_out_of_memory, pool_sharing_cores
from lib.model.network import SegmentationNet, logits_of
from lib.prediction.map_store import MapStore, Prediction
from lib.prediction.sliding_window import LargeImage, blended_map

FLIPS = [(), (3,), (2,), (2, 3)]  # axes of (batch, channels, height, width)
TTA_VIEWS = {  # of infer.tta: whether height and width are exchanged, and then the axes that are flipped
    "none": [(False, ())],
    "hflip": [(False, axes) for axes in FLIPS[:2]],
    "flips": [(False, axes) for axes in FLIPS],
    "d4": [(is_transposed, axes) for is_transposed in (False, True) for axes in FLIPS],
}
MAX_BATCH_PIXELS = 1 << 22  # a batch of larger images is smaller, so that memory is bounded by this and not by the data


class OutOfMemory(UserError):
    """The memory does not hold one image, or one window of it."""


class ImageSource(Protocol):
    """A source of images, such as TrainingData and TestData."""

    def image_size(self, image_id: str) -> tuple[int, int]: ...
    def read_image(self, image_id: str) -> np.ndarray: ...
    def open_image(self, image_id: str) -> LargeImage: ...


class BatchProbabilities(NamedTuple):
    """Probabilities from 0 to 1 of a batch of images, float32, on the device of the networks."""

    pixels: torch.Tensor  # (batch, height, width, classes)
    presence: torch.Tensor | None  # (batch, classes), where the networks have a head for it

    def predictions(self) -> list[Prediction]:
        """The same of each image, in steps of 1/255."""
        presence = [None] * len(self.pixels) if self.presence is None else _as_uint8(self.presence)
        return [Prediction(*of_image) for of_image in zip(_as_uint8(self.pixels), presence, strict=True)]


def _as_uint8(probabilities: torch.Tensor) -> np.ndarray:
    """`to_map` on the device of the probabilities: a quarter of the bytes leaves a GPU."""
    return (probabilities * 255).round().to(torch.uint8).cpu().numpy()


class BrokenLogits(NamedTuple):
    """Infinite or NaN logits: the positions of the network and the image in their lists."""

    network: int
    image: int


class Predictor:
    """Networks whose averaged probabilities are the prediction, on one device in one precision.

    `names` of the networks are for messages, such as `fold 3`.
    """

    def __init__(
        self,
        networks: list[SegmentationNet],
        settings: InferSettings,
        device: torch.device,
        precision: str,
        names: Sequence[str] | None = None,
    ) -> None:
        self.networks = [network.to(device).eval() for network in networks]
        self.names = names or [f"model {number}" for number in range(len(networks))]
        self.settings = settings
        self.batch_size = settings.batch_size
        self.device = device
        self.precision = precision
        self.overflowing: set[int] = set()  # networks that have been reported
        self.workers = min(torch.get_num_threads(), settings.batch_size) if device.type == "cpu" else 1
        self.pool = pool_sharing_cores(self.workers) if self.workers > 1 else None

    def predict(self, images: ImageSource, ids: Iterable[str]) -> Iterator[tuple[str, Prediction]]:
        """Yield (id, prediction) of each image, its maps at the size at which it is read, in order of completion.

        Images larger than the window come last, one at a time.
        """
        large, small = [], []
        for image_id in ids:
            is_large = max(images.image_size(image_id)) > self.settings.window
            (large if is_large else small).append(image_id)
        read = prefetched(images.read_image, small, ahead=2 * self.batch_size)
        for batch in batches_of_equal_size(read, self.batch_size):
            ids = [image_id for image_id, _ in batch]
            probabilities = self.predict_batch(np.stack([image for _, image in batch]), ids)
            yield from zip(ids, probabilities.predictions(), strict=True)
        for image_id in large:
            yield image_id, self.predict_windows(images.open_image(image_id), image_id)

    def predict_image(self, image: np.ndarray) -> Prediction:
        """Predict a uint8 image (height, width, channels), by windows if it is large."""
        if max(image.shape[:2]) > self.settings.window:
            return self.predict_windows(image)
        return self.predict_batch(image[None]).predictions()[0]

    def predict_windows(self, image: LargeImage, image_id: str = "") -> Prediction:
        """Predict a uint8 image (height, width, channels) by windows that overlap.

        A class is as present in the image as in the window that is surest of it: an image holds what any part holds.
        Raises UserError where the window is too small for the network's stride.
        """
        stride = max(network.stride for network in self.networks)
        window, overlap = whole_strides(self.settings, stride)
        on_gpu = self.device.type != "cpu"  # a CPU gains nothing by several large windows at once
        batch_size = max(1, min(self.batch_size, MAX_BATCH_PIXELS // window**2)) if on_gpu else 1
        presences = []

        def predict(crops: np.ndarray) -> np.ndarray:
            pixels, presence = self.predict_batch(crops, [image_id] * len(crops))
            presences.append(presence)
            return pixels.cpu().numpy()

        maps = blended_map(image, predict, window, overlap, stride, batch_size)
        return Prediction(maps, None if presences[0] is None else _as_uint8(torch.cat(presences).amax(dim=0)))

    def predict_batch(self, images: np.ndarray, ids: Sequence[str] = ()) -> BatchProbabilities:
        """The probabilities of uint8 images (batch, height, width, channels), averaged over networks and views.

        Where the memory does not hold a batch, this and all later ones are halved until it does. Raises
        OutOfMemory where it does not hold one image, and UserError for logits that are infinite or not a number.
        """
        at_once = min(self.batch_size, len(images))
        is_shared = 1 < self.workers <= at_once
        size = math.ceil(at_once / self.workers) if is_shared else at_once
        parts = [slice(start, start + size) for start in range(0, len(images), size)]
        pool = self.pool if is_shared else None
        try:
            predicted = _called(pool, lambda part: self._predict_finite(images[part], ids[part]), parts)
            pixels, presence = zip(*predicted, strict=True)
            return BatchProbabilities(torch.cat(pixels), None if presence[0] is None else torch.cat(presence))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if at_once == 1:
                shape = " x ".join(map(str, images.shape[1:3]))
                raise OutOfMemory(
                    f"out of memory: one image of {shape} pixels is too large for this machine; lower infer.window"
                ) from None
        self.batch_size = at_once // 2  # here, where what the failed batch held is free again
        return self.predict_batch(images, ids)

    def _predict_finite(self, images: np.ndarray, ids: Sequence[str]) -> BatchProbabilities:
        """Predict at once, and again in float32 where a network overflows in half precision.

        Otherwise the pixels that overflow would become probabilities of 0 and 1. Raises UserError where float32 does
        not help: weights that are damaged, or of a training that diverged.
        """
        probabilities, broken = self._predict_at_once(images, self.precision)
        if broken is not None and self.precision != "fp32":
            if is_first() and broken.network not in self.overflowing:
                print(
                    f"warning   {self._place(broken, ids)} overflows in {self.precision}; this and others like it are "
                    "predicted in fp32"
                )
            self.overflowing.add(broken.network)
            probabilities, broken = self._predict_at_once(images, "fp32")
        if broken is not None:
            raise UserError(
                f"{self._place(broken, ids)} gives logits that are infinite or not a number, in fp32 too: its weights "
                "are damaged, or its training diverged; train it again with a lower train.lr (02_train.py --restart)"
            )
        return probabilities

    def _place(self, broken: BrokenLogits, ids: Sequence[str]) -> str:
        image = ids[broken.image] if ids else str(broken.image)  # "" of an array that is no image of a data set
        return self.names[broken.network] + (f" on image {image}" if image else "")

    @torch.inference_mode()
    def _predict_at_once(self, images: np.ndarray, precision: str) -> tuple[BatchProbabilities, BrokenLogits | None]:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device, non_blocking=True)
        (height, width), margin = pixels.shape[2:], self.settings.margin
        pixels = pixels[:, :, mirrored(height, margin, self.device)][..., mirrored(width, margin, self.device)]
        total, presences, views = 0, [], TTA_VIEWS[self.settings.tta]
        finite = torch.ones(len(self.networks), len(images), dtype=torch.bool, device=self.device)
        for is_transposed, axes in views:
            view = _transposed(pixels, is_transposed).flip(axes)
            for number, network in enumerate(self.networks):
                with autocast(self.device, precision):
                    logits, presence = logits_of(network(view))
                finite[number] &= logits.isfinite().flatten(1).all(dim=1)
                total = total + _transposed(self._to_average(logits).flip(axes), is_transposed)
                if presence is not None:
                    finite[number] &= presence.isfinite().all(dim=1)
                    presences.append(self._to_average(presence))
        count = len(views) * len(self.networks)
        mean = self._averaged(total[..., margin : margin + height, margin : margin + width] / count)
        mean_presence = self._averaged(sum(presences) / count) if presences else None
        broken = (~finite).nonzero().tolist()
        probabilities = BatchProbabilities(mean.permute(0, 2, 3, 1), mean_presence)
        return probabilities, BrokenLogits(*broken[0]) if broken else None

    def _to_average(self, logits: torch.Tensor) -> torch.Tensor:
        """What is averaged over views and networks, by infer.average: logits, or their probabilities."""
        return logits.float() if self.settings.average == "logits" else logits.float().sigmoid()

    def _averaged(self, mean: torch.Tensor) -> torch.Tensor:
        """The probabilities of that mean."""
        return mean.sigmoid() if self.settings.average == "logits" else mean


def _called(pool: ThreadPoolExecutor | None, function: Callable, items: list) -> list:
    """The results of a function, in threads if there is a pool; after an error none of them is running any more."""
    if pool is None:
        return [function(item) for item in items]
    futures = [pool.submit(function, item) for item in items]
    wait(futures)
    return [future.result() for future in futures]


def mirrored(length: int, margin: int, device: torch.device) -> torch.Tensor:
    """Indices 0 ... length - 1 with `margin` more on each side, mirrored at the ends, as often as it takes."""
    places = torch.arange(-margin, length + margin, device=device).remainder(2 * length)
    return torch.minimum(places, 2 * length - 1 - places)


def _transposed(tensor: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    """The images mirrored along their diagonal, if asked; twice gives them back."""
    return tensor.transpose(2, 3) if is_transposed else tensor


def whole_strides(settings: InferSettings, stride: int) -> tuple[int, int]:
    """The window and the overlap in pixels, of whole strides. Raises UserError where a window holds less than two."""
    window = settings.window // stride * stride
    if window < 2 * stride:
        least = math.ceil(2 * stride / 256) * 256
        raise UserError(
            f"infer.window={settings.window} is too small for this network, which works in steps of {stride} pixels: "
            f"images larger than that need infer.window={least} or more"
        )
    return window, min(math.ceil(window * settings.overlap / stride), window // (2 * stride)) * stride


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


def predict_own_size(predictor: Predictor, images: Images, ids: Iterable[str]) -> Iterator[tuple[str, Prediction]]:
    """Yield (id, prediction) as Predictor.predict does, maps at the images' own sizes whatever data.resize says.

    Maps are resized as uint8: as floats no more is held than the network has seen.
    """
    for image_id, prediction in predictor.predict(as_network_sees(images), ids):
        yield image_id, prediction.at_size(images.image_size(image_id))


def predict_to_store(predictor: Predictor, images: Images, ids: list[str], store: MapStore) -> Iterator[str]:
    """Predict the images and write their maps while the next ones are computed; yield each id once it is handed over.

    Raises what a write raised (a full disk, say) before the next map is handed over.
    """
    with ThreadPoolExecutor(THREADS) as writers:
        waiting = deque()
        for image_id, prediction in predict_own_size(predictor, images, ids):
            waiting.append((writers.submit(store.write, image_id, *prediction), prediction.maps.size))
            while sum(size for _, size in waiting) > MAX_BATCH_PIXELS:
                waiting.popleft()[0].result()
            yield image_id
        for write, _ in waiting:
            write.result()
