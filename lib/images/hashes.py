"""Hashes of an image's pixels: an exact one, and one that hardly changes when the image is compressed or resized."""

import hashlib

import cv2
import numpy as np

THUMBNAIL = 64  # pixels a side
MOST_PLANES = 4  # the most that OpenCV resizes at once
BLOCK = 16  # lowest frequencies kept per axis
BITS = BLOCK * BLOCK - 1  # all but the mean
WEAKEST_FREQUENCY = 0.5  # gray levels; the signs of weaker frequencies are rounding and noise


def pixel_hash(image: np.ndarray) -> str:
    """Hexadecimal SHA-256 of an image's pixels and shape."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image)
    return digest.hexdigest()


def perceptual_hash(small: np.ndarray) -> str:
    """64 hexadecimal digits that hardly change when an image is compressed, resized, brightened or made noisy.

    The signs of the 255 lowest frequencies (discrete cosine transform) of the image's `thumbnail`; 255 rather than the
    usual 64, since dark microscopy with a few spots collides at 64. An image too plain to be distinguished, such as an
    empty slide, has the hash "", which matches no other.
    After Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010).
    """
    planes = np.ascontiguousarray(np.moveaxis(small, 2, 0))
    frequencies = cv2.dct(np.mean(planes, axis=0, dtype=np.float32))[:BLOCK, :BLOCK].ravel()[1:]
    if np.count_nonzero(np.abs(frequencies) < WEAKEST_FREQUENCY) > BITS // 2:
        return ""
    return np.packbits(frequencies > 0).tobytes().hex()


def thumbnail(image: np.ndarray) -> np.ndarray:
    """The image uint8 (height, width, channels) at 64 x 64 pixels, by the mean over areas."""
    parts = [image[:, :, first : first + MOST_PLANES] for first in range(0, image.shape[2], MOST_PLANES)]
    return np.concatenate([_shrunk(part).reshape(THUMBNAIL, THUMBNAIL, -1) for part in parts], axis=2)


def _shrunk(image: np.ndarray) -> np.ndarray:
    """An image of up to four planes at 64 x 64 pixels.

    Large ones are halved repeatedly first: for areas of 2 x 2 OpenCV has vector instructions, without which 1918 x 1280
    pixels take 5 times as long.
    """
    while min(image.shape[:2]) >= 4 * THUMBNAIL:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
