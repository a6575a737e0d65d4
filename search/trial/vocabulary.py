"""The words a configuration may use: the choices that trials make, and the options of each.

A configuration is flat. `model: wafer_cnn` makes a choice, `model.wafer_cnn.width: 32` sets an option of what was
chosen, and `model.wafer_cnn.lr: 1e-3` sets a field of the trial for the case that this was chosen.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np
import torch

from data_pipeline.augment import AUGMENTS
from data_pipeline.mixing import MIXINGS
from data_pipeline.sampling import SAMPLINGS
from models import MODELS, check_model
from search.trial.losses import LOSSES
from search.trial.optimization import OPTIMIZERS, SCHEDULES

Scalar = bool | int | float | str

CHOICES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "sampling": SAMPLINGS,
    "augment": AUGMENTS,
    "mixing": MIXINGS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "model": {name: model.build for name, model in MODELS.items()},
}


@cache
def options_of(choice: str, name: str) -> Mapping[str, Scalar]:
    """Return the options of one thing to choose, with their defaults.

    They are the keyword parameters of its factory that have a default; nothing else is declared anywhere.

    Example:
        >>> options_of("sampling", "power")
        {'alpha': 0.5}
    """
    parameters = inspect.signature(CHOICES[choice][name]).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def check_options(choice: str, name: str, options: Mapping[str, Scalar], *, image_size: int) -> None:
    """Try the options out on the real factory, without training anything.

    Args:
        choice: A key of CHOICES.
        name: What was chosen.
        options: Values for any of its options; the others keep their defaults.
        image_size: Pixels per side that the model would get.

    Raises:
        ValueError: If one of them is of the wrong type or outside its range; the message names it.
        ModelError: As ValueError, or if weights are unreachable.
    """
    for key, value in options.items():
        check_type(key, value, like=options_of(choice, name)[key])
    factory = CHOICES[choice][name]
    match choice:
        case "sampling":
            factory(np.array([2, 1]), **options)
        case "augment" | "mixing":
            factory(2, torch.Generator(), **options)
        case "loss":
            factory(torch.tensor([2, 1]), **options)
        case "optimizer":
            # A layer whose initial weights are not drawn: checking leaves the global random state alone.
            factory(torch.nn.BatchNorm1d(1), lr=1e-3, weight_decay=0.0, **options)
        case "schedule":
            factory(0.5, **options)
        case "model":
            check_model(name, options=options, image_size=image_size)


def check_type(key: str, value: Scalar, *, like: Scalar) -> None:
    """Check that `value` is of the type of `like`; an integer passes for a number.

    Raises:
        ValueError: With both types.
    """
    wanted: tuple[type, ...] = (float, int) if isinstance(like, float) else (type(like),)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise ValueError(f"{key} must be {describe_type(like)}; got {value!r}")


def describe_type(like: Scalar) -> str:
    """Say what type a value must have, for people."""
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[type(like)]


def nearest(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """Say what the user may have meant, and what there is."""
    close = get_close_matches(word, list(known), n=1)
    listed = f"known: {', '.join(sorted(known))}"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed
