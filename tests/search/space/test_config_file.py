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
RULE = "{if: CONDITION, why: REASON}"
FLOORS = '["f1[Scratch] >= 0.60"]'

# What stands in the second line, below a good space, and what is said about it.
BAD_SECTIONS = [
    # the whole
    ("spaces: {}", "spaces: unknown key; did you mean 'space'? (known: confirm, constraints, data, first, forbid, "),
    ("confirm: {top: 0}", "confirm.top: must be >= 1; got 0"),
    ("confirm: {seed: 3}", "confirm.seed: unknown key; did you mean 'seeds'?"),
    ("confirm: {folds: 1}", "confirm: must train something: seeds from 1, or folds from 2; got {'folds': 1}"),
    ("confirm: {seeds: 0}", "confirm: must train something: seeds from 1, or folds from 2; got {'seeds': 0}"),
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
    ("objective: {over: mean}", "objective.over: unknown rule 'mean'; known: ema, last, mean_last_3"),
    ("objective: {over: emma}", "objective.over: unknown rule 'emma'; did you mean 'ema'? (known: ema, last, "),
    ("objective: {over: null}", "objective.over: unknown rule None; known: ema, last, mean_last_3"),
    ("objective: {over: [last]}", "objective.over: unknown rule ['last']; did you mean 'last'? (known: ema, last, "),
    ("objective: {overs: last}", "objective: must be {maximize: balanced_macro_f1 or macro_f1 or worst_class_f1} or {"),
    ("objective: {weights: {a: 1}, over: mean_last_5}", "objective.over: unknown rule 'mean_last_5'; did you mean 'm"),
    # forbid
    ("forbid: null", f"forbid: must be a list of {RULE}; got None"),
    ("forbid: {if: lr > 1, why: x}", f"forbid: must be a list of {RULE}; got {{'if': 'lr > 1', 'why': 'x'}}"),
    ("forbid: lr > 1", f"forbid: must be a list of {RULE}; got 'lr > 1'"),
    ("forbid: [lr > 1]", f"forbid.0: must be {RULE}, both texts; got 'lr > 1'"),
    ("forbid: [null]", f"forbid.0: must be {RULE}, both texts; got None"),
    ("forbid: [{if: lr > 1}]", f"forbid.0: must be {RULE}, both texts; got {{'if': 'lr > 1'}}"),
    ("forbid: [{why: too large}]", f"forbid.0: must be {RULE}, both texts; got {{'why': 'too large'}}"),
    ("forbid: [{if: lr > 1, why: ''}]", f"forbid.0: must be {RULE}, both texts; got {{'if': 'lr > 1', 'why': ''}}"),
    ("forbid: [{if: ' ', why: x}]", f"forbid.0: must be {RULE}, both texts; got {{'if': ' ', 'why': 'x'}}"),
    ("forbid: [{if: lr > 1, why: 5}]", f"forbid.0: must be {RULE}, both texts; got {{'if': 'lr > 1', 'why': 5}}"),
    ("forbid: [{if: true, why: x}]", f"forbid.0: must be {RULE}, both texts; got {{'if': True, 'why': 'x'}}"),
    ("forbid: [{if: lr > 1, why: x, when: y}]", f"forbid.0: must be {RULE}, both texts; got {{'if': 'lr > 1', 'why"),
    ("forbid: [{if: lr >, why: x}]", "forbid.0.if: column "),
    ("forbid: [{if: lr ** 2 > 1, why: x}]", "forbid.0.if: ** is not allowed, at 'lr ** 2'; allowed are parameters and"),
    ("forbid: [{if: lrr > 1, why: x}]", "forbid.0.if: no trial has a parameter 'lrr'; did you mean 'lr'? (known: "),
    ("forbid: [{if: epochs == 5, why: x}]", "forbid.0.if: epochs is never 5; known: 4, 8"),
    ("forbid: [{if: model > 3, why: x}]", "forbid.0.if: model can be a word, and < > + - * / need numbers"),
    ("forbid: [{if: 1 > 2, why: x}]", "forbid.0.if: must mention at least one parameter"),
    # constraints
    ("constraints: null", f"constraints: must be a list such as {FLOORS}; got None"),
    ("constraints: macro_f1 >= 0.6", f"constraints: must be a list such as {FLOORS}; got 'macro_f1 >= 0.6'"),
    ("constraints: {macro_f1: 0.6}", f"constraints: must be a list such as {FLOORS}; got {{'macro_f1': 0.6}}"),
    ("constraints: [0.6]", "constraints.0: must be METRIC[CLASS] >= NUMBER with f1, precision, recall, or METRIC >= N"),
    ("constraints: [null]", "constraints.0: must be METRIC[CLASS] >= NUMBER with f1, precision, recall, or METRIC >= "),
    ("constraints: ['f1[Loc] > 0.6']", "constraints.0: must be METRIC[CLASS] >= NUMBER with f1, precision, recall, o"),
    ("constraints: ['f2[Loc] >= 0.6']", "constraints.0: unknown metric 'f2'; known: accuracy, balanced_macro_f1, f1"),
    ("constraints: ['f1 >= 0.6']", "constraints.0: f1 is of one class: write f1[CLASS]; got 'f1 >= 0.6'"),
    ("constraints: ['accuracy[Loc] >= 0.6']", "constraints.0: accuracy is over all classes: leave out [Loc]; got 'ac"),
    ("constraints: ['f1[Loc] >= 0']", "constraints.0: a floor must be in (0, 1]; got 0"),
    ("constraints: ['f1[Loc] >= 1.1']", "constraints.0: a floor must be in (0, 1]; got 1.1"),
    ("constraints: ['f1[Loc] >= high']", "constraints.0: 'high' is no number; must be METRIC[CLASS] >= NUMBER with "),
    (
        "constraints: ['f1[Loc] >= 0.5', 'f1[ Loc ] >= 0.7']",
        "constraints.1: f1[Loc] >= 0.7: stands beside f1[Loc] >= 0.5; keep the higher one",
    ),
    (
        "constraints: [macro_f1 >= 0.5, macro_f1>=0.5]",
        "constraints.1: macro_f1 >= 0.5: stands beside macro_f1 >= 0.5; keep the higher one",
    ),
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
    ("search: {trails: 5}", "search.trails: unknown key; did you mean 'trials'? (known: failures, gpu_hours, "),
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
    ("search: {gpu_hours: 0}", "search.gpu_hours: must be > 0; got 0"),
    ("search: {gpu_hours: -1}", "search.gpu_hours: must be > 0; got -1"),
    ("search: {gpu_hours: .inf}", "search.gpu_hours: must be a finite number; got inf"),
    ("search: {gpu_hours: .nan}", "search.gpu_hours: must be a finite number; got nan"),
    ("search: {gpu_hours: 2h}", "search.gpu_hours: must be a number; got '2h'"),
    ("search: {gpu_hours: true}", "search.gpu_hours: must be a number; got True"),
    ("search: {trial_time: 0}", "search.trial_time: must be > 0; got 0"),
    ("search: {trial_time: 0s}", "search.trial_time: must be > 0; got 0.0"),
    ("search: {trial_time: -5m}", f"search.trial_time: {DURATION}; got '-5m'"),
    ("search: {trial_time: 20 minutes}", f"search.trial_time: {DURATION}; got '20 minutes'"),
    ("search: {trial_time: .inf}", "search.trial_time: must be a finite number; got inf"),
    ("search: {trial_time: true}", "search.trial_time: must be a number; got True"),
    ("search: {trial_time: [5]}", "search.trial_time: must be a number; got [5]"),
    ("search: {failures: 0}", "search.failures: must be >= 1; got 0"),
    ("search: {failures: 1001}", "search.failures: must be <= 1000; got 1001"),
    ("search: {failures: 2.5}", "search.failures: must be a whole number; got 2.5"),
    ("search: {failures: null}", "search.failures: must be a whole number; got None"),
    ("search: {failures: none}", "search.failures: must be a whole number; got 'none'"),
    ("search: {sampler: grid}", "search.sampler: must be tpe, gp, tpe_gp, random or qmc; got 'grid'"),
    ("search: {stop: never}", "search.stop: must be a mapping; got 'never'"),
    ("search: {stop: asha}", "search.stop: must be a mapping; got 'asha'"),
    ("search: {stop: {ahsa: {}}}", "search.stop.ahsa: unknown key; did you mean 'asha'? (known: asha)"),
    ("search: {stop: {asha: {rung: 2}}}", "search.stop.asha.rung: unknown key; known: factor, first_rung, peers, "),
    ("search: {stop: {asha: {factor: 1}}}", "search.stop.asha.factor: must be >= 2; got 1"),
    ("search: {stop: {asha: {factor: 11}}}", "search.stop.asha.factor: must be <= 10; got 11"),
    ("search: {stop: {asha: {first_rung: 0 epochs}}}", "search.stop.asha.first_rung: must be >= 1; got "),
    ("search: {stop: {asha: {first_rung: two}}}", "search.stop.asha.first_rung: must be a whole number; got 'two'"),
    ("search: {stop: {asha: {peers: 0}}}", "search.stop.asha.peers: must be >= 1; got 0"),
    ("search: {stop: {asha: {peers: 10001}}}", "search.stop.asha.peers: must be <= 10000; got 10001"),
    ("search: {stop: {asha: {peers: few}}}", "search.stop.asha.peers: must be a whole number; got 'few'"),
    ("search: {stop: {asha: {progresive: true}}}", "search.stop.asha.progresive: unknown key; did you mean "),
    ("search: {stop: {asha: {progressive: yes}}}", "search.stop.asha.progressive: must be true or false; got 'yes'"),
    (
        "search: {stop: {asha: {first_rung: 8 epochs}}}",
        "search.stop.asha.first_rung: must be below the longest schedule (8 epochs); got 8 epochs; every trial",
    ),
    (
        "search: {stop: {asha: {first_rung: 3, progressive: true}}}",
        "search.stop.asha.progressive: must have a second rung below the longest schedule (8 epochs); got one at 9 ",
    ),
    # resources
    ("resources: {cpu: 2}", "resources.cpu: unknown key; did you mean 'cpus'? (known: cpus, gpus, models)"),
    ("resources: {cpus: 0}", "resources.cpus: must be >= 1; got 0"),
    ("resources: {cpus: auto}", "resources.cpus: must be a whole number; got 'auto'"),
    ("resources: {gpus: all}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got 'all'"),
    ("resources: {gpus: 1.5}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got 1.5"),
    ("resources: {gpus: -1}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got -1"),
    ("resources: {gpus: 65}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got 65"),
    ("resources: {gpus: .inf}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got inf"),
    ("resources: {gpus: .nan}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got nan"),
    ("resources: {gpus: true}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got True"),
    ("resources: {gpus: [1]}", "resources.gpus: must be auto, none, in [0, 1], or whole up to 64; got [1]"),
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

    keys = "name, data, space, objective, first, forbid, constraints, search, resources, confirm"
    assert said == f":1 must be a mapping with the keys {keys}"


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


def test_mistakes_in_rules_and_floors_are_reported_together_each_with_its_line(load):
    text = """
space: {epochs: [4, 8], lr: {low: 1e-4, high: 1e-2}}
objective:
  maximize: makro_f1
  over: mean
forbid:
  - {if: lr > 1e-3, why: diverges}
  - {if: lrr > 1e-3, why: diverges}
  - if: epochs == 5
    why: ""
  - why: a rule has reasons
    if: epochs + model > 5 and lr == 3
constraints:
  - macro_f1 >= 0.5
  - f1[Loc] >= 5
  - macro_f1 >= 0.6
search: {gpu_hours: 0, stop: {asha: {peers: 0}}}
"""

    lines = refusal(load, text).splitlines()

    assert lines[0] == ": 10 problems"
    assert sorted(line.strip().partition(": ")[0] for line in lines[1:]) == sorted(
        [
            ":5 objective.over",
            ":4 objective.maximize",
            ":8 forbid.1.if",
            ":9 forbid.2",
            ":12 forbid.3.if",
            ":12 forbid.3.if",
            ":15 constraints.1",
            ":16 constraints.2",
            ":17 search.gpu_hours",
            ":17 search.stop.asha.peers",
        ]
    )
    assert [int(line.split(":")[1].split()[0]) for line in lines[1:]] == [4, 5, 8, 9, 12, 12, 15, 16, 17, 17]


def test_rules_and_floors_are_read(load):
    config = load(
        SPACE
        + """
forbid:
  - {if: lr > 1e-3 and epochs == 8, why: " long and fast "}
  - {if: "grad_clip in [0.0, 0.5]", why: diverges}
constraints: ["f1[Edge Ring]>=0.6", "f1[Edge Loc] >= .5", macro_f1 >= 0.7, "recall[Edge Ring] >= 1"]
"""
    )

    assert [rule.condition.text for rule in config.forbid] == ["lr > 1e-3 and epochs == 8", "grad_clip in [0.0, 0.5]"]
    assert [(floor.metric, floor.class_name, floor.least) for floor in config.floors] == [
        ("f1", "Edge Ring", 0.6),
        ("f1", "Edge Loc", 0.5),
        ("macro_f1", None, 0.7),
        ("recall", "Edge Ring", 1.0),
    ]


@pytest.mark.parametrize(
    ("flat", "why"),
    [
        ({"epochs": 8, "lr": 5e-3, "grad_clip": 1.0}, "long and fast"),
        ({"epochs": 8, "lr": 1e-3, "grad_clip": 1.0}, None),
        ({"epochs": 4, "lr": 5e-3, "grad_clip": 0.5}, "diverges"),
        ({"epochs": 8, "lr": 5e-3, "grad_clip": 0.5}, "long and fast"),
    ],
)
def test_a_configuration_is_forbidden_by_the_first_rule_that_holds(load, flat, why):
    rules = "{if: lr > 1e-3 and epochs == 8, why: long and fast}, {if: grad_clip <= 0.5, why: diverges}"

    assert load(SPACE + f"forbid: [{rules}]").forbids(flat) == why


def test_what_contradicts_itself_is_forbidden_without_a_rule(load):
    config = load("space: {sampling: [balanced, imbalanced], loss: [cross_entropy, logit_adjusted]}")

    assert config.forbids({"sampling": "imbalanced", "loss": "logit_adjusted"}) is None
    assert "corrects the class shares" in config.forbids({"sampling": "balanced", "loss": "logit_adjusted"})


def test_a_rule_may_speak_of_what_the_space_leaves_at_its_default(load):
    config = load(
        SPACE + "forbid: [{if: model != 'wafer_cnn', why: x}, {if: batch_size == 128 and epochs == 8, why: y}]"
    )

    assert config.forbids({"epochs": 4, "lr": 1e-3, "grad_clip": 0.0}) is None
    assert config.forbids({"epochs": 8, "lr": 1e-3, "grad_clip": 0.0}) == "y"


RULES_AGAINST_ALL = {
    "one rule": ('[{if: "epochs > 2", why: too long}]', [":2 forbid.0: must leave something of the space; this rule"]),
    "two rules": ('[{if: "epochs == 4", why: short}, {if: "epochs == 8", why: long}]', ["forbid.0", "forbid.1"]),
    "one idle rule": ('[{if: "epochs > 8", why: idle}, {if: "epochs < 9", why: all}]', [":2 forbid.1: must leave"]),
}


@pytest.mark.parametrize("case", RULES_AGAINST_ALL)
def test_rules_that_leave_nothing_of_the_space_are_refused(load, case):
    rules, parts = RULES_AGAINST_ALL[case]

    said = refusal(load, f"space: {{epochs: [4, 8], batch_size: [32, 64]}}\nforbid: {rules}")

    assert all(part in said for part in parts)
    assert "of 4 configurations (" in said
    assert "idle" not in said


def test_rules_that_leave_nothing_of_an_endless_space_are_refused(load):
    said = refusal(load, SPACE + 'forbid: [{if: "lr < 1", why: slow}]')

    assert (
        said
        == ":2 forbid.0: must leave something of the space; this rule forbids 10,000 of 10,000 draws (slow); relax it"
    )


def test_one_configuration_that_is_left_is_enough(load):
    rule = '{if: "not (epochs == 97 and batch_size == 198)", why: x}'
    config = load(f"space: {{epochs: {{low: 3, high: 100}}, batch_size: {{low: 100, high: 199}}}}\nforbid: [{rule}]")

    assert config.space.size() == 9800
    assert config.forbids({"epochs": 97, "batch_size": 198}) is None


def test_a_whole_first_point_that_is_forbidden_is_refused_with_its_line_and_the_reason(load):
    points = "first:\n  - {epochs: 4}\n  - {epochs: 8, lr: 1e-2, grad_clip: 0.0}\n"

    said = refusal(load, f'{SPACE}{points}forbid: [{{if: "epochs == 8 and lr > 1e-3", why: diverges}}]')

    assert said == ":4 first.1: is forbidden (diverges); change it, or relax the rule"


def test_a_first_point_that_contradicts_itself_is_refused(load):
    space = "space: {sampling: [balanced, imbalanced], loss: [cross_entropy, logit_adjusted], lr: [1e-3, 1e-2]}\n"
    point = "sampling: balanced, loss: logit_adjusted"

    why = "(loss 'logit_adjusted' corrects the class shares"
    assert load(f"{space}first: [{{sampling: balanced}}]").first
    assert refusal(load, f"{space}first: [{{{point}, lr: 1e-2}}]").startswith(f":2 first.0: is forbidden {why}")
    part = refusal(load, f"{space}first: [{{{point}}}]")
    assert part.startswith(f":2 first.0: is forbidden, however it is filled up {why}")


def test_one_way_to_fill_a_first_point_up_is_enough(load):
    space = "space: {epochs: [4, 8], batch_size: {low: 100, high: 199}}\n"
    rule = '{if: "epochs == 8 and batch_size != 150", why: x}'

    config = load(f"{space}first: [{{epochs: 8}}]\nforbid: [{rule}]")

    assert config.first == ({"epochs": 8},)


def test_what_belongs_to_other_branches_is_not_missing_in_a_first_point(load):
    space = "space: {model: {choose: {wafer_cnn: {width: [4, 8]}, wafer_resnet: {width: [8, 16]}}}}\n"
    point = "first: [{model: wafer_resnet, model.wafer_resnet.width: 16}]\n"

    said = refusal(load, f'{space}{point}forbid: [{{if: "width == 16", why: wide}}]')

    assert said == ":2 first.0: is forbidden (wide); change it, or relax the rule"


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_the_samplers_are_known(load, sampler):
    assert load(SPACE + f"search: {{sampler: {sampler}}}").search.sampler == sampler


@pytest.mark.parametrize("over", ["last", "mean_last_3", "ema"])
@pytest.mark.parametrize("what", ["maximize: macro_f1, ", "weights: {Scratch: 2}, ", ""])
def test_the_rule_over_the_epochs_goes_with_any_objective(load, what, over):
    assert load(SPACE + f"objective: {{{what}over: {over}}}").objective.over == over


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("gpu_hours: 2", {"gpu_hours": 2}),
        ("gpu_hours: 0.25", {"gpu_hours": 0.25}),
        ("gpu_hours: null", {"gpu_hours": None}),
        ("trial_time: 1h30m", {"trial_time": 5400}),
        ("trial_time: 90", {"trial_time": 90}),
        ("trial_time: null", {"trial_time": None}),
        ("failures: 1", {"failures": 1}),
        ("failures: 1000", {"failures": 1000}),
    ],
)
def test_the_limits_of_a_search_are_read(load, search, expected):
    found = load(SPACE + f"search: {{{search}}}").search.model_dump()

    assert found | expected == found


@pytest.mark.parametrize("peers", [1, 3, 10_000])
def test_the_judge_waits_for_as_many_others_as_it_is_told(load, peers):
    assert load(SPACE + f"search: {{stop: {{asha: {{peers: {peers}}}}}}}").search.stop.asha.peers == peers


@pytest.mark.parametrize("nothing", ["none", "null", "", "~"])
def test_stop_none_is_no_judge(load, nothing):
    assert load(SPACE + f"search:\n  stop: {nothing}\n").search.stop is None


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
        ("{model: {choose: {wafer_cnn: {epochs: [2, 5]}, wafer_resnet: {epochs: 3}}}}", 4),
        ("{model: {choose: {wafer_cnn: {epochs: [2, 5]}, wafer_resnet: {}}}}", 9),
        ("{lr: 1e-3}", 9),
        ("{epochs: {low: 2, high: 6}}", 5),
        ("{epochs: 1}", 2),
    ],
)
def test_the_first_rung_may_lie_below_the_longest_schedule(load, space, first_rung):
    config = load(f"space: {space}\nsearch: {{stop: {{asha: {{first_rung: {first_rung}}}}}}}")

    assert config.search.stop.asha.first_rung == first_rung


def test_the_default_length_does_not_count_where_every_branch_sets_its_own(load):
    text = "space: {model: {choose: {wafer_cnn: {epochs: [2, 5]}, wafer_resnet: {epochs: 3}}}}\n"

    said = refusal(load, f"{text}search: {{stop: {{asha: {{first_rung: 9}}}}}}")

    assert "must be below the longest schedule (5 epochs); got 9 epochs" in said


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


def test_a_cap_needs_two_rungs_below_the_longest_schedule(load):
    config = load("space: {epochs: [4, 8]}\nsearch: {stop: {asha: {first_rung: 2, factor: 3, progressive: true}}}")

    assert config.search.stop.asha.progressive


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
    assert config.objective.over == "last"
    assert config.first == config.forbid == config.floors == ()
    assert config.search.trials == 24
    assert config.search.time is config.search.gpu_hours is config.search.trial_time is None
    assert config.search.failures == 3
    assert config.search.sampler == "tpe_gp"
    assert (config.search.stop.asha.factor, config.search.stop.asha.peers) == (3, 3)
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
    said = refusal(load, SPACE + "search: {trials: 5}\n", overrides=overrides)

    assert said.endswith(f" {what} (from the command line)")


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
        "space: {epochs: [4, 8]}\nforbid: [{if: epochs == 8 or lr > 1, why: 'a: b'}, {if: not epochs < 5, why: '1'}]",
        "space: {epochs: [4, 8]}\nconstraints: ['f1[ Edge-Ring ] >= 0.6', accuracy >= 1, 'recall[a: b] >= 1e-3']",
        "space: {epochs: 4}\nobjective: {over: ema}\nsearch: {stop: none, gpu_hours: 0.5, trial_time: 5m, failures: 1}",
        "space: {epochs: 4}\nobjective: {weights: {a: 1}, over: mean_last_3}",
        "space: {epochs: 4}\nsearch: {sampler: gp, stop: {asha: {peers: 9}}}",
        "space: {epochs: 9}\nsearch: {stop: {asha: {progressive: true}}}",
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
