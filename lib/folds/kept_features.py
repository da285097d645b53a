"""The features of a data set's images in a file, so that they are made once: 01 keeps them, 03 reads them."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lib.base.files import atomic_path
from lib.base.prefetch import prefetched
from lib.base.progress import progress
from lib.data.images import Images
from lib.images.hashes import thumbnail

if TYPE_CHECKING:
    from lib.folds.features import ImageEncoder


HOW_MADE = b"tf_efficientnet_lite0, values -1 to 1"  # features of other versions are made again


def read_features(path: Path, data: Images) -> np.ndarray | None:
    """The features that `write_features` kept for just these files, in the order of `data.ids`; None if there are none.

    Files count as the same by path, size and time of the last change.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            return kept["features"] if str(kept["files"]) == files_digest(data) else None
    except Exception:  # absent or damaged: numpy raises whatever its parsers stumble over
        return None


def write_features(path: Path, data: Images, features: np.ndarray) -> None:
    """Keep the features of all images, in the order of `data.ids`: 304 bytes an image."""
    with atomic_path(path) as temporary:
        np.savez(temporary, features=features, files=files_digest(data))


def image_features(path: Path, data: Images) -> np.ndarray:
    """The features of all images, float16 (images, 152), read from `path` or made and kept there."""
    kept = read_features(path, data)
    if kept is not None:
        return kept
    features = encoded(data).features()
    write_features(path, data, features)
    return features


def encoded(data: Images) -> "ImageEncoder":
    """An encoder that has seen all images in the order of `data.ids`."""
    from lib.folds.features import ImageEncoder  # loads torch

    encoder = ImageEncoder()
    thumbnails = prefetched(lambda image_id: thumbnail(data.read_image(image_id)), data.ids)
    for _, small in progress("image features", thumbnails, len(data.ids)):
        encoder.add(small)
    return encoder


def files_digest(data: Images) -> str:
    """SHA-256 of how features are made, of the ids, and of the paths, sizes and times of the files."""
    digest = hashlib.sha256(HOW_MADE)
    for image_id in data.ids:
        for path in data.files[image_id]:
            status = Path(path).stat()
            digest.update(repr((image_id, path, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()
