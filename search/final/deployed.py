"""The model as it is shipped: native wafer maps in, calibrated probabilities out, everything between inside."""

from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline.encode import Picture
from data_pipeline.wafer_set import FAIL, NO_DIE
from search.final.model_file import TrainedModel


class Encoder(nn.Module):
    """What `data_pipeline.encode` and `to_channels` do, in operations that a graph can hold.

    Args:
        picture: What a map becomes.
    """

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture

    def forward(self, maps: Tensor) -> Tensor:
        """Turn maps of one shape, (N, H, W) uint8 die codes, into network input, (N, 2, S, S) float32."""
        size, height, width = self.picture.image_size, maps.shape[1], maps.shape[2]
        fail, die = (maps == FAIL).float(), (maps != NO_DIE).float()
        if self.picture.aspect == "kept":
            # The map lies in the middle of a square: the same overlaps, on a grid that is larger than the map.
            side: Any = torch.sym_max(height, width)
            rows = _overlaps(height, side, size, offset=(side - height) // 2)
            columns = _overlaps(width, side, size, offset=(side - width) // 2)
            most, area = side / size, side * side
        else:
            rows, columns = _overlaps(height, height, size), _overlaps(width, width, size)
            most, area = torch.sym_max(height, width) / size, height * width
        fails, dies = (rows @ fail @ columns.mT) / area, (rows @ die @ columns.mT) / area
        if self.picture.encoding == "coverage":
            return _coverage(dies, fails)
        threshold = 0.499 / torch.sym_max(most, 1.0)
        has_die, has_fail = dies >= 0.499, fails >= threshold * dies
        return torch.stack([has_die & ~has_fail, has_die & has_fail], dim=1).float()


class Deployed(nn.Module):
    """Encoder, model and temperature in one.

    Args:
        trained: On the CPU.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.encoder = Encoder(trained.picture)
        self.model = trained.model
        self.temperature = trained.rule.temperature

    def forward(self, maps: Tensor) -> Tensor:
        """Turn maps of one shape, (N, H, W) uint8 die codes, into probabilities, (N, K) float32."""
        logits: Tensor = self.model(self.encoder(maps))
        return (logits / self.temperature).softmax(1)


def _coverage(die: Tensor, fail: Tensor) -> Tensor:
    """Round shares to 255ths as `encode_maps` does; see there for the 0.501."""
    dies, fails = torch.floor(255 * die + 0.501), torch.floor(255 * fail + 0.501)
    return torch.stack([dies - fails, fails], dim=1) / 255


def _overlaps(n_dies: int, n_all: int, n_pixels: int, *, offset: int = 0) -> Tensor:
    """How much each die covers of each pixel along one axis, shape (n_pixels, n_dies), as in `data_pipeline.encode`.

    Args:
        n_dies: Of the map.
        n_all: Cells that the pixels divide among themselves; more than dies where the map lies within a square.
        n_pixels: S.
        offset: Cells before the first die.
    """
    edges = torch.arange(n_pixels + 1, dtype=torch.int64) * n_all
    dies = (torch.arange(n_dies, dtype=torch.int64) + offset) * n_pixels
    overlap = torch.minimum(edges[1:, None], dies + n_pixels) - torch.maximum(edges[:-1, None], dies)
    return overlap.clamp(min=0).float()
