"""Image features from the first layers of a pretrained encoder, which show which images are of one scene.

The encoder is always the one whose weights come with requirements.txt, whatever the run trains. It sees thumbnails of
64 x 64 pixels, which costs 1.5 ms per image on one CPU core, plus the import of torch (docs/hidden_groups.md). Its
middle layers separate scenes better than its last ones, which tell what is in an image rather than where it was taken.
"""

import numpy as np
import timm
import torch

from lib.data.duplicates import THUMBNAIL
from lib.model.device import best_device
from lib.model.encoder_weights import imagenet_weights, normalisation
from lib.model.folded_norms import fold_norms

ENCODER = "tf_efficientnet_lite0"
MIDDLE, DEEPER = 3, 5  # blocks after which feature maps are averaged: 40 channels at stride 8, 112 at stride 16
BATCH = 64


class ImageEncoder:
    """Compute the features of images added one at a time; at most one batch of thumbnails is in memory.

    Raises UserError if the package with the weights is not installed.
    """

    def __init__(self) -> None:
        tensors, _ = imagenet_weights(ENCODER)
        network = timm.create_model(ENCODER)
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
        self.device = best_device()
        shallow = torch.nn.Sequential(network.conv_stem, network.bn1, *network.blocks[:MIDDLE])
        self.layers = torch.nn.Sequential(shallow, network.blocks[MIDDLE:DEEPER]).eval().to(self.device)
        fold_norms(self.layers, torch.zeros(1, 3, THUMBNAIL, THUMBNAIL, device=self.device))
        mean, std = normalisation(network)
        self.mean, self.std = (255 * torch.tensor(values).view(1, -1, 1, 1).to(self.device) for values in (mean, std))
        self.ids: list[str] = []
        self._waiting: list[np.ndarray] = []
        self._features: list[np.ndarray] = []

    def add(self, image_id: str, thumbnail: np.ndarray) -> None:
        """Take an image's thumbnail, uint8 (64, 64, channels)."""
        planes = [min(plane, thumbnail.shape[2] - 1) for plane in range(3)]
        self.ids.append(image_id)
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
        shallow, deep = self.layers
        middle = shallow(((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([maps.mean(dim=(2, 3)) for maps in (middle, deep(middle))], dim=1)
        self._features.append(pooled.cpu().numpy().astype(np.float16))
        self._waiting.clear()
