"""One file that holds a trained model and everything it takes to use it; it loads without running any code."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.encode import Picture
from data_pipeline.errors import first_line
from models import ModelError, build_model
from search.errors import ConfigError
from search.space.space import Config
from search.study.checkpoints import save_tensors
from search.study.finding import find_study
from search.study.records import StudyFolder
from search.trial.decision import DecisionRule
from search.trial.params import Precision, TrialParams, from_flat
from search.trial.prediction import Ensemble, Predictor
from search.trial.vocabulary import Scalar

_FORMAT = 3
_COPIED = ("on", "data_fingerprint", "split_fingerprint", "is_synthetic", "leaky")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """A model and what it was trained with.

    Attributes:
        model: Maps (N, 2, S, S), the channels of passing and failing dies, to logits (N, K).
        config: The flat configuration, every value.
        seeds: Of the members, in their order.
        classes: Names of the K classes, in the order of the logits.
        picture: What `data_pipeline.encode` must make of a map for it.
        on: "train" or "train+val".
        data_fingerprint: Of all wafers of the data set.
        split_fingerprint: Of their division: its test part is unseen.
        is_synthetic: Whether it was trained on synthetic wafers.
        leaky: What must be said of their division; empty where its test part is new to the model.
        rule: How its logits are read.
        seen: `WaferSet.content` of the wafers that it learned from or was chosen by, ascending, uint64.
    """

    model: Ensemble
    config: Config
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    picture: Picture
    on: str
    data_fingerprint: str
    split_fingerprint: str
    is_synthetic: bool
    leaky: str = ""
    rule: DecisionRule = field(default_factory=DecisionRule)
    seen: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    @property
    def precision(self) -> Precision:
        """What it was trained to compute in, and is judged in."""
        precision: Precision = self.config["precision"]  # type: ignore[assignment]
        return precision

    @property
    def shares(self) -> NDArray[np.float64]:
        """Of the classes that its probabilities take for granted, shape (K,), sum 1."""
        return class_shares(self.model)

    @property
    def n_parameters(self) -> int:
        """Of all members together."""
        return sum(tensor.numel() for tensor in self.model.parameters())


def class_shares(model: Ensemble) -> NDArray[np.float64]:
    """Return the class shares that a model's probabilities take for granted, shape (K,), sum 1; it may be on a GPU."""
    members: list[Predictor] = list(model.members)  # type: ignore[arg-type]
    shares: NDArray[np.float64] = torch.stack([member.shares for member in members]).mean(0).double().cpu().numpy()
    return shares


def find_model(asked: str, *, results: Path) -> tuple[Path, StudyFolder | None]:
    """Find a model by its file, or the final one of a study; return the file, and the study if that was asked for.

    Raises:
        ConfigError: If there is neither.
    """
    if Path(asked).is_file():
        return Path(asked), None
    study = find_study(asked, results=results)
    return study.final / "model.pt", study


def save_model(trained: TrainedModel, path: Path) -> None:
    """Write a model atomically: tensors, numbers, words and lists of these, no pickled object."""
    content = {
        "format": _FORMAT,
        "config": dict(trained.config),
        "classes": list(trained.classes),
        "channels": ["passing dies", "failing dies"],
        **asdict(trained.picture),
        **{key: getattr(trained, key) for key in _COPIED},
        "seeds": list(trained.seeds),
        "rule": asdict(trained.rule),
        "seen": torch.from_numpy(trained.seen.view(np.int64)),
        "members": [_to_cpu(member) for member in trained.model.members],
    }
    save_tensors(content, path)


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
        classes = tuple(content["classes"])
        members = [_build(params, state, n_classes=len(classes)) for state in content["members"]]
        return TrainedModel(
            model=Ensemble(members).eval(),
            config=config,
            classes=classes,
            picture=Picture(**{field.name: content[field.name] for field in fields(Picture)}),
            rule=DecisionRule(**content["rule"] | {"shifts": tuple(content["rule"]["shifts"])}),
            seen=content["seen"].numpy().view(np.uint64),
            **{key: content[key] for key in _COPIED},
            seeds=tuple(content["seeds"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ModelError) as error:
        raise ConfigError(f"{path}: does not fit this version ({first_line(error)})") from None


def _build(params: TrialParams, state: dict[str, Any], *, n_classes: int) -> Predictor:
    network = build_model(params.model.name, n_classes=n_classes, options=params.model.options, seed=0)
    predictor = Predictor(network, shift=torch.zeros(n_classes), test_time=params.test_time)
    predictor.load_state_dict(state)
    return predictor


def _to_cpu(member: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in member.state_dict().items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; train it with `python -m search.retrain STUDY`") from None
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever a broken or hostile file leads it to
        raise ConfigError(f"{path}: is not a model file of ours, or damaged ({first_line(error)})") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ConfigError(f"{path}: is not a model file of format {_FORMAT}; train it anew with this version")
    return content
