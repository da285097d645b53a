"""What a training batch is: augmented crops, their masks, and signed distances where the loss asks for them."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lib.base.errors import UserError
from lib.base.prefetch import THREADS
from lib.config.schema import Settings
from lib.data.competition import TrainingData
from lib.training.augment import build_augmentation, random_crop
from lib.training.losses import signed_distances

cv2.setNumThreads(0)  # OpenCV's threads would fight the loader's processes

MOST_WORKERS = 8

Batch = dict[str, torch.Tensor]


class ImageCache:
    """The images and masks read last, of some megabytes at most; each process has its own."""

    def __init__(self, megabytes: int) -> None:
        self.room, self.used = megabytes * 1_000_000, 0
        self.kept: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def get(self, image_id: str, read: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """The image and mask kept under an id, or what `read` gives, which is kept if there is room for it."""
        if image_id in self.kept:
            self.kept.move_to_end(image_id)
            return self.kept[image_id]
        both = read()
        if _bytes(both) <= self.room:
            self.kept[image_id] = both
            self.used += _bytes(both)
        while self.used > self.room:
            _, dropped = self.kept.popitem(last=False)
            self.used -= _bytes(dropped)
        return both


def _bytes(arrays: tuple[np.ndarray, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays)


class CropDataset(Dataset):
    """Augmented crops of some training images. An item depends on seed, epoch and index alone, not on the worker."""

    def __init__(
        self,
        data: TrainingData,
        ids: list[str],
        settings: Settings,
        crop: tuple[int, int],
        with_distances: bool,
        empty: np.ndarray | None = None,
    ) -> None:
        self.data = data
        self.ids = ids
        self.empty = empty  # which images have an empty mask, bool (ids,); asked for by train.empty_share
        self.crop = crop
        self.with_distances = with_distances
        self.crops_per_image = settings.train.crops_per_image
        self.cache = ImageCache(settings.train.cache_mb)
        self.foreground_share = settings.train.foreground_share
        self.seed = settings.train.seed
        self.augmentation = build_augmentation(settings.augment, crop[0] == crop[1], settings.data.channels)

    def __len__(self) -> int:
        return len(self.ids) * self.crops_per_image

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """One item: uint8 image (channels, H, W), uint8 mask (classes, H, W), float32 distances (classes, H, W)."""
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        image_id = self.ids[index % len(self.ids)]
        image, mask = self.cache.get(image_id, lambda: (self.data.read_image(image_id), self.data.read_mask(image_id)))
        image, mask = random_crop(image, mask, self.crop, self.foreground_share, generator)
        # the state and not a seed, to which albumentations would add the worker's own
        self.augmentation.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        changed = self.augmentation(image=image, mask=mask)
        item = {"images": to_tensor(changed["image"]), "masks": to_tensor(changed["mask"])}
        if self.with_distances:
            item["distances"] = torch.from_numpy(signed_distances(changed["mask"]))
        return item


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W, channels) array to a (channels, H, W) tensor."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled (epoch, index) keys, the same on every process; each process takes its own slice of them.

    `left_out[epoch]` images of those in `empty` (indices) have no turn in an epoch, others in each; nobody where it is
    not given.
    """

    def __init__(
        self, length: int, seed: int, process: int, processes: int, empty: np.ndarray = (), left_out: Sequence[int] = ()
    ) -> None:
        self.length = length
        self.seed = seed
        self.process = process
        self.processes = processes
        self.empty = empty
        self.left_out = left_out
        self.epoch = 0

    def __len__(self) -> int:
        return (self.length - self.left_out_now) // self.processes

    @property
    def left_out_now(self) -> int:
        return self.left_out[self.epoch] if self.left_out else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(self.length)
        order = order[~np.isin(order, random.permutation(self.empty)[: self.left_out_now])]
        share = order[: len(self) * self.processes]
        return iter([(self.epoch, int(index)) for index in share[self.process :: self.processes]])


def build_loader(
    dataset: CropDataset, settings: Settings, process: int, processes: int, device: torch.device
) -> DataLoader:
    """Batches of one epoch after another, for one of several processes; set `loader.sampler.epoch` before each."""
    empty, left_out = np.empty(0, int), []
    if settings.train.empty_share is not None:
        empty = np.flatnonzero(np.tile(dataset.empty, dataset.crops_per_image))
        solid = len(dataset) - len(empty)
        shares = np.linspace(*np.broadcast_to(settings.train.empty_share, 2), settings.train.epochs)
        left_out = [max(0, len(empty) - round(solid * share / (1 - share))) for share in shares]
    fewest = len(dataset) - max(left_out, default=0)
    if fewest == 0:
        raise UserError("all masks are empty, and train.empty_share leaves none of them to train on")
    sampler = EpochSampler(len(dataset), settings.train.seed, process, processes, empty, left_out)
    batch_size = min(settings.train.batch_size, fewest // processes)
    workers = settings.train.workers
    if workers is None:
        cores = THREADS // processes
        workers = cores // 4 if device.type == "cpu" else min(max(cores, 1), MOST_WORKERS)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=True,  # a last batch of one image breaks batch normalisation
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )


def batches(loader: DataLoader) -> Iterator[Batch]:
    """The loader's batches. Raises a worker's UserError with its own sentence, which torch buries in a traceback, and
    one where a worker was killed, as the kernel does for want of memory.
    """
    try:
        yield from loader
    except UserError as error:
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError("a loader process was killed, most likely for want of memory; lower train.workers") from None
