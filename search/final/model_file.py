"""One file that holds a trained model and everything it takes to use it; it loads without running any code."""

import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from data_pipeline.encode import Picture
from models import ModelError, build_model
from search.errors import ConfigError
from search.space.space import Config
from search.study.records import write_atomically
from search.trial.params import Precision, from_flat
from search.trial.prediction import Predictor
from search.trial.vocabulary import Scalar

_FORMAT = 2
_COPIED = ("on", "data_fingerprint", "split_fingerprint", "is_synthetic", "leaky")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """A model and what it was trained with.

    Attributes:
        model: Maps (N, 2, S, S), the channels of passing and failing dies, to logits (N, K).
        config: The flat configuration, every value.
        classes: Names of the K classes, in the order of the logits.
        picture: What `data_pipeline.encode` must make of a map for it.
        on: "train" or "train+val".
        data_fingerprint: Of all wafers of the data set.
        split_fingerprint: Of their division: its test part is unseen.
        is_synthetic: Whether it was trained on synthetic wafers.
        leaky: What must be said of their division; empty where its test part is new to the model.
    """

    model: Predictor
    config: Config
    classes: tuple[str, ...]
    picture: Picture
    on: str
    data_fingerprint: str
    split_fingerprint: str
    is_synthetic: bool
    leaky: str = ""

    @property
    def precision(self) -> Precision:
        """What it was trained to compute in, and is judged in."""
        precision: Precision = self.config["precision"]  # type: ignore[assignment]
        return precision


def save_model(trained: TrainedModel, path: Path) -> None:
    """Write a model atomically: tensors, numbers, words and lists of these, no pickled object."""
    content = {
        "format": _FORMAT,
        "config": dict(trained.config),
        "classes": list(trained.classes),
        "channels": ["passing dies", "failing dies"],
        **asdict(trained.picture),
        **{key: getattr(trained, key) for key in _COPIED},
        "state_dict": {name: tensor.cpu() for name, tensor in trained.model.state_dict().items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_model(path: Path) -> TrainedModel:
    """Read a model file, onto the CPU and in evaluation mode.

    Raises:
        ConfigError: If the file is missing, damaged, hostile, or of another format or architecture.
    """
    content = _read(path)
    try:
        config: dict[str, Scalar] = content["config"]
        # The file holds all tensors: what they grew from need not be there any more.
        grown = {key: "none" for key in config if key.endswith((".weights", ".freeze"))}
        params = from_flat(config | grown, where=str(path), image_size=content["image_size"])
        n_classes = len(content["classes"])
        network = build_model(params.model.name, n_classes=n_classes, options=params.model.options, seed=0)
        model = Predictor(network, shift=torch.zeros(n_classes), test_time=params.test_time)
        model.load_state_dict(content["state_dict"])
        return TrainedModel(
            model=model.eval(),
            config=config,
            classes=tuple(content["classes"]),
            picture=Picture(**{field.name: content[field.name] for field in fields(Picture)}),
            **{key: content[key] for key in _COPIED},
        )
    except (KeyError, TypeError, AttributeError, RuntimeError, ModelError) as error:
        raise ConfigError(f"{path}: does not fit this version ({_first_line(error)})") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; train it with `python -m search.retrain`") from None
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever a broken or hostile file leads it to
        raise ConfigError(f"{path}: is not a model file of ours, or damaged ({_first_line(error)})") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ConfigError(f"{path}: is not a model file of format {_FORMAT}")
    return content


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
