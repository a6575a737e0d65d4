"""From a space file to a StudyConfig: what is filled in, and what is refused with which words."""

import re
import shutil
from pathlib import Path

import pytest

import configs
from search.errors import ConfigError
from search.space.config_file import find_space, load_study_config
from search.space.strict_yaml import dump_yaml

SHIPPED = Path(configs.__file__).parent
SPACE = "space: {epochs: [4, 8], lr: {low: 1e-4, high: 1e-2, log: true}, grad_clip: {low: 0.0, high: 2.0, step: 0.5}}\n"
DURATION = "must be a duration such as 90s, 20m, 2h or 1h30m"

# What stands in the second line, below a good space, and what is said about it.
BAD_SECTIONS = [
    # the whole
    ("spaces: {}", "spaces: unknown key; did you mean 'space'? (known: data, first, name, objective, "),
    ("forbid: []", "forbid: is not supported yet; remove it"),
    ("constraints: [\"f1[Scratch] >= 0.60\"]", "constraints: is not supported yet; remove it"),
    ("confirm: {top: 3}", "confirm: is not supported yet; remove it"),
    # name
    ("name: ../../x", "name: must be letters, digits, '.', '_' or '-', at most 80; got '../../x'"),
    ("name: ..", "name: must be letters, digits, '.', '_' or '-', at most 80; got '..'"),
    ("name: a/b", "name: must be letters, digits, '.', '_' or '-', at most 80; got 'a/b'"),
    ("name: .hidden", "name: must be letters, digits, '.', '_' or '-', at most 80; got '.hidden'"),
    ("name: -flag", "name: must be letters, digits, '.', '_' or '-', at most 80; got '-flag'"),
    ("name: \"a\\n\"", "name: must be letters, digits, '.', '_' or '-', at most 80; got 'a\\n'"),
    ("name: ''", "name: must be letters, digits, '.', '_' or '-', at most 80; got ''"),
    ("name: null", "name: must be letters, digits, '.', '_' or '-', at most 80; got None"),
    ("name: 42", "name: must be letters, digits, '.', '_' or '-', at most 80; got 42"),
    (f"name: {'x' * 81}", "name: must be letters, digits, '.', '_' or '-', at most 80; got 'xxx"),
    # data
    ("data: 5", "data: must be a mapping; got 5"),
    ("data: [wafers]", "data: must be a mapping; got ['wafers']"),
    ("data: {wafer: auto}", "data.wafer: unknown key; did you mean 'wafers'? (known: aspect, encoding, "),
    ("data: {wafers: 5}", "data.wafers: must be a word; got 5"),
    ("data: {synthetic_wafers: 599}", "data.synthetic_wafers: must be >= 600; got 599"),
    ("data: {image_size: 7}", "data.image_size: must be >= 8; got 7"),
    ("data: {image_size: 513}", "data.image_size: must be <= 512; got 513"),
    ("data: {image_size: 40.0}", "data.image_size: must be a whole number; got 40.0"),
    ("data: {aspect: letterbox}", "data.aspect: must be stretched or kept; got 'letterbox'"),
    ("data: {encoding: blended}", "data.encoding: must be states or coverage; got 'blended'"),
    ("data: {image_size: true}", "data.image_size: must be a whole number; got True"),
    ("data: {epoch_samples: 18e3}", "data.epoch_samples: must be a whole number; got 18000.0"),
    ("data: {epoch_samples: 31}", "data.epoch_samples: must be >= 32; got 31"),
    ("data: {split: null}", "data.split: must be a mapping; got None"),
    ("data: {split: {by: wafer}}", "data.split.by: must be lot, official, product, time, random, deck or deck_subset"),
    ("data: {split: {valid: 0.2}}", "data.split.valid: unknown key; did you mean 'val'? (known: by, pool, seed, "),
    ("data: {split: {pool: 2}}", "data.split.pool: must be >= 3; got 2"),
    ("data: {split: {val: 0}}", "data.split.val: must be > 0; got 0"),
    ("data: {split: {val: 1.0}}", "data.split.val: must be < 1; got 1.0"),
    ("data: {split: {val: .nan}}", "data.split.val: must be < 1; got nan"),
    ("data: {split: {val: half}}", "data.split.val: must be a number; got 'half'"),
    ("data: {split: {val: 0.6, test: 0.4}}", "data.split: val + test must be below 1; got 0.6 + 0.4"),
    ("data: {split: {seed: -1}}", "data.split.seed: must be >= 0; got -1"),
    # objective
    ("objective: null", "objective: must be {maximize: balanced_macro_f1 or macro_f1 or worst_class_f1} or {weights: "),
    ("objective: macro_f1", "objective: must be {maximize: balanced_macro_f1 or macro_f1 or worst_class_f1} or "),
    ("objective: {minimize: loss}", "objective: must be {maximize: balanced_macro_f1 or macro_f1 or worst_class_f1}"),
    ("objective: {maximize: macro_f1, weights: {a: 1}}", "objective: must be {maximize: balanced_macro_f1 or "),
    ("objective: {maximize: makro_f1}", "objective.maximize: unknown metric 'makro_f1'; did you mean 'macro_f1'? ("),
    ("objective: {maximize: [macro_f1]}", "objective.maximize: unknown metric ['macro_f1']; did you mean 'macro_f1'?"),
    ("objective: {weights: {}}", "objective.weights: must map classes to numbers above 0; got {}"),
    ("objective: {weights: [Scratch]}", "objective.weights: must map classes to numbers above 0; got ['Scratch']"),
    ("objective: {weights: {Scratch: 0}}", "objective.weights: must map classes to numbers above 0; got {'Scratch': "),
    ("objective: {weights: {Scratch: 3, Loc: yes}}", "objective.weights: must map classes to numbers above 0; got "),
    ("objective: {weights: {Scratch: true}}", "objective.weights: must map classes to numbers above 0; got "),
    ("objective: {weights: {Scratch: .inf}}", "objective.weights: must map classes to numbers above 0; got "),
    # first
    ("first: null", "first: must be a list of mappings from parameters to values; got None"),
    ("first: {lr: 1e-3}", "first: must be a list of mappings from parameters to values; got {'lr': 0.001}"),
    ("first: [lr]", "first: must be a list of mappings from parameters to values; got ['lr']"),
    ("first: [{epoch: 4}]", "first.0.epoch: is not in the space; did you mean 'epochs'? (known: epochs, "),
    ("first: [{}, {epochs: 5}]", "first.1.epochs: must be 4 or 8; got 5"),
    ("first: [{lr: 1e-5}]", "first.0.lr: must be a number in [0.0001, 0.01]; got 1e-05"),
    ("first: [{lr: 1e-1}]", "first.0.lr: must be a number in [0.0001, 0.01]; got 0.1"),
    ("first: [{lr: fast}]", "first.0.lr: must be a number in [0.0001, 0.01]; got 'fast'"),
    ("first: [{lr: null}]", "first.0.lr: must be a number in [0.0001, 0.01]; got None"),
    ("first: [{lr: [1e-3]}]", "first.0.lr: must be a number in [0.0001, 0.01]; got [0.001]"),
    ("first: [{lr: .nan}]", "first.0.lr: must be a number in [0.0001, 0.01]; got nan"),
    ("first: [{grad_clip: true}]", "first.0.grad_clip: must be a number in [0.0, 2.0], in steps of 0.5; got True"),
    ("first: [{grad_clip: 0.7}]", "first.0.grad_clip: must be a number in [0.0, 2.0], in steps of 0.5; got 0.7"),
    # search
    ("search: {trails: 5}", "search.trails: unknown key; did you mean 'trials'? (known: sampler, seed, "),
    ("search: {trials: 0}", "search.trials: must be >= 1; got 0"),
    ("search: {trials: 1000001}", "search.trials: must be <= 1000000; got 1000001"),
    ("search: {trials: many}", "search.trials: must be a whole number; got 'many'"),
    ("search: {time: 0}", "search.time: must be > 0; got 0"),
    ("search: {time: 0s}", "search.time: must be > 0; got 0.0"),
    ("search: {time: -5}", "search.time: must be > 0; got -5"),
    ("search: {time: .inf}", "search.time: must be a finite number; got inf"),
    ("search: {time: .nan}", "search.time: must be "),
    (f"search: {{time: {'9' * 400}s}}", "search.time: must be a finite number; got inf"),
    ("search: {time: 20 minutes}", f"search.time: {DURATION}; got '20 minutes'"),
    ("search: {time: 1:30}", f"search.time: {DURATION}; got '1:30'"),
    ("search: {time: true}", "search.time: must be a number; got True"),
    ("search: {sampler: grid}", "search.sampler: must be tpe or random; got 'grid'"),
    ("search: {stop: asha}", "search.stop: must be a mapping; got 'asha'"),
    ("search: {stop: {ahsa: {}}}", "search.stop.ahsa: unknown key; did you mean 'asha'? (known: asha)"),
    ("search: {stop: {asha: {rung: 2}}}", "search.stop.asha.rung: unknown key; (known: factor, first_rung)"),
    ("search: {stop: {asha: {factor: 1}}}", "search.stop.asha.factor: must be >= 2; got 1"),
    ("search: {stop: {asha: {factor: 11}}}", "search.stop.asha.factor: must be <= 10; got 11"),
    ("search: {stop: {asha: {first_rung: 0 epochs}}}", "search.stop.asha.first_rung: must be >= 1; got "),
    ("search: {stop: {asha: {first_rung: two}}}", "search.stop.asha.first_rung: must be a whole number; got 'two'"),
    (
        "search: {stop: {asha: {first_rung: 8 epochs}}}",
        "search.stop.asha.first_rung: must be below the longest schedule (8 epochs); got 8 epochs; every trial",
    ),
    # resources
    ("resources: {cpu: 2}", "resources.cpu: unknown key; did you mean 'cpus'? (known: cpus, gpus)"),
    ("resources: {cpus: 0}", "resources.cpus: must be >= 1; got 0"),
    ("resources: {cpus: auto}", "resources.cpus: must be a whole number; got 'auto'"),
    ("resources: {gpus: all}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got 'all'"),
    ("resources: {gpus: 1.5}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got 1.5"),
    ("resources: {gpus: -1}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got -1"),
    ("resources: {gpus: 65}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got 65"),
    ("resources: {gpus: .inf}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got inf"),
    ("resources: {gpus: .nan}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got nan"),
    ("resources: {gpus: true}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got True"),
    ("resources: {gpus: [1]}", "resources.gpus: must be auto, a share in [0, 1] or a whole number up to 64; got [1]"),
]  # fmt: skip


def refusal(load, text, **more):
    """Load a bad file; return what is said, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(text, **more)
    return str(caught.value).partition("space.yaml")[2]


@pytest.mark.parametrize(("section", "what"), BAD_SECTIONS)
def test_a_bad_section_is_refused(load, section, what):
    assert refusal(load, SPACE + section).startswith(f":2 {what}")


@pytest.mark.parametrize("text", ["", "5", "- space\n", "just words"])
def test_a_file_that_is_no_mapping_is_refused(load, text):
    said = refusal(load, text)

    assert said == ":1 must be a mapping with the keys name, data, space, objective, first, search, resources"


def test_a_file_without_a_space_is_refused(load):
    assert refusal(load, "name: x").startswith(":1 space: must hold at least one parameter; known: sampling, augment, ")


def test_mistakes_in_all_sections_are_reported_together(load):
    text = "data: {image_size: 7}\nspace: {epoch: 4}\nobjective: {}\nfirst: [5]\nsearch: {trials: 0}\nconfirm: 1\n"

    lines = refusal(load, text).splitlines()

    assert lines[0] == ": 5 problems"
    assert [line.split(":")[1] for line in lines[1:]] == [
        "1 data.image_size",
        "2 space.epoch",
        "4 first",
        "5 search.trials",
        "6 confirm",
    ]


def test_a_first_point_may_not_set_what_it_has_not_chosen(load):
    text = """
space: {model: {choose: {wafer_cnn: {lr: [1e-3, 1e-2]}, wafer_resnet: {lr: [1e-3, 1e-2]}}}}
first: [{model: wafer_cnn, model.wafer_resnet.lr: 1e-3}]
"""

    assert refusal(load, text) == ":3 first.0.model.wafer_resnet.lr: set, but model is 'wafer_cnn'"


def test_a_first_point_may_name_options_and_constants(load):
    config = load(
        """
space: {epochs: 4, model: {choose: {wafer_cnn: {width: {low: 4, high: 8}}, wafer_resnet: {}}}}
first: [{epochs: 4, model: wafer_cnn, model.wafer_cnn.width: 5}, {model: wafer_resnet}, {}]
"""
    )

    assert config.first == (
        {"epochs": 4, "model": "wafer_cnn", "model.wafer_cnn.width": 5},
        {"model": "wafer_resnet"},
        {},
    )


def test_a_first_point_must_choose_an_option_that_there_is(load):
    text = "space: {model: {choose: {wafer_cnn: {}, resnet18: {}}}}\nfirst: [{model: [resnet18]}]"

    assert refusal(load, text) == ":2 first.0.model: must be 'wafer_cnn' or 'resnet18'; got ['resnet18']"


@pytest.mark.parametrize(
    ("space", "first_rung"),
    [
        ("{model: {choose: {wafer_cnn: {epochs: [2, 5]}, wafer_resnet: {epochs: 3}}}}", 9),
        ("{model: {choose: {wafer_cnn: {epochs: [2, 5]}, wafer_resnet: {}}}}", 9),
        ("{lr: 1e-3}", 9),
        ("{epochs: {low: 2, high: 6}}", 5),
        ("{epochs: 1}", 2),
    ],
)
def test_the_first_rung_may_lie_below_the_longest_schedule(load, space, first_rung):
    config = load(f"space: {space}\nsearch: {{stop: {{asha: {{first_rung: {first_rung}}}}}}}")

    assert config.search.stop.asha.first_rung == first_rung


def test_choices_that_can_only_contradict_each_other_are_refused(load):
    said = refusal(load, "space: {sampling: [balanced, power], loss: logit_adjusted}")

    assert "space.loss: loss 'logit_adjusted' corrects the class shares that sampling 'balanced' has corrected" in said


def test_choices_of_which_some_go_together_are_fine(load):
    load("space: {sampling: [balanced, imbalanced], loss: logit_adjusted}")


@pytest.mark.parametrize(
    ("space", "longest"),
    [
        ("{model: {choose: {wafer_cnn: {epochs: [2, 20]}, wafer_resnet: {epochs: 3}}}}", 20),
        ("{lr: 1e-3}", 10),
        ("{epochs: {low: 2, high: 6}}", 6),
    ],
)
def test_the_first_rung_must_lie_below_the_longest_schedule_wherever_that_is_set(load, space, longest):
    said = refusal(load, f"space: {space}\nsearch: {{stop: {{asha: {{first_rung: {longest}}}}}}}")

    assert said.startswith(
        f":2 search.stop.asha.first_rung: must be below the longest schedule ({longest} epochs); got "
    )


def test_without_a_judge_the_length_does_not_matter(load):
    assert load("space: {epochs: 1}\nsearch: {stop: null}").search.stop is None


@pytest.mark.parametrize(
    ("space", "key", "largest"),
    [
        ("{batch_size: 128}", "space.batch_size", 128),
        ("{batch_size: [32, 256]}", "space.batch_size", 256),
        ("{batch_size: {low: 32, high: 512}}", "space.batch_size", 512),
        (
            "{model: {choose: {wafer_cnn: {batch_size: [32, 256]}, wafer_resnet: {batch_size: 64}}}}",
            "space.model.choose.wafer_cnn.batch_size",
            256,
        ),
    ],
)
def test_a_batch_may_not_be_larger_than_an_epoch(load, space, key, largest):
    said = refusal(load, f"data: {{epoch_samples: 100}}\nspace: {space}")

    assert said == f":2 {key}: must be at most data.epoch_samples (100); got {largest}"


def test_a_batch_may_be_as_large_as_an_epoch(load):
    assert load("data: {epoch_samples: 128}\nspace: {batch_size: 128}").data.epoch_samples == 128


def test_everything_has_a_default_but_the_space(load):
    config = load("space: {epochs: 4}")

    assert config.name == "space"
    assert config.data.wafers == "auto"
    assert config.data.split.val == 0.2
    assert config.objective.metric == "balanced_macro_f1"
    assert config.first == ()
    assert config.search.trials == 24
    assert config.search.time is None
    assert config.search.stop.asha.factor == 3
    assert config.resources.gpus == "auto"


def test_a_section_with_nothing_behind_it_has_its_defaults(load):
    text = "space: {epochs: 4}\n"

    assert load(text + "data:\nsearch:\nresources:\n") == load(text)


@pytest.mark.parametrize("search", ["", "search:\n", "search: {trials: 5, time: 1h}\n"])
def test_the_command_line_replaces_what_the_file_says(load, search):
    config = load(SPACE + search, overrides={"search.trials": 7, "search.time": "20m", "data.wafers": "w.npz"})

    assert (config.search.trials, config.search.time, config.data.wafers) == (7, 1200, "w.npz")


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({"search.trials": 0}, "search.trials: must be >= 1; got 0"),
        ({"search.time": "soon"}, f"search.time: {DURATION}; got 'soon'"),
        ({"search.time": "0"}, "search.time: must be > 0; got 0.0"),
    ],
)
def test_what_the_command_line_says_is_checked(load, overrides, what):
    assert refusal(load, SPACE + "search: {trials: 5}\n", overrides=overrides).endswith(f" {what}")


def test_a_bad_section_is_not_hidden_by_the_command_line(load):
    said = refusal(load, SPACE + "search: 5\n", overrides={"search.trials": 3})

    assert said == ":2 search: must be a mapping; got 5"


@pytest.mark.parametrize(
    "text",
    [
        "space: {epochs: 4}",
        "space: {epochs: [4], lr: {low: 1e-5, high: 1, log: true}}\nsearch: {stop: null, time: 1h30m}".replace(
            "1,", "1.0,"
        ),
        "space: {epochs: {low: 2, high: 8, step: 2}, sampling: {choose: {power: {alpha: {low: 0.1, high: 0.5}}}}}",
        "name: '1e4'\nspace: {epochs: 4}\nobjective: {weights: {none: 1, 'off': 2.5}}\nresources: {gpus: 0.25}",
        "space: {epochs: [4, 8]}\nfirst: [{epochs: 4}, {}]\nsearch: {stop: {asha: {first_rung: 1 epoch}}}",
    ],
)
def test_what_is_written_out_loads_to_the_same_config(load, text):
    config = load(text)

    assert load(dump_yaml(config.to_tree())) == config


def test_a_space_is_found_by_its_path_first(tmp_path, monkeypatch):
    (tmp_path / "smoke.yaml").write_text("space: {epochs: 4}")
    monkeypatch.chdir(tmp_path)

    assert find_space("smoke.yaml") == tmp_path / "smoke.yaml"


@pytest.mark.parametrize("name", ["smoke", "smoke.yaml"])
def test_a_shipped_space_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    assert find_space(name) == SHIPPED / "smoke.yaml"


def test_the_path_that_is_found_is_absolute(tmp_path, monkeypatch):
    shutil.copy(SHIPPED / "smoke.yaml", tmp_path / "mine.yaml")
    monkeypatch.chdir(tmp_path)

    assert find_space("mine.yaml").is_absolute()
    assert find_space("smoke").is_absolute()


@pytest.mark.parametrize("asked", ["smok", "smok.yaml", "smoke.yml"])
def test_a_space_that_is_not_there_gets_the_nearest_name(asked):
    expected = (
        f"{asked}: no such file, and no shipped space of that name; did you mean 'smoke'? (known: architectures, "
    )

    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}"):
        find_space(asked)


@pytest.mark.parametrize("asked", ["", ".", "no/such/folder/x.yaml", "a\0b"])
def test_a_strange_path_is_just_not_there(asked):
    with pytest.raises(ConfigError, match="no such file, and no shipped space of that name"):
        find_space(asked)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read \(No such file or directory\)"):
        load_study_config(tmp_path / "gone.yaml")
