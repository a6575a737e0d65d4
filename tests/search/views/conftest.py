from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.errors import TrialFailed
from search.space.config import StudyConfig
from search.study.provenance import record_attempt
from search.study.records import StudyFolder
from search.study.study import Study
from search.testing import FakeClock, drive, quality_by_lr

CLASSES = ("Center", "Edge-Ring", "none")
SPACE = """
name: fake
data: {wafers: synthetic, image_size: 16, epoch_samples: 256}
space:
  epochs: %(epochs)s
  lr: {low: 1e-4, high: 1e-1, log: true}
  weight_decay: {low: 0.0, high: 0.1}
  sampling: {choose: {imbalanced: {}, power: {alpha: {low: 0.2, high: 0.6}}}}
  model: {choose: {wafer_cnn: {width: [4, 8, 16], dropout: {low: 0.0, high: 0.5}}, wafer_resnet: {width: [4, 8]}}}
objective: %(objective)s
constraints: %(constraints)s
search: {trials: %(trials)s, sampler: random, stop: %(stop)s}
"""


def describe(classes, **more):
    return {
        "source": "fake wafers",
        "synthetic": False,
        "classes": list(classes),
        "fingerprint": "0123456789ab",
        "split_fingerprint": "ba9876543210",
        "protocol": "lot",
        "leaky": "",
        "leak_check": "none of 9 lots in two parts",
        "wafers": {"train": 600, "val": 300, "test": 200},
        **more,
    }


def fail_at_high_lr(assignment, epoch):
    lr = float(assignment.config["lr"])
    if lr > 0.05:
        raise TrialFailed("diverged", f"loss became nan in epoch {epoch} (step {round(1000 * lr)})")
    return quality_by_lr(assignment, epoch)


@pytest.fixture(scope="session")
def make_study(tmp_path_factory, load: Callable[..., StudyConfig]) -> Callable[..., StudyFolder]:
    """Run a whole study in simulated time and leave its folder as a search does, but for the page."""

    def make(
        *,
        trials: int = 24,
        epochs: str = "[4, 8]",
        stop: str = "{asha: {first_rung: 1, factor: 3}}",
        objective: str = "{maximize: macro_f1}",
        constraints: str = "[]",
        space: str = SPACE,
        classes: tuple[str, ...] = CLASSES,
        quality_of=fail_at_high_lr,
        max_steps: int | None = None,
        name: str = "a-study",
        **data: object,
    ) -> StudyFolder:
        values = {"trials": trials, "epochs": epochs, "stop": stop, "objective": objective, "constraints": constraints}
        config = load(space % values)
        folder = StudyFolder(tmp_path_factory.mktemp("results") / name)
        with Study(folder, config, classes=classes, clock=FakeClock()) as study:
            record_attempt(folder, config, describe(classes, **data), space_text=space % values, device="2 CPU cores")
            drive(study, quality_of=quality_of, max_steps=max_steps)
        return folder

    return make


@pytest.fixture(scope="session")
def page_of() -> Callable[[StudyFolder], str]:
    """Read the page that was written."""
    return lambda folder: Path(folder.report).read_text("utf-8")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
