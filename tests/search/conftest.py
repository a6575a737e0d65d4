from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from search.space.config import StudyConfig
from search.space.config_file import load_study_config
from search.study.records import StudyFolder
from search.study.study import Study
from search.testing import FakeClock

# A property must hold, not be quick: two shared cores stall now and then.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def write_yaml(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a YAML file in a folder of its own."""

    def write(text: str | bytes, *, name: str = "space.yaml") -> Path:
        path = tmp_path_factory.mktemp("yaml") / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.fixture(scope="session")
def load(write_yaml: Callable[..., Path]) -> Callable[..., StudyConfig]:
    """Load a space file from its text."""

    def load_text(text: str, *, overrides: dict[str, object] | None = None) -> StudyConfig:
        return load_study_config(write_yaml(text), overrides=overrides)

    return load_text


class HeardStudy(Study):
    """Tells `hear` of every report and end, as the scheduler tells those who watch a search."""

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
    """Open the study in the folder of this test; what a test leaves open is closed in the end."""
    opened = []

    def open_it(
        *, trials: int = 6, stop: str = "none", constraints: str = "[]", classes: tuple[str, ...] = ("a", "b", "none")
    ) -> HeardStudy:
        config = load(
            f"""
            name: fake
            data: {{wafers: synthetic, image_size: 16, epoch_samples: 256}}
            space:
              epochs: 4
              lr: {{low: 1e-4, high: 1e-1, log: true}}
              model: {{choose: {{wafer_cnn: {{width: [4, 8]}}, wafer_resnet: {{}}}}}}
            constraints: {constraints}
            search: {{trials: {trials}, sampler: random, stop: {stop}}}
            """
        )
        opened.append(HeardStudy(StudyFolder(tmp_path / "a-study"), config, classes=classes, clock=FakeClock()))
        return opened[-1]

    yield open_it
    for study in opened:
        study.close()
