"""The table of CONTRIBUTING.md, carried out: one of each kind is added to a copy of the packages, and trained with.

Called as a program on such a copy, this file uses all that was added, in one process, and prints what came of it.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search", "models", "data_pipeline", "configs")

MODEL = '''"""A perceptron on a coarse picture: what a network without convolutions makes of wafers."""

from torch import nn

from models.layers import check_count


def wafer_mlp(*, n_classes: int, hidden: int = 64) -> nn.Sequential:
    """Build the network."""
    check_count("hidden", hidden, low=1, high=4096)
    coarse = [nn.AdaptiveAvgPool2d(8), nn.Flatten()]
    return nn.Sequential(*coarse, nn.Linear(128, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))
'''
SAMPLING = '''
def capped(counts: NDArray[np.int64], *, most: int = 500) -> Plan:
    """Draw the classes as often as they occur, but none as if it had more than `most` wafers."""
    return _steady(np.minimum(counts, most).astype(np.float64))
'''
AUGMENT = '''
def symmetries_stretch(n: int, generator: torch.Generator, *, stretch: float = 0.1) -> Choices:
    """Flip and turn by quarters, then stretch each axis by itself."""
    _check_limits(stretch=(stretch, 0.5))
    zoom = _uniform(2 * n, 1 - stretch, 1 + stretch, generator).reshape(n, 2)
    affine = torch.cat([torch.diag_embed(zoom), torch.zeros(n, 2, 1)], dim=2)
    return Choices(symmetry=torch.randint(8, (n,), generator=generator), affine=affine)
'''
MIXING = '''
def blend(n: int, generator: torch.Generator, *, keep: float = 0.8) -> Mix:
    """Blend each wafer with another one, always by the same share."""
    return Mix(partner=torch.randperm(n, generator=generator), keep=keep)
'''
LOSS = '''
def poly(counts: Tensor, *, epsilon: float = 1.0) -> Loss:
    """Add epsilon times the error of the right class's probability (Leng et al. 2022, arXiv:2204.12511)."""
    _check_range("epsilon", epsilon, high=5)

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        return (losses - epsilon * torch.expm1(-losses)).mean()

    return Loss(compute, torch.ones(len(counts)))
'''
OPTIMIZER = '''
def rmsprop(model: nn.Module, *, lr: float, weight_decay: float, memory: float = 0.99) -> torch.optim.Optimizer:
    """Gradients over the root of their mean square."""
    return torch.optim.RMSprop(_parameter_groups(model, weight_decay), lr=lr, alpha=memory)
'''
SCHEDULE = '''
def polynomial(progress: float, *, power: float = 1.0) -> float:
    """Fall to zero as a power of what is left."""
    return (1 - progress) ** power
'''
SCORE = '''
    @property
    def balanced_accuracy(self) -> float:
        """Mean of recall over the classes that occur."""
        return float(np.nanmean(self.recall))
'''
STATISTIC = '''
def balanced_accuracy(confusions: Counts) -> Values:
    """Compute `Scores.balanced_accuracy` of each matrix: shape (B, K, K) to (B,)."""
    with np.errstate(invalid="ignore"):
        recall = np.einsum("bkk->bk", confusions) / confusions.sum(2)
    return np.asarray(np.nanmean(recall, axis=1))
'''
SPACE = """
name: extended
data: {wafers: synthetic, image_size: 16, epoch_samples: 320}
space:
  epochs: 2
  batch_size: 16
  lr: 0.02
  precision: fp32
  model: {choose: {wafer_mlp: {hidden: [16, 32]}}}
  sampling: {choose: {capped: {most: {low: 2, high: 40}}}}
  augment: {choose: {symmetries_stretch: {stretch: {low: 0.0, high: 0.4}}}}
  mixing: {choose: {blend: {keep: {low: 0.6, high: 1.0}}}}
  loss: {choose: {poly: {epsilon: {low: 0.0, high: 4.0}}}}
  optimizer: {choose: {rmsprop: {memory: [0.5, 0.99]}}}
  schedule: {choose: {polynomial: {power: {low: 0.5, high: 3.0}}}}
objective: {maximize: balanced_accuracy}
constraints: ["balanced_accuracy >= 0.01"]
search: {trials: 2, sampler: random, stop: none}
"""
MISTAKEN = """
name: mistaken
space:
  model: {choose: {wafer_mlp: {hiden: 8}}}
  sampling: {choose: {capped: {mosst: 5}}}
  augment: {choose: {symmetries_stretch: {stretsh: 0.1}}}
  mixing: {choose: {blend: {kept: 0.7}}}
  loss: {choose: {poly: {epsilom: 1.0}}}
  optimizer: {choose: {rmsprop: {memry: 0.9}}}
  schedule: {choose: {polynomial: {pover: 2.0}}}
objective: {maximize: balanced_acuracy}
"""
MISTAKES = ("hiden", "mosst", "stretsh", "kept", "epsilom", "memry", "pover", "balanced_acuracy")


def add_row(file, *, table, row, before=""):
    """Put a row into a table, and what it names before the table."""
    text = file.read_text("utf-8")
    changed, n = re.subn(
        rf"^({table}: .* = {{)", lambda head: f"{before.lstrip()}\n\n{head[0]}{row}, ", text, flags=re.M
    )
    assert n == 1, f"{file} has no {table}"
    file.write_text(changed, "utf-8")


def add_model(copy):
    (copy / "models" / "wafer_mlp.py").write_text(MODEL, "utf-8")
    row, imported = '"wafer_mlp": Model(build=wafer_mlp, min_image_size=8)', "from models.wafer_mlp import wafer_mlp"
    add_row(copy / "models" / "table.py", table="MODELS", row=row, before=imported)


def add_sampling(copy):
    add_row(copy / "data_pipeline" / "sampling.py", table="SAMPLINGS", row='"capped": capped', before=SAMPLING)


def add_augment(copy):
    row = '"symmetries_stretch": symmetries_stretch'
    add_row(copy / "data_pipeline" / "augment.py", table="AUGMENTS", row=row, before=AUGMENT)


def add_mixing(copy):
    add_row(copy / "data_pipeline" / "mixing.py", table="MIXINGS", row='"blend": blend', before=MIXING)


def add_loss(copy):
    add_row(copy / "search" / "trial" / "losses.py", table="LOSSES", row='"poly": poly', before=LOSS)


def add_optimizer(copy):
    file = copy / "search" / "trial" / "optimization.py"
    add_row(file, table="OPTIMIZERS", row='"rmsprop": rmsprop', before=OPTIMIZER)


def add_schedule(copy):
    file = copy / "search" / "trial" / "optimization.py"
    add_row(file, table="SCHEDULES", row='"polynomial": polynomial', before=SCHEDULE)


def add_objective(copy):
    metrics, last_field = copy / "search" / "trial" / "metrics.py", "    accuracy: float\n"
    text = metrics.read_text("utf-8")
    assert text.count(last_field) == 1
    metrics.write_text(text.replace(last_field, last_field + SCORE), "utf-8")
    row = '"balanced_accuracy": balanced_accuracy'
    add_row(copy / "search" / "space" / "objective.py", table="METRICS", row=row, before=STATISTIC)


KINDS = (add_model, add_sampling, add_augment, add_mixing, add_loss, add_optimizer, add_schedule, add_objective)


def read_files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the packages with one more of each kind, and which files each kind took."""
    copy, touched = tmp_path_factory.mktemp("extended"), {}
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for add in KINDS:
        before = read_files(copy)
        add(copy)
        touched[add.__name__] = {name for name, content in read_files(copy).items() if before.get(name) != content}
    return copy, touched


@pytest.fixture(scope="module")
def used(extended):
    """What came of using all that was added, in a process that knows the copy alone."""
    copy, _ = extended
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", __file__]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.slow


def test_each_kind_takes_at_most_two_files(extended):
    _, touched = extended

    assert len(touched) == len(KINDS)
    assert {kind: len(files) for kind, files in touched.items() if not 1 <= len(files) <= 2} == {}


def test_it_is_the_copy_that_was_used(extended, used):
    copy, _ = extended

    assert {Path(folder) for folder in used["packages"]} == {copy / package for package in PACKAGES}


def test_every_keyword_with_a_default_can_be_searched(used):
    assert set(used["parameters"]) == {
        *("model.wafer_mlp.hidden", "sampling.capped.most", "augment.symmetries_stretch.stretch"),
        *("mixing.blend.keep", "loss.poly.epsilon", "optimizer.rmsprop.memory", "schedule.polynomial.power"),
    }


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_name_is_refused_with_what_may_be_meant(mistake, used):
    [problem] = [line for line in used["problems"] if mistake in line]

    assert "unknown" in problem
    assert "did you mean" in problem


def test_the_range_that_a_factory_checks_holds_before_any_trial(used):
    assert "epsilon must be in [0, 5]" in used["out_of_range"]


def test_a_training_repeats_itself(used):
    assert used["losses"]["again"] == used["losses"]["as drawn"]


def test_every_option_makes_a_difference_to_a_training(used):
    losses = used["losses"]

    same = [key for key in used["parameters"] if losses[key] == losses["as drawn"]]

    assert same == []


def test_trials_are_judged_by_the_new_objective(used):
    assert [row["status"] for row in used["rows"]] == ["running", "complete"] * 2
    for row in used["rows"]:
        recall = [value for value in row["val_recall"].values() if value is not None]
        assert row["objective"] == pytest.approx(math.fsum(recall) / len(recall))
        assert row["objective"] != row["val_balanced_macro_f1"]
    assert used["best"] == max(row["objective"] for row in used["rows"] if row["status"] == "complete")


def test_the_new_objective_has_an_interval(used):
    low, value, high = used["interval"]

    assert low < value < high
    assert value == pytest.approx(used["best"])


def test_the_page_of_all_keys_has_the_new_options(used):
    assert [key for key in used["parameters"] if f"`{key}`" not in used["reference"]] == []


def use_everything():
    """Read the two spaces, train each option's two ends, run a small study, and tell what came of it."""
    import numpy as np
    import torch

    import configs
    import data_pipeline
    import models
    import search
    from data_pipeline.batches import wrap_arrays
    from data_pipeline.encode import Picture, encode_maps
    from data_pipeline.synthetic import make_wafers
    from search.errors import ConfigError
    from search.space.config_file import load_study_config
    from search.space.reference import write_reference
    from search.study.records import StudyFolder
    from search.study.study import Study
    from search.trial.data import TrialData
    from search.trial.intervals import bootstrap_confusion
    from search.trial.params import from_flat
    from search.trial.training import train_and_evaluate

    torch.set_num_threads(1)
    drawn = make_wafers(150)
    wafers = wrap_arrays(encode_maps(drawn, np.arange(150), picture=Picture(image_size=16)), drawn.labels)
    parts = {"train": wafers.select(torch.arange(100)), "val": wafers.select(torch.arange(100, 150))}
    data = TrialData(**parts, n_classes=len(drawn.classes), epoch_samples=320)

    def load(text):
        Path("space.yaml").write_text(text, "utf-8")
        return load_study_config(Path("space.yaml"))

    def complain(text):
        try:
            load(text)
        except ConfigError as error:
            return str(error)
        return ""

    def train(flat):
        params = from_flat(flat, where="here", image_size=16)
        generator = torch.Generator().manual_seed(params.seed)
        return [evaluation.report for evaluation in train_and_evaluate(params, data, generator=generator)]

    config = load(SPACE)
    searched = config.space.parameters()
    low = {**_constants(config.space), **{key: config.space.values_of(key)[0] for key in searched}}
    losses = {name: train(low)[-1].train_loss for name in ("as drawn", "again")}
    for key in searched:
        losses[key] = train(low | {key: config.space.values_of(key)[1]})[-1].train_loss

    with Study(StudyFolder(Path("results") / "extended"), config, classes=tuple(drawn.classes)) as study:
        while assignment := study.ask():
            for report in train(assignment.config):
                study.report(assignment.number, report)
        best = study.best.value
        confusion = np.array(study.best.reports[-1].val.confusion)
        interval = bootstrap_confusion(confusion, config.objective.statistic(study.classes))
        rows = [json.loads(line) for line in study.folder.trials.read_text("utf-8").splitlines()]

    return {
        "packages": [str(Path(package.__file__).parent) for package in (search, models, data_pipeline, configs)],
        "parameters": list(searched),
        "problems": complain(MISTAKEN).splitlines(),
        "out_of_range": complain("space: {loss: {choose: {poly: {epsilon: 6.0}}}}"),
        "losses": losses,
        "rows": rows,
        "best": best,
        "interval": [interval.low, interval.value, interval.high],
        "reference": write_reference(),
    }


def _constants(space):
    return {name: space.values_of(name)[0] for name, _ in space.walk() if name not in space.parameters()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(use_everything()))
