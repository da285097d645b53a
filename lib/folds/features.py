"""Image features from the first layers of a pretrained encoder, which show which images are of one scene.

The encoder is always the one whose weights come with requirements.txt, whatever the run trains. It sees thumbnails of
64 x 64 pixels, which costs 1.3 to 2 ms per image on one CPU core, plus the import of torch (docs/hidden_groups.md). Its
middle layers separate scenes better than its last ones, which tell what is in an image rather than where it was taken.
"""

import numpy as np
import torch

from lib.model.device import best_device
from lib.model.lite_features import LiteFeatures

BATCH = 64


class ImageEncoder:
    """Compute the features of images added one at a time; at most one batch of thumbnails is in memory.

    Raises UserError if the package with the weights is not installed.
    """

    def __init__(self) -> None:
        self.device = best_device()
        self.network = LiteFeatures(self.device)
        self._waiting: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(self, thumbnail: np.ndarray) -> None:
        """Take the next image's thumbnail, uint8 (64, 64, channels)."""
        planes = [min(plane, thumbnail.shape[2] - 1) for plane in range(3)]
        self._waiting.append(thumbnail[:, :, planes])
        if len(self._waiting) == BATCH:
            self._encode()

    def features(self) -> np.ndarray:
        """Features of all images added, in their order, float16 (images, 152)."""
        self._encode()
        return np.concatenate(self._features) if self._features else np.empty((0, 0), np.float16)

    @torch.inference_mode()
    def _encode(self) -> None:
        if not self._waiting:
            return
        pixels = torch.from_numpy(np.stack(self._waiting)).to(self.device).permute(0, 3, 1, 2)
        pooled = torch.cat([maps.mean(dim=(2, 3)) for maps in self.network(pixels)], dim=1)
        self._features.append(pooled.cpu().numpy().astype(np.float16))
        self._waiting.clear()
