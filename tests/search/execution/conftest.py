from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.space.config import StudyConfig
from search.study.records import StudyFolder
from search.study.study import Study
from search.testing import FakeClock


class HeardStudy(Study):
    """Tells `hear` of every report and end, as the scheduler tells the observers."""

    hear: Callable[[int], None] = staticmethod(lambda number: None)

    def report(self, number, report):
        decision = super().report(number, report)
        self.hear(number)
        return decision

    def reject(self, number, reason):
        super().reject(number, reason)
        self.hear(number)

    def fail(self, number, reason, *, details=""):
        super().fail(number, reason, details=details)
        self.hear(number)


@pytest.fixture
def open_heard(tmp_path: Path, load: Callable[..., StudyConfig]) -> Iterator[Callable[..., HeardStudy]]:
    """Open the study of the folder `a-study`; what a test leaves open is closed in the end."""
    opened = []

    def open_it(*, trials=6, constraints="[]", classes=("Center", "Edge-Ring", "none"), clock=None):
        config = load(
            f"""
            name: fake
            data: {{wafers: synthetic, image_size: 16, epoch_samples: 256}}
            space:
              epochs: 4
              lr: {{low: 1e-4, high: 1e-1, log: true}}
              model: {{choose: {{wafer_cnn: {{width: [4, 8]}}, wafer_resnet: {{}}}}}}
            constraints: {constraints}
            search: {{trials: {trials}, sampler: random, stop: none}}
            """
        )
        folder = StudyFolder(tmp_path / "a-study")
        opened.append(HeardStudy(folder, config, classes=classes, clock=clock or FakeClock()))
        return opened[-1]

    yield open_it
    for study in opened:
        study.close()
