"""A study goes on only with what it was made with."""

import shutil
from dataclasses import replace

import pytest
import torch

from search.errors import ConfigError
from search.space.config_file import load_study_config
from search.study.provenance import check_same_study, describe_device, record_attempt
from search.study.records import StudyFolder, read_json

DATA = {"source": "wafers.npz", "synthetic": False, "fingerprint": "aaa111", "split_fingerprint": "bbb222"}
OTHER_DATA = {"source": "other.npz", "synthetic": False, "fingerprint": "ccc333", "split_fingerprint": "ddd444"}


@pytest.fixture
def started(folder, make_config):
    record_attempt(folder, make_config(), DATA, space_text="name: fake # as given\n", device="a CPU")
    return folder


def difference(folder, config, data=DATA):
    """Check a study that differs; return the lines that say in what."""
    with pytest.raises(ConfigError) as caught:
        check_same_study(folder, config, data)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{folder.path}: was made with something else; use --study NAME for a new study"
    return lines


def test_a_new_study_may_be_anything(folder, make_config):
    check_same_study(folder, make_config(), DATA)


def test_the_same_study_may_go_on(started, make_config):
    check_same_study(started, make_config(), DATA)


def test_a_study_may_go_on_with_more_trials_more_time_and_other_resources(started, make_config):
    config = make_config(trials=99, time="3h", gpu_hours=5, failures=9)
    config = replace(config, resources=config.resources.model_copy(update={"cpus": 4, "gpus": 0.5}))

    check_same_study(started, config, DATA)


def test_wafers_may_lie_elsewhere_as_long_as_they_are_the_same(started, make_config):
    config = make_config()
    config = replace(config, data=config.data.model_copy(update={"wafers": "/mnt/moved.npz"}))

    check_same_study(started, config, DATA | {"source": "/mnt/moved.npz"})


def test_everything_that_differs_is_named(started, make_config, load):
    tree = make_config(
        sampler="random",
        factor=2,
        objective="{maximize: macro_f1, over: ema}",
        first="[{lr: 1e-3}]",
        forbid="[{if: lr > 0.05, why: diverges}]",
        constraints="[macro_f1 >= 0.5]",
        trial_time="1h",
        epochs="8",
    )

    lines = difference(started, tree, OTHER_DATA)

    assert lines == [
        "  constraints: was [], is ['macro_f1 >= 0.5']",
        "  first: was [], is [{'lr': 0.001}]",
        "  forbid: was [], is [{'if': 'lr > 0.05', 'why': 'diverges'}]",
        "  objective.maximize: was 'balanced_macro_f1', is 'macro_f1'",
        "  objective.over: was 'last', is 'ema'",
        "  search.sampler: was 'tpe', is 'random'",
        "  search.stop: was None, is absent",
        "  search.stop.asha.factor: was absent, is 2",
        "  search.stop.asha.first_rung: was absent, is 1",
        "  search.stop.asha.peers: was absent, is 3",
        "  search.stop.asha.progressive: was absent, is False",
        "  search.trial_time: was None, is 3600.0",
        "  space.epochs: was 4, is 8",
        "  data fingerprint: was aaa111 (wafers.npz), is ccc333 (other.npz)",
        "  data split_fingerprint: was bbb222 (wafers.npz), is ddd444 (other.npz)",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("name: fake", "name: other", "  name: was 'fake', is 'other'"),
        ("image_size: 16", "image_size: 20", "  data.image_size: was 16, is 20"),
        ("high: 0.1\n", "high: 0.2\n", "  space.lr.high: was 0.1, is 0.2"),
        ("    log: true\n", "", "  space.lr.log: was True, is absent"),
        ("- 8\n", "- 16\n", "  space.model.choose.wafer_cnn.width: was [4, 8], is [4, 16]"),
        ("wafer_resnet: {}", "resnet18: {}", "  space.model.choose.resnet18: was absent, is {}"),
        ("seed: 0\n  stop", "seed: 1\n  stop", "  search.seed: was 0, is 1"),
    ],
)
def test_a_difference_in_one_value_is_named(started, write_yaml, old, new, line):
    text = started.resolved.read_text("utf-8")
    assert old in text

    lines = difference(started, load_study_config(write_yaml(text.replace(old, new))))

    assert line in lines


def test_a_study_without_its_resolved_space_is_refused(started, make_config):
    started.resolved.unlink()

    with pytest.raises(ConfigError, match=r"resolved\.yaml: cannot be read \(No such file or directory\)"):
        check_same_study(started, make_config(), DATA)


def test_a_study_with_a_damaged_provenance_is_refused(started, make_config):
    started.provenance.write_text("{")

    with pytest.raises(ConfigError, match=r"provenance\.json: cannot be read"):
        check_same_study(started, make_config(), DATA)


def test_the_space_is_kept_as_it_was_given_and_with_all_defaults(started, make_config):
    assert started.space.read_text("utf-8") == "name: fake # as given\n"
    assert load_study_config(started.resolved) == make_config()


def test_every_attempt_is_recorded(started, make_config):
    record_attempt(started, make_config(trials=99), DATA, space_text="changed\n", device="a GPU")

    provenance = read_json(started.provenance)
    assert (provenance["format"], provenance["study"], provenance["data"]) == (1, "a-study", DATA)
    assert [attempt["device"] for attempt in provenance["attempts"]] == ["a CPU", "a GPU"]
    assert {"started", "command", "host", "python", "versions"} <= provenance["attempts"][0].keys()
    assert torch.__version__.startswith(provenance["attempts"][0]["versions"]["torch"])
    assert started.space.read_text("utf-8") == "name: fake # as given\n"
    assert load_study_config(started.resolved).search.trials == 99


def test_a_study_that_was_copied_is_recognised(started, tmp_path, make_config):
    shutil.copytree(started.path, tmp_path / "copy")

    check_same_study(StudyFolder(tmp_path / "copy"), make_config(), DATA)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, make_config):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/a-study/space\.yaml: cannot be written \(Not a directory\)"):
        record_attempt(StudyFolder(tmp_path / "file" / "a-study"), make_config(), DATA, space_text="", device="")


def test_a_cpu_is_described_with_its_threads():
    assert describe_device(torch.device("cpu")).endswith(f" CPU, {torch.get_num_threads()} threads")
