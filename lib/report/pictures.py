"""Pictures for the page: images, maps and masks drawn small, as data URIs.

Colours are Okabe and Ito's, which colour-blind readers can tell apart: a false alarm is vermilion, a miss blue, the
true outline white.
"""

import base64

import cv2
import numpy as np

from lib.images.lazy_tif import Slide
from lib.masks.drawing import as_rgb, outlined, tinted
from lib.masks.metrics import known_only

SIDE = 288  # pixels of the longest side, up or down: 10 to 20 KB a picture
QUALITIES = (78, 60, 40, 20)  # of JPEG; the first one that is small enough is used
MOST_BYTES = 56_000  # bytes of a picture: 248 of them, in base64, are 18.5 MB
FALSE_ALARM, MISSED = (213, 94, 0), (0, 130, 220)  # the blue a little brighter than Okabe and Ito's, for dark images
TRUTH, PREDICTION = (0, 190, 135), (240, 228, 66)
OUTLINE = (255, 255, 255)
ERRORS_LEGEND = "orange: false alarm   blue: missed   white: outline of the truth"


def data_uri(picture: np.ndarray) -> str:
    """A picture, uint8 RGB, as JPEG; colour at full resolution, or thin outlines would blur."""
    for quality in QUALITIES:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        encoded = cv2.imencode(".jpg", picture[..., ::-1], options)[1]
        if len(encoded) <= MOST_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def fitted(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An image or map resized to `shape` (height, width), smoothly."""
    smooth = cv2.INTER_AREA if picture.shape[0] > shape[0] else cv2.INTER_CUBIC
    return cv2.resize(picture, shape[::-1], interpolation=smooth)


def fitted_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask uint8 0/1 resized to `shape` (height, width); it stays 0/1."""
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST)


def small_image(image: np.ndarray | Slide, side: int) -> np.ndarray:
    """An image (height, width, channels) as RGB uint8 of that longer side; its first three channels, or one as gray."""
    factor = side / max(image.shape[:2])
    height, width = (max(1, round(factor * length)) for length in image.shape[:2])
    if isinstance(image, Slide):
        image = image.resampled((min(height, image.shape[0]), min(width, image.shape[1])))
    return fitted(as_rgb(image), (height, width))


def stretched(picture: np.ndarray) -> np.ndarray:
    """A picture whose lowest and highest 0.5 % of the values are clipped, so that dark microscopy becomes visible."""
    low, high = np.percentile(picture, [0.5, 99.5])
    return np.clip((picture.astype(np.float32) - low) * (255 / max(high - low, 32)), 0, 255).astype(np.uint8)


def shown_image(image: np.ndarray | Slide) -> np.ndarray:
    """An image (height, width, channels) as RGB, small and stretched."""
    return stretched(small_image(image, SIDE))


def probability_picture(shown: np.ndarray, probability_map: np.ndarray) -> np.ndarray:
    """A map as colours from dark blue (0) to yellow (1), RGB, of the size of the small image."""
    return cv2.applyColorMap(fitted(probability_map, shown.shape[:2]), cv2.COLORMAP_CIVIDIS)[..., ::-1]


def mask_picture(shown: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The small image with one mask tinted and outlined."""
    mask = fitted_mask((mask == 1).view(np.uint8), shown.shape[:2])
    return tinted(shown, mask, colour)


def errors_picture(shown: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The small image, darkened and gray; false alarms and misses filled and outlined, the truth outlined white."""
    mask, truth = (fitted_mask(plane, shown.shape[:2]) for plane in known_only(mask, truth))
    gray = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((gray * 0.6).astype(np.uint8)[..., None], 3, axis=2)
    picture = outlined(picture, truth, OUTLINE)
    for wrong, colour in ((mask & ~truth & 1, FALSE_ALARM), (truth & ~mask & 1, MISSED)):
        picture = tinted(picture, wrong, colour, 0.65)
    return picture
