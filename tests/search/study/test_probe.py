"""A probe measures an epoch, or scales up what part of it fits into the time."""

import numpy as np
import pytest

from data_pipeline.batches import wrap_arrays
from search.space.config_file import find_space, load_study_config
from search.study.probe import Probe, choose_probes, probe, probe_all
from search.trial.data import TrialData

CLASSES = ("a", "b", "c")
FLAT = {"epochs": 3, "model": "wafer_cnn", "model.wafer_cnn.width": 4, "batch_size": 32}


class TickingClock:
    """Each look at it takes so many seconds."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def make_part(n):
    maps = np.random.default_rng(0).integers(0, 3, (n, 16, 16), dtype=np.uint8)
    return wrap_arrays(maps, np.arange(n) % len(CLASSES))


@pytest.fixture
def data(tmp_path):
    features = tmp_path / "features"
    return TrialData(train=make_part(150), val=make_part(45), n_classes=3, epoch_samples=128, features=features)


def measure(data, *, flat=FLAT, tick=0.0, budget_s=60.0):
    return probe(flat, data, classes=CLASSES, image_size=16, budget_s=budget_s, clock=TickingClock(tick))


def test_a_whole_epoch_is_trained_where_the_time_allows(data):
    measured = measure(data)

    assert measured.is_whole
    assert 0 < measured.seconds < 60
    assert measured.params.epochs == 3


def test_a_part_is_scaled_up_where_it_does_not(data):
    assert not measure(data, tick=100.0).is_whole


def test_a_probe_counts_bytes_as_a_study_would_write_them(data):
    narrow, wide = (measure(data, flat=FLAT | {"model.wafer_cnn.width": width}) for width in (4, 8))

    assert 4000 < narrow.checkpoint < wide.checkpoint
    assert 500 < narrow.row < 5000


def test_a_probe_writes_nothing(data, tmp_path):
    measure(data)

    assert list(tmp_path.iterdir()) == []


def test_probes_share_the_time_and_one_that_fails_is_handed_back(data):
    chosen = [FLAT, FLAT | {"model.wafer_cnn.width": -1}, FLAT]

    good, bad, last = probe_all(chosen, data, classes=CLASSES, image_size=16, budget_s=60.0)

    assert isinstance(good, Probe)
    assert isinstance(bad, Exception)
    assert isinstance(last, Probe)


def test_probes_end_when_the_time_is_up(data):
    probes = probe_all([FLAT] * 4, data, classes=CLASSES, image_size=16, budget_s=1.0, clock=TickingClock(2.0))

    assert len(list(probes)) == 1


def test_first_points_are_probed_before_random_ones_and_every_model_as_often():
    config = load_study_config(find_space("balanced_cnn"))

    chosen = choose_probes(config)

    assert [flat["model"] for flat in chosen] == ["wafer_cnn", "wafer_resnet"] * 2
    for flat, point in zip(chosen[::2], config.first, strict=True):
        assert {name: flat[name] for name in point} == point


def test_a_model_that_is_forbidden_altogether_is_not_probed(load):
    models = "model: {choose: {wafer_cnn: {width: [4, 8]}, wafer_resnet: {}}}"
    config = load(f"data: {{image_size: 16}}\nspace: {{{models}}}\nforbid: [{{if: \"model == 'wafer_cnn'\", why: x}}]")

    assert {flat["model"] for flat in choose_probes(config)} == {"wafer_resnet"}


def test_every_model_is_probed_even_if_there_are_many():
    config = load_study_config(find_space("architectures"))

    assert {flat["model"] for flat in choose_probes(config, n=1)} == set(config.space.values_of("model"))
