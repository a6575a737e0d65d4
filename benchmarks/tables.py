"""Recorded trainings as tasks for a search: other people's tables and curves, our own wafer table, a made-up corner.

A task has a space and makes plays. A play is one search's recording, see `search.simulation`: it knows which row each
trial got, what that row is truly worth, and which of its repetitions nobody has seen. The layouts are described in
shared/README.md (hpo_tables.npz) and in record_table.py (wafer_table.npz).
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import TrialFailed
from search.simulation import CLASSES, Step, accept_any, report_score
from search.space.config import DataConfig, ResourcesConfig, SearchConfig, StudyConfig
from search.space.objective import Objective
from search.space.space import Branch, Choice, Constant, Node, Range, Space, Suggestions
from search.study.study import Assignment
from search.testing import report_judgement
from search.trial.evaluation import Judgement
from search.trial.metrics import score_confusion
from search.trial.params import from_flat
from search.trial.vocabulary import Scalar

# Whether more is better, and the grid of each column: how many values in order, or names in no order.
_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_ACTIVATION = ("relu", "tanh")
_SUITES: Mapping[str, tuple[bool, Mapping[str, int | tuple[str, ...]]]] = {
    "hpobench": (True, {"alpha": 10, "batch_size": 10, "depth": 3, "learning_rate_init": 10, "width": 10}),
    "hpolib": (
        False,
        {
            "activation_fn_1": _ACTIVATION,
            "activation_fn_2": _ACTIVATION,
            "batch_size": 4,
            "dropout_1": 3,
            "dropout_2": 3,
            "init_lr": 6,
            "lr_schedule": ("cosine", "const"),
            "n_units_1": 6,
            "n_units_2": 6,
        },
    ),
    "nasbench201": (True, {f"op{k}": _OPS for k in range(6)}),
}
# TaskSet's Adam with 8 parameters: drawn evenly in the logarithm, of beta1 and beta2 in that of their distance from 1.
_TASKSET: Mapping[str, tuple[float, float]] = {
    "learning_rate": (1e-8, 10.0), "beta1": (1e-4, 1.0), "beta2": (1e-6, 1.0), "epsilon": (1e-10, 1e3),
    "l1": (1e-8, 10.0), "l2": (1e-8, 10.0), "linear_decay": (1e-7, 1e-4), "exponential_decay": (1e-6, 1e-3),
}  # fmt: skip
_SECONDS = 1.0  # of an epoch of which nobody recorded the time


@dataclass(frozen=True)
class RecordedSpace(Space):
    """A space of which single points are recorded: what is drawn is the nearest of them that no trial has."""

    task: "CurveTask"
    taken: dict[int, int]

    def sample(self, trial: Suggestions) -> dict[str, Scalar]:
        """Draw one flat configuration."""
        config = super().sample(trial)
        return {**config, **self.task.config_of(self.task.find_row(config, self.taken.values()))}


def make_config(name: str, space: Space, settings: Mapping[str, Any]) -> StudyConfig:
    """Make a study of a space.

    Args:
        name: Of the task.
        space: What is searched.
        settings: By dotted path, such as "search.stop.asha.factor"; later ones replace earlier ones.

    Raises:
        ValueError: If a setting is unknown or out of range.
    """
    tree: dict[str, Any] = {"search": {}, "objective": {}}
    for path, value in settings.items():
        section, *inner, leaf = path.split(".")
        if section not in tree or (section == "objective") != (path == "objective.over"):
            raise ValueError(f"{path}: must begin with search, or be objective.over")
        at = tree[section]
        for key in inner:
            if not isinstance(at.get(key), dict):
                at[key] = {}
            at = at[key]
        at[leaf] = value
    return StudyConfig(
        name=name,
        data=DataConfig(),
        space=space,
        objective=Objective(**tree["objective"]),
        first=(),
        forbid=(),
        floors=(),
        search=SearchConfig.model_validate(tree["search"]),
        resources=ResourcesConfig(),
    )


def expected_best(values: NDArray[Any], n: int) -> float:
    """Return the exact expectation of the largest of `n` values drawn without replacement.

    Source:
        The k-th smallest of N is the largest of the draw in C(k - 1, n - 1) of C(N, n) cases.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    total = _log_choose(len(ordered), n)
    weights = [math.exp(_log_choose(k - 1, n - 1) - total) for k in range(n, len(ordered) + 1)]
    return float(np.dot(weights, ordered[n - 1 :]))


class Play:
    """One search's recording.

    Args:
        task: Of which the trials are rows.
        seed: Of the noise.
    """

    def __init__(self, task: "Task", seed: int) -> None:
        self.task = task
        self.rows: dict[int, int] = {}  # by trial
        self._seed = seed

    def run(self, assignment: Assignment) -> Iterator[Step]:
        """Replay one trial."""
        row = self.rows.setdefault(assignment.number, self.task.find_row(assignment.config, self.rows.values()))
        return self.task.replay(row, self.columns(assignment.number)[0], assignment)

    @property
    def space(self) -> Space:
        """What this play can be asked for."""
        if isinstance(self.task, CurveTask):
            return RecordedSpace(self.task.nodes, self.task, self.rows)
        return Space(self.task.nodes)

    def columns(self, number: int) -> list[int]:
        """Say which repetitions a trial's row has, in a random order: the trial gets the first, the rest are unseen."""
        columns = self.task.columns_of(self.rows[number])
        return [int(k) for k in np.random.default_rng([self._seed, number]).permutation(columns)]

    def truth(self, number: int) -> float:
        """What a trial's configuration is worth, in the task's own unit."""
        return float(self.task.truth[self.rows[number]])


class Task:
    """What all tasks have in common.

    Attributes:
        name: Of the task.
        nodes: Of its space.
        maximise: Whether more is better in its own unit.
        truth: What each row is worth, in its own unit.
        classes: Whose scores are reported.
        check: How a configuration becomes a trial's parameters, see `Study`.
    """

    name: str
    nodes: Mapping[str, Node]
    maximise: bool = True
    truth: NDArray[Any]
    classes: tuple[str, ...] = CLASSES
    check: Any = staticmethod(accept_any)

    def find_row(self, config: Mapping[str, Any], taken: Any) -> int:
        """Return the row of a flat configuration."""
        raise NotImplementedError

    def columns_of(self, row: int) -> list[int]:
        """List the repetitions of a row."""
        return [0]

    def score(self, row: int, column: int) -> float:
        """Return the score of one repetition, in [0, 1]."""
        raise NotImplementedError

    def replay(self, row: int, column: int, assignment: Assignment) -> Iterator[Step]:
        """Yield the epochs of a row."""
        raise NotImplementedError

    def random_best(self, n: int) -> float:
        """Return what the best of `n` rows, drawn at random, is worth on average."""
        sign = 1 if self.maximise else -1
        return sign * expected_best(sign * self.truth, n)

    def to_score(self, value: float) -> float:
        """Turn a value in the task's own unit into what is maximised, in [0, 1]: strictly increasing in its worth."""
        return value if self.maximise else 1 / (1 + value)


@dataclass(eq=False)
class GridTask(Task):
    """A full grid of final scores, each from several seeds.

    Attributes:
        name: "suite/task".
        index: Position of each row on each axis, shape (n, d).
        scores: Shape (n, seeds); NaN where none was recorded.
    """

    name: str
    index: NDArray[Any]
    scores: NDArray[Any]
    nodes: Mapping[str, Node] = field(init=False)
    maximise: bool = field(init=False)

    def __post_init__(self) -> None:
        suite = self.name.split("/")[0]
        self.maximise, self._grids = _SUITES[suite]
        self.nodes = {"epochs": Constant(1)} | {
            key: Range(0, grid - 1) if isinstance(grid, int) else Choice(grid) for key, grid in self._grids.items()
        }
        self._shape = tuple(grid if isinstance(grid, int) else len(grid) for grid in self._grids.values())
        self._rows = np.full(math.prod(self._shape), -1)
        self._rows[np.ravel_multi_index(tuple(self.index.T), self._shape)] = np.arange(len(self.index))
        self._unit = 100 if suite == "nasbench201" else 1
        self.truth = np.nanmean(self.scores.astype(np.float64), axis=1)

    def find_row(self, config: Mapping[str, Any], taken: Any) -> int:
        """See Task."""
        place = [config[key] if isinstance(grid, int) else grid.index(config[key]) for key, grid in self._grids.items()]
        return int(self._rows[np.ravel_multi_index(place, self._shape)])

    def columns_of(self, row: int) -> list[int]:
        """See Task."""
        return [int(k) for k in np.flatnonzero(np.isfinite(self.scores[row]))]

    def score(self, row: int, column: int) -> float:
        """Return what one repetition reached, as `to_score` says it."""
        return self.to_score(float(self.scores[row, column]))

    def replay(self, row: int, column: int, assignment: Assignment) -> Iterator[Step]:
        """See Task."""
        yield _SECONDS, report_score(1, self.score(row, column), seconds=_SECONDS)

    def to_score(self, value: float) -> float:
        """See Task."""
        return super().to_score(value / self._unit)


@dataclass(eq=False)
class CurveTask(Task):
    """Curves of a loss over a random sample of configurations; a trial gets the nearest that no other has.

    Attributes:
        name: "taskset/task".
        points: Configurations of the rows, shape (n, 8).
        curves: Shape (n, epochs); a row has failed at its first value that is not finite.
    """

    name: str
    points: NDArray[Any]
    curves: NDArray[Any]
    maximise: bool = False

    def __post_init__(self) -> None:
        self.nodes = {"epochs": Constant(self.curves.shape[1])} | {
            key: Range(low, high, log=True) for key, (low, high) in _TASKSET.items()
        }
        self._columns = {key: self.points[:, k] for k, key in enumerate(_TASKSET)}
        self._columns |= {key: 1 - self._columns[key] for key in ("beta1", "beta2")}
        self._places = np.stack([_place(values, *_TASKSET[key]) for key, values in self._columns.items()], axis=1)
        last = self.curves[:, -1].astype(np.float64)
        finite = np.isfinite(last)
        self.truth = np.where(finite, last, last[finite].max())

    def find_row(self, config: Mapping[str, Any], taken: Any) -> int:
        """See Task."""
        place = np.array([_place(config[key], low, high) for key, (low, high) in _TASKSET.items()])
        distances = np.square(self._places - place).sum(1)
        distances[list(taken)] = np.inf
        return int(distances.argmin())

    def config_of(self, row: int) -> dict[str, float]:
        """Return the parameters of a row."""
        return {key: float(self._columns[key][row]) for key in _TASKSET}

    def replay(self, row: int, column: int, assignment: Assignment) -> Iterator[Step]:
        """See Task."""
        for epoch in range(assignment.epochs_done + 1, self.curves.shape[1] + 1):
            loss = float(self.curves[row, epoch - 1])
            if not math.isfinite(loss):
                yield _SECONDS, TrialFailed("diverged", f"loss became {loss} in epoch {epoch}")
                return
            yield _SECONDS, report_score(epoch, self.to_score(loss), seconds=_SECONDS)


class WaferTask(Task):
    """Our own table of per-class curves, written by record_table.py; what it lacks is played by the nearest cell.

    Args:
        path: The file, whole or partial.
    """

    name = "wafers"
    check = staticmethod(from_flat)

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self._axes: Mapping[str, list[Any]] = json.loads(str(file["axes"]))
            about = json.loads(str(file["about"]))
            self.classes = tuple(str(name) for name in file["classes"])
            self._places, self._confusion, self._done = file["config"], file["confusion"], file["epochs_done"]
            self._train_seconds, self._val_seconds = file["train_seconds"], file["val_seconds"]
        axes = {key: Choice(tuple(values)) for key, values in self._axes.items()}
        options = {key.rsplit(".", 1)[0]: (key.rsplit(".", 1)[1], value) for part in about["options"].values()
                   for key, value in part.items()}  # fmt: skip
        self.nodes = {key: Constant(value) for key, value in about["fixed"].items()} | {"epochs": axes["epochs"]}
        for key in ("sampling", "loss"):
            fixed = {name: options.get(f"{key}.{name}") for name in self._axes[key]}
            self.nodes |= {
                key: Branch({name: {one[0]: Constant(one[1])} if one else {} for name, one in fixed.items()})
            }
        of_model = {key: axes[key] for key in ("width", "lr", "batch_size")}
        self.nodes |= {"model": Branch(dict.fromkeys(self._axes["model"], of_model))}
        self.truth = np.array([self._worth(row) for row in range(len(self._places))])

    @cached_property
    def _lengths(self) -> NDArray[Any]:
        return np.array([len(values) for values in self._axes.values()])

    def epochs_of(self, row: int) -> int:
        """Return the length of a cell."""
        return int(self._axes["epochs"][self._places[row, list(self._axes).index("epochs")]])

    def find_row(self, config: Mapping[str, Any], taken: Any) -> int:
        """See Task."""
        values = {key: config.get(key, config.get(f"model.{config['model']}.{key}")) for key in self._axes}
        place = np.array([self._axes[key].index(value) for key, value in values.items()])
        away = np.abs(self._places.astype(int) - place) / np.maximum(1, self._lengths - 1)
        away[:, list(self._axes).index("epochs")] *= 100  # a trial of another length cannot stand in
        return int(away.sum(1).argmin())

    def replay(self, row: int, column: int, assignment: Assignment) -> Iterator[Step]:
        """See Task."""
        for epoch in range(assignment.epochs_done + 1, self.epochs_of(row) + 1):
            train_seconds = float(self._train_seconds[row, epoch - 1])
            val_seconds = float(self._val_seconds[row, epoch - 1])
            if epoch > self._done[row]:
                yield train_seconds + val_seconds, TrialFailed("diverged", f"loss became nan in epoch {epoch}")
                return
            confusion = self._confusion[row, epoch - 1].astype(np.int64)
            counts = tuple(tuple(int(n) for n in actual) for actual in confusion)
            val = Judgement(loss=0.0, confusion=counts, scores=score_confusion(confusion))
            report = report_judgement(epoch, val, train_seconds=train_seconds, val_seconds=val_seconds)
            yield train_seconds + val_seconds, report

    def _worth(self, row: int) -> float:
        if self._done[row] < self.epochs_of(row):
            return 0.0
        return score_confusion(self._confusion[row, self._done[row] - 1].astype(np.int64)).balanced_macro_f1


class MemoryCornerTask(Task):
    """A made-up space in which larger is better, up to an edge: the fifth of it beyond does not fit into memory."""

    name = "memory corner"
    maximise = True
    EPOCHS = 9
    # u + v > 2 - sqrt(0.4) holds in a fifth of the unit square.
    EDGE = 2 - math.sqrt(0.4)
    nodes: Mapping[str, Node] = {
        "epochs": Constant(EPOCHS), "batch_size": Range(16, 1024, log=True), "width": Range(8, 128, log=True),
        "lr": Range(1e-4, 1e-1, log=True), "dropout": Range(0.0, 0.5),
    }  # fmt: skip

    def __init__(self) -> None:
        self.truth = np.empty(0)
        self._configs: list[Mapping[str, Any]] = []

    def find_row(self, config: Mapping[str, Any], taken: Any) -> int:
        """See Task."""
        self._configs.append(config)
        self.truth = np.append(self.truth, self.quality(config))
        return len(self._configs) - 1

    def quality(self, config: Mapping[str, Any]) -> float:
        """What a configuration reaches, in [0, 1]; NaN if it does not fit."""
        u, v = _place(config["batch_size"], 16, 1024), _place(config["width"], 8, 128)
        if u + v > self.EDGE:
            return math.nan
        loss = 0.3 * (1 - (u + v) / self.EDGE) + 0.2 * (u - v) ** 2
        return float(0.95 - loss - 0.4 * (_place(config["lr"], 1e-4, 1e-1) - 0.6) ** 2 - 0.2 * config["dropout"] ** 2)

    def replay(self, row: int, column: int, assignment: Assignment) -> Iterator[Step]:
        """See Task."""
        if math.isnan(self.truth[row]):
            yield _SECONDS, TrialFailed("out_of_memory", "does not fit")
            return
        for epoch in range(assignment.epochs_done + 1, self.EPOCHS + 1):
            score = float(self.truth[row]) * epoch / (epoch + 2)
            yield _SECONDS, report_score(epoch, score, seconds=_SECONDS)


def load_tasks(path: Path, kind: str) -> list[Task]:
    """Load the tasks of hpo_tables.npz.

    Args:
        path: The file.
        kind: "tables" or "taskset".
    """
    with np.load(path, allow_pickle=False) as file:
        if kind == "taskset":
            names = [name.removesuffix("/config") for name in file.files if name.endswith("/config")]
            assert list(file["taskset/hyperparameters"]) == list(_TASKSET)
            return [CurveTask(name, file[f"{name}/config"], file[f"{name}/valid"]) for name in names]
        names = [name.removesuffix("/index") for name in file.files if name.endswith("/index")]
        return [GridTask(name, file[f"{name}/index"], file[f"{name}/score"]) for name in names]


def _place(value: Any, low: float, high: float) -> Any:
    """Where a value lies in a range, in the logarithm: from 0 to 1."""
    return (np.log(value) - math.log(low)) / (math.log(high) - math.log(low))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
