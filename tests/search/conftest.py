from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from search.space.config import StudyConfig
from search.space.config_file import load_study_config

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
