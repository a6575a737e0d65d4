"""torchvision's EfficientNet-B0, for transfer from ImageNet."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import EfficientNet_B0_Weights
from torchvision.models import efficientnet_b0 as torchvision_efficientnet_b0

from models.errors import ModelError
from models.layers import check_range

FREEZES = ("none", "backbone")
# Mean and spread of ImageNet's colours, which the pretrained stem expects.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Transfer(nn.Module):
    """An ImageNet backbone on wafer maps, with a new head.

    The two channels become three (no die, pass, fail), normalised as ImageNet's colours are, and enlarged to the
    backbone's own input size: at 40 pixels EfficientNet would end in a 2x2 map.
    """

    def __init__(
        self, features: nn.Module, *, n_features: int, n_classes: int, input_size: int, dropout: float, frozen: bool
    ) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))
        self.input_size = input_size
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        if frozen:
            self.features.requires_grad_(False)

    def train(self, mode: bool = True) -> "Transfer":
        """Switch to training; a frozen backbone stays in evaluation, or its BatchNorm would drift."""
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to logits (N, K)."""
        coloured = torch.cat([1 - x.sum(1, keepdim=True), x], dim=1)
        enlarged = interpolate(coloured, size=(self.input_size, self.input_size), mode="nearest")
        features: Tensor = self.features((enlarged - self.mean) / self.std)
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def efficientnet_b0(
    *, n_classes: int, weights: str = "none", freeze: str = "none", input_size: int = 128, dropout: float = 0.2
) -> nn.Module:
    """Build the network.

    Args:
        n_classes: K.
        weights: "imagenet" (torchvision's own, loaded once and kept by torch), "none", or the path of a file with a
            torchvision EfficientNet-B0 state dict.
        freeze: "backbone" trains the new head only; "none" trains everything.
        input_size: Side to which the maps are enlarged, in pixels, in [32, 512].
        dropout: Share of the pooled features dropped in training, in [0, 0.9].

    Raises:
        ModelError: If an option is out of range, the weights cannot be loaded, or the backbone is frozen without any.
    """
    _check_options(weights=weights, freeze=freeze, input_size=input_size, dropout=dropout)
    backbone = torchvision_efficientnet_b0(weights=None)
    state = _read_weights(weights)
    if state is not None:
        _load(backbone, state, source=weights)
    return Transfer(
        backbone.features,
        n_features=backbone.classifier[1].in_features,
        n_classes=n_classes,
        input_size=input_size,
        dropout=dropout,
        frozen=freeze == "backbone",
    )


def check_weights(
    *, weights: str = "none", freeze: str = "none", input_size: int = 128, dropout: float = 0.2
) -> None:
    """Check the options and load the weights once, so that no trial starts if they are unreachable.

    Raises:
        ModelError: As `efficientnet_b0` does.
    """
    _check_options(weights=weights, freeze=freeze, input_size=input_size, dropout=dropout)
    state = _read_weights(weights)
    if state is not None:
        _load(torchvision_efficientnet_b0(weights=None), state, source=weights)


def _check_options(*, weights: str, freeze: str, input_size: int, dropout: float) -> None:
    check_range("input_size", input_size, low=32, high=512)
    check_range("dropout", dropout, low=0, high=0.9)
    if freeze not in FREEZES:
        raise ModelError(f"freeze must be one of {', '.join(FREEZES)}; got {freeze!r}")
    if freeze == "backbone" and weights == "none":
        raise ModelError("freeze 'backbone' without weights would train a head on noise; give weights or freeze: none")


def _read_weights(weights: str) -> dict[str, Any] | None:
    if weights == "none":
        return None
    try:
        if weights == "imagenet":
            state: dict[str, Any] = EfficientNet_B0_Weights.IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True
            )
            return state
        state = torch.load(Path(weights), map_location="cpu", weights_only=True)
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ModelError(f"weights {weights!r} are unreachable ({reason}); give the path of a file, or none") from None
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever the broken file leads it to
        raise ModelError(f"weights {weights!r} are not a state dict that loads safely ({error})") from None
    return state


def _load(backbone: nn.Module, state: dict[str, Any], *, source: str) -> None:
    try:
        missing, unexpected = backbone.load_state_dict(
            {key: value for key, value in state.items() if not key.startswith("classifier.")}, strict=False
        )
    except (RuntimeError, AttributeError) as error:
        raise ModelError(f"weights {source!r} do not fit EfficientNet-B0 ({str(error).splitlines()[-1].strip()})") from None
    lacking = [key for key in missing if not key.startswith("classifier.")]
    if lacking or unexpected:
        raise ModelError(
            f"weights {source!r} do not fit EfficientNet-B0 ({len(lacking)} tensors missing, {len(unexpected)} unknown)"
        )
