"""The literal table of architectures, and what can be asked of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.efficientnet import check_weights, efficientnet_b0
from models.errors import ModelError
from models.resnet import resnet18
from models.wafer_cnn import wafer_cnn
from models.wafer_resnet import wafer_resnet


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row of the table.

    Attributes:
        build: Factory with keyword arguments `n_classes` and the options, whose defaults are the model's own.
        min_image_size: Smallest side of the maps, in pixels, at which every layer still sees something.
        check: Called with the options before any trial, to fail early on what only shows in building.
    """

    build: Callable[..., nn.Module]
    min_image_size: int
    check: Callable[..., None] | None = None


MODELS: Mapping[str, Model] = {
    "wafer_cnn": Model(build=wafer_cnn, min_image_size=16),
    "wafer_resnet": Model(build=wafer_resnet, min_image_size=16),
    "resnet18": Model(build=resnet18, min_image_size=16),
    "efficientnet_b0": Model(build=efficientnet_b0, min_image_size=8, check=check_weights),
}


def build_model(name: str, *, n_classes: int, options: Mapping[str, Any], seed: int) -> nn.Module:
    """Build a network whose initial weights depend only on the arguments.

    Args:
        name: A key of MODELS.
        n_classes: K, the number of logits.
        options: The model's own options.
        seed: Decides the initial weights; the global random state is left as it was.

    Raises:
        ModelError: If an option is out of range or weights cannot be loaded.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[name].build(n_classes=n_classes, **options)
    return model.to(memory_format=torch.channels_last)


def check_model(name: str, *, options: Mapping[str, Any], image_size: int) -> None:
    """Check a model's options and build it once without memory.

    Raises:
        ModelError: With the reason.
    """
    model = MODELS[name]
    if image_size < model.min_image_size:
        raise ModelError(f"{name} needs an image_size of at least {model.min_image_size}; got {image_size}")
    if model.check is not None:
        model.check(**options)
    unloaded = {key: value for key, value in options.items() if key not in ("weights", "freeze")}
    with torch.device("meta"):
        model.build(n_classes=2, **unloaded)
