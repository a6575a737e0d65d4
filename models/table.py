"""The literal table of architectures, and what can be asked of each."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, signature
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
        check: Called with `image_size` and every option, to fail before any trial on what building without
            memory would not show. None where that shows everything.
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


def options_of(name: str) -> Mapping[str, Parameter]:
    """Look up the options of a model, with their types and defaults, in the order of its signature.

    Args:
        name: A key of MODELS.

    Raises:
        ModelError: If there is no such model, with the nearest name.

    Example:
        >>> [f"{option.name}={option.default}" for option in options_of("resnet18").values()]
        ['dropout=0.0']
    """
    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}; {_known(name, MODELS)}")
    parameters = dict(signature(MODELS[name].build).parameters)
    del parameters["n_classes"]
    return parameters


def build_model(name: str, *, n_classes: int, options: Mapping[str, Any], seed: int) -> nn.Module:
    """Build a network whose initial weights depend only on the arguments.

    Args:
        name: A key of MODELS.
        n_classes: K, the number of logits.
        options: The model's own options; those left out have their defaults.
        seed: Decides the initial weights; the global random state is left as it was.

    Returns:
        The network on the CPU, in training mode, its memory in channels_last order.

    Raises:
        ModelError: If there is no such model or option, an option is out of range, or weights cannot be loaded.
    """
    _check_names(name, options)
    # torch.manual_seed would reseed the accelerators too, and forking those would start a context on each.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = MODELS[name].build(n_classes=n_classes, **options)
    return model.to(memory_format=torch.channels_last)


def check_model(name: str, *, options: Mapping[str, Any], image_size: int) -> None:
    """Find out whether a model could be built and fed, at little cost: what is built takes no memory.

    Args:
        name: A key of MODELS.
        options: The model's own options; those left out have their defaults.
        image_size: Side of the maps, in pixels.

    Raises:
        ModelError: As `build_model` does, or if the maps are too small or too large for the model.
    """
    _check_names(name, options)
    model = MODELS[name]
    if image_size < model.min_image_size:
        raise ModelError(f"{name} needs an image_size of at least {model.min_image_size}; got {image_size}")
    if model.check is not None:
        defaults = {option.name: option.default for option in options_of(name).values()}
        model.check(image_size=image_size, **(defaults | dict(options)))
    else:
        with torch.device("meta"):
            model.build(n_classes=2, **options)


def _check_names(name: str, options: Mapping[str, Any]) -> None:
    known = options_of(name)
    for option in options:
        if option not in known:
            raise ModelError(f"{name} has no option {option!r}; {_known(option, known)}")


def _known(name: str, names: Collection[str]) -> str:
    """Say which names there are, and which of them is nearest if one is near."""
    nearest = get_close_matches(str(name), names, n=1)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{suggestion}(known: {', '.join(sorted(names))})"
