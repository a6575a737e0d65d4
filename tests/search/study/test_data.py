"""What a study's data section opens."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_pipeline.errors import DataError
from search.errors import ConfigError
from search.space.config import DataConfig
from search.study.data import absent_classes, check_objective, check_same_data, describe, open_data, trial_data
from search.study.provenance import describe_data

CONFIG = DataConfig(wafers="synthetic", synthetic_wafers=800, image_size=16, epoch_samples=100)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_data(CONFIG, results=tmp_path_factory.mktemp("results"))


@pytest.fixture
def weigh(load):
    """Make a config that weighs these classes."""
    return lambda *names: load(
        f"space: {{epochs: 4}}\nobjective: {{weights: {{{', '.join(f'{n}: 2' for n in names)}}}}}"
    )


def test_a_trial_sees_train_and_validation_encoded_and_nothing_else(dataset):
    data = trial_data(dataset, CONFIG)

    assert (data.n_classes, data.epoch_samples) == (9, 100)
    assert data.train.maps.shape == (len(dataset.splits.train), 16, 16, 2)
    assert data.val.maps.shape == (len(dataset.splits.val), 16, 16, 2)
    assert not hasattr(data, "test")


def test_the_section_decides_whether_maps_keep_their_aspect(dataset, tmp_path):
    kept = open_data(CONFIG.model_copy(update={"aspect": "kept"}), results=tmp_path).encode("val")

    assert kept.maps.shape == dataset.encode("val").maps.shape
    assert not torch.equal(kept.maps, dataset.encode("val").maps)


def test_the_section_decides_whether_pixels_hold_states_or_coverage(dataset, tmp_path):
    states = open_data(CONFIG.model_copy(update={"encoding": "states"}), results=tmp_path).encode("val")
    covered = dataset.encode("val")

    assert states.maps.shape == (len(dataset.splits.val), 16, 16)
    assert set(states.maps.unique().tolist()) == {0, 1, 2}
    assert covered.maps.shape == (len(dataset.splits.val), 16, 16, 2)
    assert covered.maps.sum(-1).max() == 255


def test_encoded_maps_are_kept_beside_the_studies(dataset):
    trial_data(dataset, CONFIG)

    assert dataset.cache.name == ".cache"
    assert list(dataset.cache.iterdir())


def test_the_section_decides_how_the_wafers_are_divided(dataset, tmp_path):
    split = CONFIG.split.model_copy(update={"val": 0.4, "seed": 5})

    other = open_data(CONFIG.model_copy(update={"split": split}), results=tmp_path)

    assert other.wafers.fingerprint == dataset.wafers.fingerprint
    assert other.splits.fingerprint != dataset.splits.fingerprint
    assert len(other.splits.val) > 1.5 * len(dataset.splits.val)


def test_wafers_that_are_not_there_are_refused(tmp_path):
    config = CONFIG.model_copy(update={"wafers": str(tmp_path / "gone.npz")})

    with pytest.raises(DataError, match=r"gone\.npz"):
        open_data(config, results=tmp_path)


def test_what_was_loaded_and_proved_is_said(dataset):
    said = describe(dataset)

    assert said.startswith("SYNTHETIC wafers: ")
    assert "800 wafers: Center " in said
    assert f"split {dataset.splits.fingerprint} by lot: train {len(dataset.splits.train)}, val " in said
    assert "(locked)" in said
    assert "proved: every one of 800 labelled wafers in exactly one part" in said


def test_a_leaky_split_is_called_so_wherever_the_data_is_described(tmp_path):
    split = CONFIG.split.model_copy(update={"by": "deck", "pool": 50})

    dataset = open_data(CONFIG.model_copy(update={"split": split}), results=tmp_path)

    said, data = describe(dataset), describe_data(dataset)
    assert said.startswith("SYNTHETIC, LEAKY wafers: ")
    assert "by deck: train 288, val 90, test 72 (locked)" in said
    assert "LEAKY (deck): the same wafers stand in training and test: " in said
    assert "of the test wafers " in said
    assert "proved" not in said
    assert (data["protocol"], data["leaky"]) == ("deck", dataset.splits.leaky)


def test_a_study_can_recognise_its_data(dataset):
    data = describe_data(dataset)

    assert data["synthetic"] is True
    assert data["classes"] == list(dataset.wafers.classes)
    assert sum(data["wafers"].values()) == 800
    check_same_data(dataset, fingerprint=data["fingerprint"], split_fingerprint=data["split_fingerprint"])


@pytest.mark.parametrize("changed", ["fingerprint", "split_fingerprint"])
def test_other_wafers_or_another_division_are_refused(dataset, changed):
    data = describe_data(dataset)
    given = {key: data[key] for key in ("fingerprint", "split_fingerprint")} | {changed: "0123abcd"}

    with pytest.raises(ConfigError, match=r"the study was made with .*0123abcd.*; give the same wafers by --data"):
        check_same_data(dataset, **given)


def test_classes_that_exist_may_be_weighed(dataset, weigh):
    check_objective(weigh("Scratch", "Edge-Loc"), dataset)


def test_an_objective_without_weights_fits_any_data(dataset, load):
    check_objective(load("space: {epochs: 4}"), dataset)


def test_a_class_that_does_not_exist_gets_the_nearest_name(dataset, weigh):
    expected = "objective.weights.Scrach: no such class in the data; did you mean 'Scratch'? (known: Center, "

    with pytest.raises(ConfigError, match=re.escape(expected)):
        check_objective(weigh("Loc", "Scrach"), dataset)


def test_weights_on_classes_that_validation_lacks_are_refused(dataset, weigh):
    k = dataset.wafers.classes.index("Scratch")
    without = dataset.splits.val[dataset.wafers.labels[dataset.splits.val] != k]
    poor = replace(dataset, splits=replace(dataset.splits, val=np.asarray(without)))

    check_objective(weigh("Scratch", "none"), poor)
    with pytest.raises(
        ConfigError, match=r"objective\.weights: no validation wafer is Scratch; change data\.split\.seed"
    ):
        check_objective(weigh("Scratch"), poor)


@pytest.fixture
def demand(load):
    """Make a config with these floors."""
    return lambda *floors: load(f"space: {{epochs: 4}}\nconstraints: {list(floors)}")


def test_floors_that_validation_can_tell_are_accepted(dataset, demand):
    check_objective(demand("f1[Scratch] >= 0.5", "recall[none] >= 1.0", "macro_f1 >= 0.99"), dataset)


def test_a_floor_of_a_class_that_does_not_exist_gets_the_nearest_name(dataset, demand):
    expected = "constraints: f1[Scrach] >= 0.5: unknown class 'Scrach'; did you mean 'Scratch'? (known: Center, "

    with pytest.raises(ConfigError, match=re.escape(expected)):
        check_objective(demand("f1[none] >= 0.5", "f1[Scrach] >= 0.5"), dataset)


@pytest.mark.parametrize("metric", ["f1[Scratch]", "recall[Scratch]", "precision[Scratch]", "worst_class_f1"])
def test_a_floor_finer_than_one_wafer_is_refused(dataset, demand, metric):
    expected = f"constraints: {metric} >= 0.9999: is finer than one wafer; validation holds "

    with pytest.raises(ConfigError, match=re.escape(expected)):
        check_objective(demand(f"{metric} >= 0.9999"), dataset)


def test_the_floor_that_is_advised_is_accepted(dataset, demand):
    with pytest.raises(ConfigError) as caught:
        check_objective(demand("f1[Scratch] >= 0.9999"), dataset)
    advised = re.search(r"make it at most ([\d.]+), or 1\.0$", str(caught.value))[1]

    check_objective(demand(f"f1[Scratch] >= {advised}"), dataset)
    check_objective(demand("f1[Scratch] >= 1.0"), dataset)


def test_a_floor_of_a_class_that_validation_lacks_is_refused(dataset, demand):
    k = dataset.wafers.classes.index("Scratch")
    without = dataset.splits.val[dataset.wafers.labels[dataset.splits.val] != k]
    poor = replace(dataset, splits=replace(dataset.splits, val=np.asarray(without)))

    check_objective(demand("f1[none] >= 0.5", "worst_class_f1 >= 0.3"), poor)
    with pytest.raises(ConfigError, match=r"constraints: f1\[Scratch\] >= 0.5: validation holds no wafers of Scratch"):
        check_objective(demand("f1[Scratch] >= 0.5"), poor)


def test_classes_that_stand_in_every_part_are_not_warned_of(dataset):
    assert absent_classes(dataset) == []


def test_a_class_without_wafers_in_training_or_validation_is_said_by_name(dataset):
    classes, labels = dataset.wafers.classes, dataset.wafers.labels
    splits = replace(
        dataset.splits,
        train=dataset.splits.train[labels[dataset.splits.train] != classes.index("Scratch")],
        val=dataset.splits.val[labels[dataset.splits.val] >= 2],
    )

    in_train, in_val = absent_classes(replace(dataset, splits=splits))

    assert in_train.startswith("WARNING: no wafer of Scratch in the train part: cannot be learned; change ")
    assert in_val.startswith(f"WARNING: no wafer of {', '.join(classes[:2])} in the val part: does not count in any")
    assert "data.split.seed (lot split)" in in_val
