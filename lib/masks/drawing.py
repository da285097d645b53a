"""Drawing masks onto images, uint8 RGB (height, width, 3)."""

import cv2
import numpy as np


def tinted(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], share: float = 0.3) -> np.ndarray:
    """A copy with a colour blended over the mask, with opacity `share` (0 to 1), and its outline in that colour."""
    mixed = picture.copy()
    mixed[mask > 0] = (1 - share) * picture[mask > 0] + share * np.array(colour)
    return outlined(mixed, mask, colour)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """The first three channels of an image uint8 (height, width, channels), or the first one as gray."""
    return np.ascontiguousarray(image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2))


def outlined(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A copy with the mask's outline, one pixel wide and inside it."""
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture.copy(), contours, -1, colour, 1)
