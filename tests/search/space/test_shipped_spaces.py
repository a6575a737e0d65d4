"""Every space that comes with the project loads, is written out whole, and proposes only what can be trained."""

from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import optuna
import pytest
import torch
from torchvision.models import EfficientNet_B0_Weights, efficientnet_b0

import configs
from search.errors import ConfigError
from search.space.config_file import load_study_config
from search.space.strict_yaml import dump_yaml, read_yaml
from search.trial.params import TrialParams, from_flat

FILES = sorted(Path(configs.__file__).parent.rglob("*.yaml"))
WITH_WEIGHTS = [path for path in FILES if "'imagenet'" in repr(read_yaml(path)[0])]

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def kept_weights(tmp_path_factory):
    """Torch's folder, with (random) weights where a download of ImageNet's would be kept."""
    home = tmp_path_factory.mktemp("torch")
    kept = home / "hub" / "checkpoints" / Path(urlparse(EfficientNet_B0_Weights.IMAGENET1K_V1.url).path).name
    kept.parent.mkdir(parents=True)
    torch.save(efficientnet_b0(weights=None).state_dict(), kept)
    return home


@pytest.fixture
def reachable_weights(kept_weights, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(kept_weights))


@pytest.fixture
def unreachable_weights(tmp_path, monkeypatch):
    def download(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)


def test_there_are_shipped_spaces():
    assert len(FILES) >= 2


@every_file
@pytest.mark.usefixtures("reachable_weights")
def test_a_shipped_space_loads_under_its_own_name(path):
    assert load_study_config(path).name == path.stem


@every_file
@pytest.mark.usefixtures("reachable_weights")
def test_a_shipped_space_written_out_with_all_defaults_loads_to_the_same_config(path, write_yaml):
    config = load_study_config(path)

    again = load_study_config(write_yaml(dump_yaml(config.to_tree())))

    assert again == config
    assert again.to_tree() == config.to_tree()


@every_file
@pytest.mark.usefixtures("reachable_weights")
def test_what_a_shipped_space_proposes_can_be_trained(path):
    config = load_study_config(path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    drawn = [config.space.sample(study.ask()) for _ in range(20)]
    params = [from_flat(flat, where="a sample", image_size=config.data.image_size) for flat in drawn]

    assert all(isinstance(each, TrialParams) for each in params)
    assert len({str(flat) for flat in drawn}) > 10


@pytest.mark.parametrize("path", WITH_WEIGHTS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("unreachable_weights")
def test_a_shipped_space_whose_weights_are_unreachable_is_refused(path):
    with pytest.raises(ConfigError, match=r"weights 'imagenet' are unreachable \(no route to host\); give the path of"):
        load_study_config(path)
