from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import efficientnet_b0


@pytest.fixture(scope="session")
def wafer_maps() -> Callable[..., Tensor]:
    """Draw round wafers with a third of their dies failing: shape (N, 2, S, S), float32, channels_last."""

    def draw(*, n: int = 4, size: int = 16) -> Tensor:
        across = torch.linspace(-1, 1, size)
        has_die = across[:, None] ** 2 + across[None, :] ** 2 <= 1
        fails = torch.rand(n, size, size, generator=torch.Generator().manual_seed(0)) < 1 / 3
        maps = torch.stack([has_die & ~fails, has_die & fails], dim=1)
        return maps.float().to(memory_format=torch.channels_last)

    return draw


@pytest.fixture(scope="session")
def backbone_state() -> dict[str, Tensor]:
    """A state dict of torchvision's EfficientNet-B0 in which no tensor, BatchNorm's included, is a default."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = efficientnet_b0(weights=None).state_dict()
    # What is not drawn at random (the biases, and BatchNorm's tensors) is the same in every new network.
    return {name: tensor + (tensor.dim() < 2) for name, tensor in state.items()}


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory, backbone_state: dict[str, Tensor]) -> Path:
    """A folder with these weights in backbone.pt."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(backbone_state, folder / "backbone.pt")
    return folder
