"""torchvision's EfficientNet-B0, for transfer from ImageNet."""

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import EfficientNet_B0_Weights
from torchvision.models import efficientnet_b0 as torchvision_efficientnet_b0

from models.errors import ModelError
from models.layers import check_choice, check_count, check_range

FREEZES = ("none", "backbone")
# Mean and spread of ImageNet's colours, which the pretrained stem expects.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Transfer(nn.Module):
    """An ImageNet backbone on wafer maps, with a new head.

    The two channels become three (no die, pass, fail), normalised as ImageNet's colours are, and enlarged to
    the backbone's own input size: at 40 pixels EfficientNet would end in a 2x2 map.

    Attributes:
        frozen: Whether only the head trains; what `embed` returns then never changes and may be kept.
        n_features: D, the width of what the head reads.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        features: nn.Module,
        *,
        n_features: int,
        n_classes: int,
        input_size: int,
        dropout: float,
        frozen: bool,
    ) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(n_features, n_classes))
        self.input_size = input_size
        self.n_features = n_features
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).reshape(1, 3, 1, 1), persistent=False)
        if frozen:
            self.features.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Transfer":
        """Switch to training; a frozen backbone stays in evaluation, or its BatchNorm would drift."""
        super().train(mode)
        if self.frozen:
            self.features.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to logits (N, K)."""
        logits: Tensor = self.head(self.embed(x))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Map (N, 2, S, S) to what the head reads, (N, D): the backbone's features, averaged over the picture."""
        coloured = torch.cat([1 - x.sum(1, keepdim=True), x], dim=1)
        enlarged = interpolate(coloured, size=(self.input_size, self.input_size), mode="nearest")
        features: Tensor = self.features((enlarged - self.mean) / self.std)
        return features.mean((2, 3))

    def fingerprint_backbone(self) -> str:
        """Name everything but the maps that `embed` depends on: the layers, their tensors and the input size."""
        digest = hashlib.sha256(f"{self.input_size} {_MEAN} {_STD} {self.features}".encode())
        for name, tensor in self.features.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def efficientnet_b0(
    *,
    n_classes: int,
    weights: str = "none",
    freeze: str = "none",
    input_size: int = 128,
    dropout: float = 0.2,
) -> Transfer:
    """Build the network.

    Args:
        n_classes: K.
        weights: "imagenet" (torchvision's own, downloaded once and kept by torch), "none", or the path of a file
            with a torchvision EfficientNet-B0 state dict, whose classifier is not used.
        freeze: "backbone" trains the new head only; "none" trains everything.
        input_size: Side to which the maps are enlarged, in pixels, in [32, 512]. At 32 the last map is 1x1, whose
            BatchNorm cannot train on a batch of one wafer.
        dropout: Share of the pooled features dropped in training, in [0, 0.9].

    Raises:
        ModelError: If an option is out of range, the weights cannot be loaded, or the backbone is frozen
            without any.

    Source:
        Tan and Le 2019, EfficientNet, arXiv:1905.11946.
    """
    _check_options(weights=weights, freeze=freeze, input_size=input_size, dropout=dropout)
    backbone = torchvision_efficientnet_b0(weights=None)
    if weights != "none":
        _load(backbone, weights)
    return Transfer(
        backbone.features,
        n_features=backbone.classifier[1].in_features,
        n_classes=n_classes,
        input_size=input_size,
        dropout=dropout,
        frozen=freeze == "backbone",
    )


def check_weights(*, image_size: int, weights: str, freeze: str, input_size: int, dropout: float) -> None:
    """Check the options, then load the weights once, so that no trial starts if they are unreachable.

    Args:
        image_size: Side of the maps, in pixels; at most input_size.
        weights: As in `efficientnet_b0`, and so are the others.
        freeze: See there.
        input_size: See there.
        dropout: See there.

    Raises:
        ModelError: As `efficientnet_b0` does, or if the maps would have to shrink.
    """
    _check_options(weights=weights, freeze=freeze, input_size=input_size, dropout=dropout)
    if input_size < image_size:
        raise ModelError(
            f"input_size must be at least the image_size of {image_size}, or dies would be lost; got {input_size}"
        )
    if weights != "none":
        with torch.device("meta"):
            backbone = torchvision_efficientnet_b0(weights=None)
        _load(backbone, weights)


def _check_options(*, weights: str, freeze: str, input_size: int, dropout: float) -> None:
    check_count("input_size", input_size, low=32, high=512)
    check_range("dropout", dropout, low=0, high=0.9)
    check_choice("freeze", freeze, known=FREEZES)
    if not isinstance(weights, str | PathLike):
        raise ModelError(f"weights must be imagenet, none or the path of a file; got {weights!r}")
    if freeze == "backbone" and weights == "none":
        raise ModelError("freeze 'backbone' without weights would train a head on noise; give weights or freeze: none")


def _load(backbone: nn.Module, weights: str) -> None:
    """Load all but the classifier; a backbone on the meta device only finds out whether that would work."""
    state = _read_weights(weights)
    names = {str(key): value for key, value in state.items()}
    kept = {key: value for key, value in names.items() if not key.startswith("classifier.")}
    on_meta = next(backbone.parameters()).is_meta
    try:
        # Copying keeps the backbone's type and layout; into meta tensors it is impossible, and torch warns.
        missing, unexpected = backbone.load_state_dict(kept, strict=False, assign=on_meta)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"weights {weights!r} do not fit EfficientNet-B0 ({reason})") from None
    lacking = [key for key in missing if not key.startswith("classifier.")]
    if lacking or unexpected:
        counts = f"{len(lacking)} tensors missing, {len(unexpected)} unknown"
        raise ModelError(f"weights {weights!r} do not fit EfficientNet-B0 ({counts})")


def _read_weights(weights: str) -> Mapping[str, Any]:
    try:
        if weights == "imagenet":
            # torch checks the hash of a download only, so the kept file is read as any other.
            state = EfficientNet_B0_Weights.IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True, map_location="cpu", weights_only=True
            )
        else:
            state = torch.load(Path(weights), map_location="cpu", weights_only=True)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ModelError(f"weights {weights!r} are unreachable ({reason}); give the path of a file, or none") from None
    except UnpicklingError:  # whose message advises to load the file unsafely
        raise ModelError(
            f"weights {weights!r} are not a state dict that loads safely; save one with torch.save"
        ) from None
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever the broken file leads it to
        raise ModelError(f"weights {weights!r} cannot be read ({error!r})") from None
    if not isinstance(state, Mapping):
        raise ModelError(f"weights {weights!r} are not a state dict but a {type(state).__name__}")
    return state
