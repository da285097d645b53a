"""Training batches: augmented crops, their masks, and signed distances where the loss asks for them."""

import os
import random
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lib.base import distributed
from lib.base.errors import UserError
from lib.config.schema import Settings
from lib.training.augment import augment, build_augmentation, random_crop, require_room
from lib.training.fold_images import FoldImages
from lib.training.fold_job import FoldJob
from lib.training.losses import signed_distances

cv2.setNumThreads(0)  # OpenCV's threads would fight the loader's processes

MOST_WORKERS = 16

Batch = dict[str, torch.Tensor]


class ImageCache:
    """The most recently read images and masks, up to some megabytes; each process has its own cache."""

    def __init__(self, megabytes: int) -> None:
        self.room, self.used = megabytes * 1_000_000, 0
        self.kept: OrderedDict[str, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def get(self, image_id: str, read: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """The cached image and mask of an id, or the result of `read`, which is then cached if it fits."""
        if image_id in self.kept:
            self.kept.move_to_end(image_id)
            return self.kept[image_id]
        pair = read()
        if _bytes(pair) <= self.room:
            self.kept[image_id] = pair
            self.used += _bytes(pair)
        while self.used > self.room:
            _, dropped = self.kept.popitem(last=False)
            self.used -= _bytes(dropped)
        return pair


def _bytes(arrays: tuple[np.ndarray, np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays)


class CropDataset(Dataset):
    """Augmented crops of some training images. An item depends on seed, epoch and index alone, not on the worker."""

    def __init__(self, images: FoldImages, settings: Settings, crop: tuple[int, int], with_distances: bool) -> None:
        self.images = images
        self.length = len(images.empty_turns)
        self.crop = crop
        self.with_distances = with_distances
        self.cache = ImageCache(settings.train.cache_mb)
        self.foreground_share = settings.train.foreground_share
        self.seed = settings.train.seed
        require_room(settings.augment, crop)
        self.augmentation = build_augmentation(settings.augment, crop[0] == crop[1], settings.data.network_channels)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """One item: uint8 image (channels, H, W), uint8 mask (classes, H, W), float32 distances (classes, H, W)."""
        epoch, index = key
        generator = np.random.default_rng((self.seed, epoch, index))
        image_id = self.images.id_of(epoch, index)
        image, mask = self.cache.get(image_id, lambda: self._read(image_id))
        image, mask = random_crop(image, mask, self.crop, self.foreground_share, generator)
        # the state and not a seed, to which albumentations would add the worker's own
        self.augmentation.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        image, mask = augment(self.augmentation, image, mask)
        item = {"images": to_tensor(image), "masks": to_tensor(mask)}
        if self.with_distances:
            item["distances"] = torch.from_numpy(signed_distances(mask))
        return item

    def _read(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        return self.images.source.read_image(image_id), self.images.source.read_mask(image_id)


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """(H, W, channels) array to a (channels, H, W) tensor."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


@dataclass(eq=False)
class EpochSampler(Sampler[tuple[int, int]]):
    """Shuffled (epoch, index) keys, the same on every process; each process takes its own slice of them.

    In each epoch `left_out[epoch]` of the crops in `empty` (indices) are left out, different ones each time.
    """

    length: int
    seed: int
    process: int
    processes: int
    empty: Sequence[int] = ()
    left_out: Sequence[int] = ()
    epoch: int = 0

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


def build_dataset(job: FoldJob, with_distances: bool) -> CropDataset:
    return CropDataset(job.images, job.settings, job.crop, with_distances)


def build_loader(job: FoldJob, with_distances: bool) -> DataLoader:
    """The loader of this process's share, which `batches` asks for one epoch after another.

    Its loader processes live as long as the loader.
    """
    settings, dataset = job.settings.train, build_dataset(job, with_distances)
    empty = np.flatnonzero(job.images.empty_turns)
    processes = distributed.NUMBER, distributed.COUNT
    workers = loader_processes(settings.workers, job.device)
    return DataLoader(
        dataset,
        batch_size=job.plan.batch_size,
        sampler=EpochSampler(len(dataset), settings.seed, *processes, empty, job.plan.left_out),
        drop_last=True,  # a last batch of one image breaks batch normalisation
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=job.device.type == "cuda",
        worker_init_fn=leave_interrupts_to_the_main_process,
    )


def leave_interrupts_to_the_main_process(_: int) -> None:
    """Ignore Ctrl-C in a loader process, which receives it as well and would print a traceback of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def loader_processes(setting: int | None, device: torch.device) -> int:
    """The setting; by default one per core, or on a CPU, which the network needs, one per four, up to MOST_WORKERS."""
    if setting is not None:
        return setting
    cores = cores_of_process()
    return min(cores // 4 if device.type == "cpu" else cores, MOST_WORKERS)


def cores_of_process() -> int:
    """This process's share of the cores that the training may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // distributed.COUNT_HERE)


def batches(loader: DataLoader, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch, counted from 0, which the loader's processes begin to make at once.

    Raises a worker's UserError with its own sentence, which torch buries in a traceback after the name of its class.
    """
    loader.sampler.epoch = epoch
    return _with_plain_errors(iter(loader))


def _with_plain_errors(stream: Iterator[Batch]) -> Iterator[Batch]:
    try:
        yield from stream
    except UserError as error:
        raise UserError(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None
