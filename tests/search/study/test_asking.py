"""What a study hands out, what the sampler proposes, and what is best."""

import math

import pytest

from search.errors import ConfigError, TrialFailed
from search.study.rows import COMPLETE, INFEASIBLE, STOPPED
from search.study.study import JUDGED, Decision
from search.testing import drive, fake_report, fake_score, quality_by_lr
from search.trial.params import TrialParams

SAMPLERS = ("tpe", "random", "qmc", "gp", "tpe_gp")


def raise_if(condition, error):
    if condition:
        raise error


@pytest.mark.parametrize("slots", [1, 2, 5, 9])
@pytest.mark.parametrize("factor", [None, 2])
def test_exactly_as_many_trials_run_as_were_asked_for(run, folder, slots, factor, journal_of):
    study = run(trials=6, slots=slots, factor=factor)

    assert study.is_judged
    assert study.count(*JUDGED) == len(study.records) == len(journal_of(folder).trials) == 6


def test_no_more_trials_are_handed_out_than_may_still_be_judged(folder, make_config, open_study):
    with open_study(folder, make_config(trials=2)) as study:
        assignments = [study.ask() for _ in range(4)]

    assert [assignment and assignment.number for assignment in assignments] == [0, 1, None, None]
    assert len(study.running) == 2
    assert not study.is_over


def test_an_assignment_holds_all_that_a_trial_needs(folder, make_config, open_study):
    with open_study(folder, make_config(epochs="[3, 5]")) as study:
        assignment = study.ask()

    assert isinstance(assignment.params, TrialParams)
    assert assignment.params.epochs == assignment.config["epochs"] == study.records[0].epochs
    assert assignment.params.lr == assignment.config["lr"]
    assert assignment.epochs_done == 0
    assert assignment.expected_memory == 0


def test_memory_is_planned_before_a_trial_starts_and_recorded(folder, make_config, open_study, rows_of):
    with open_study(folder, make_config()) as study:
        study.plan = lambda params: 1000 * params.batch_size
        assignment = study.ask()
        study.report(assignment.number, fake_report(1, quality=0.5, n_classes=3))

    assert assignment.expected_memory == study.records[0].expected_memory == 128_000
    assert rows_of(folder)[0]["expected_memory"] == 128_000


def test_a_study_that_is_judged_hands_nothing_out(run, folder, make_config, open_study):
    run(trials=3)

    with open_study(folder, make_config(trials=3)) as again:
        assert again.is_over
        assert again.ask() is None


def test_a_space_of_constants_is_exhausted_after_one_trial(folder, load, open_study):
    config = load("data: {image_size: 16}\nspace: {epochs: 2}\nsearch: {trials: 2, stop: none}")

    with open_study(folder, config) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.5)

    assert study.count(COMPLETE) == len(study.records) == 1
    assert study.is_exhausted
    assert study.is_over
    assert not study.is_judged


def test_with_a_judge_the_losers_stop_and_the_best_does_not(run):
    study = run(trials=16, factor=2)

    complete = [quality_by_lr(record, 0) for record in study.records.values() if record.status == COMPLETE]
    stopped = [quality_by_lr(record, 0) for record in study.records.values() if record.status == STOPPED]
    assert study.count(STOPPED) >= 6
    assert max(complete) >= max(stopped)


def test_there_is_no_best_before_a_trial_ran_to_its_end(folder, make_config, open_study):
    with open_study(folder, make_config()) as study:
        drive(study, quality_of=quality_by_lr, max_steps=3)

    assert study.best is None


def test_a_stopped_trial_is_never_the_best(folder, make_config, open_study):
    with open_study(folder, make_config(trials=4, factor=2)) as study:
        numbers = [study.ask().number for _ in range(4)]
        for number, quality in zip(numbers, (0.9, 0.9, 0.9, 0.8), strict=True):
            decision = study.report(number, fake_report(1, quality=quality, n_classes=3))
        for epoch in (2, 3, 4):
            study.report(numbers[0], fake_report(epoch, quality=0.05, n_classes=3))

    assert decision is Decision.FINISHED
    assert study.records[3].status == STOPPED
    assert study.records[3].value > study.records[0].value
    assert study.best.number == 0


def test_a_weighted_objective_weighs_the_classes(run, classes):
    study = run(trials=2, objective="{weights: {Center: 3, none: 1}}")

    record = study.best
    expected = (3 * record.scores.f1[0] + record.scores.f1[2]) / 4
    assert record.value == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_macro_f1", "worst_class_f1"])
def test_the_objective_is_the_metric_asked_for(run, metric):
    study = run(trials=2, objective=f"{{maximize: {metric}}}")

    assert study.best.value == getattr(study.best.scores, metric)


def test_only_the_running_and_the_best_keep_a_checkpoint(folder, make_config, open_study):
    def quality_of(assignment, epoch):
        folder.checkpoint(assignment.number).parent.mkdir(exist_ok=True)
        folder.checkpoint(assignment.number).touch()
        return quality_by_lr(assignment, epoch)

    with open_study(folder, make_config(trials=9, factor=2)) as study:
        drive(study, quality_of=quality_of, max_steps=14)
        kept = set(folder.checkpoint(0).parent.iterdir())

    wanted = [study.best, *study.running]
    assert study.count(STOPPED)
    assert study.running
    assert kept == {folder.checkpoint(record.number) for record in wanted}


def test_first_points_come_first_and_partial_ones_are_filled_up(run):
    study = run(trials=3, first="[{lr: 0.02}, {model: wafer_cnn, model.wafer_cnn.width: 8}]")

    filled, whole, _ = (record.config for record in study.records.values())
    assert filled["lr"] == 0.02
    assert filled["model"] in ("wafer_cnn", "wafer_resnet")
    assert (whole["model"], whole["model.wafer_cnn.width"]) == ("wafer_cnn", 8)


@pytest.mark.parametrize("value", ["4.0", "true"])
def test_a_first_point_that_only_equals_a_value_of_the_space_is_refused_before_any_trial(make_config, value):
    with pytest.raises(ConfigError, match=r"first\.0\.epochs: must be 1 or 4; got"):
        make_config(epochs="[1, 4]", first=f"[{{epochs: {value}}}]")


def test_more_first_points_than_trials_are_left_out(run):
    study = run(trials=2, first="[{lr: 1e-3}, {lr: 2e-3}, {lr: 3e-3}]")

    assert [record.config["lr"] for record in study.records.values()] == [1e-3, 2e-3]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_study_proposes_the_same_again(new_folder, make_config, open_study, sampler):
    studies = []
    for _ in range(2):
        with open_study(new_folder(), make_config(trials=12, epochs="1", sampler=sampler)) as study:
            drive(study, quality_of=quality_by_lr)
        studies.append([record.config for record in study.records.values()])

    assert studies[0] == studies[1]


def test_tpe_finds_better_configurations_than_random_search(new_folder, make_config, open_study):
    def mean_of(sampler):
        with open_study(new_folder(), make_config(trials=40, epochs="1", sampler=sampler)) as study:
            drive(study, quality_of=quality_by_lr)
        return sum(record.value for record in study.records.values()) / 40

    assert mean_of("tpe") > mean_of("random")


def test_the_sampler_leaves_a_region_that_does_not_work(new_folder, make_config, open_study):
    def quality_of(assignment, epoch):
        raise_if(assignment.config["lr"] > 1e-2, TrialFailed("out_of_memory", "out of memory"))
        return 1 - abs(math.log10(assignment.config["lr"]) + 3) / 3

    with open_study(new_folder(), make_config(trials=50, epochs="1")) as study:
        drive(study, quality_of=quality_of, slots=1)

    late = [record.status for record in list(study.records.values())[20:]]
    assert late.count(INFEASIBLE) < 10  # a third of the space would be as many by chance
    assert fake_score(1, quality=1) - study.best.value < 0.05


SMALL = """
data: {{wafers: synthetic, image_size: 16, epoch_samples: 256}}
space: {{epochs: 2, sampling: [imbalanced, balanced], loss: [cross_entropy, logit_adjusted]}}
forbid: {forbid}
first: {first}
search: {{trials: 24, sampler: {sampler}, stop: none}}
"""


@pytest.fixture
def small(load):
    """Make the config of a space of four configurations, of which one contradicts itself."""
    return lambda *, sampler="random", forbid="[]", first="[]": load(
        SMALL.format(sampler=sampler, forbid=forbid, first=first)
    )


def pairs_of(study):
    return [(record.config["sampling"], record.config["loss"]) for record in study.records.values()]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_that_corrects_the_prior_twice_is_never_made(folder, small, open_study, sampler):
    with open_study(folder, small(sampler=sampler)) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.5)

    assert sorted(pairs_of(study)) == [
        ("balanced", "cross_entropy"),
        ("imbalanced", "cross_entropy"),
        ("imbalanced", "logit_adjusted"),
    ]
    assert study.count(COMPLETE) == study.count(*JUDGED) == 3
    assert study.is_exhausted


def test_what_a_rule_forbids_is_never_proposed(folder, small, open_study):
    config = small(forbid="[{if: sampling == 'balanced', why: tried before}]")

    with open_study(folder, config) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.5)

    assert sorted(pairs_of(study)) == [("imbalanced", "cross_entropy"), ("imbalanced", "logit_adjusted")]


def test_a_forbidden_share_of_a_space_takes_no_trials(run):
    study = run(trials=20, forbid="[{if: lr > 1e-3 or model == 'wafer_resnet', why: too wild}]")

    assert study.count(COMPLETE) == len(study.records) == 20
    assert all(study.config.forbids(record.config) is None for record in study.records.values())


def test_first_points_that_are_the_same_are_left_out(folder, small, open_study):
    config = small(
        forbid="[{if: sampling == 'balanced', why: tried before}]",
        first="[{loss: logit_adjusted}, {loss: logit_adjusted}, {sampling: imbalanced}]",
    )

    with open_study(folder, config) as study:
        drive(study, quality_of=lambda assignment, epoch: 0.5, slots=1)

    assert pairs_of(study) == [("imbalanced", "logit_adjusted"), ("imbalanced", "cross_entropy")]
    assert [dict(record.origin) for record in study.records.values()] == [{"first": 0}, {"first": 2}]


def test_a_space_is_not_exhausted_while_a_trial_that_may_break_is_under_way(folder, small, open_study):
    with open_study(folder, small()) as study:
        numbers = [study.ask().number for _ in range(3)]
        nothing = study.ask()
        was_exhausted = study.is_exhausted
        study.fail(numbers[1], "a bug")
        again = study.ask()

    assert nothing is None
    assert not was_exhausted
    assert (again.number, again.config) == (3, study.records[numbers[1]].config)


def test_an_exhausted_study_stays_so_when_it_is_opened_again(folder, small, open_study):
    for _ in range(2):
        with open_study(folder, small()) as study:
            drive(study, quality_of=lambda assignment, epoch: 0.5)

    assert len(study.records) == 3
    assert study.is_exhausted


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_a_study_to_its_end(run, assert_consistent, folder, sampler):
    study = run(
        trials=14,
        sampler=sampler,
        factor=2,
        first="[{lr: 1e-2}]",
        forbid="[{if: weight_decay > 0.05, why: too much}]",
        constraints="[macro_f1 >= 0.2]",
    )

    assert study.count(*JUDGED) == len(study.records) == 14
    assert study.count(STOPPED)
    assert study.best is not None
    for record in study.records.values():
        assert all(study.config.space.contains(name, value) for name, value in record.config.items())
    assert_consistent(folder, study)
