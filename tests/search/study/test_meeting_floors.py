"""Floors steer a search: through the sampler, the judge, and who may be exported. And the rule over the epochs."""

import pytest
from optuna.trial import TrialState

from search.space.objective import Objective
from search.study.best import write_best
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, STOPPED
from search.study.study import Decision
from search.testing import drive, fake_score, quality_by_lr

FLOORS = '["recall[Center] >= 0.5", macro_f1 >= 0.3]'
NONE = "{weights: {none: 1}}"  # of which the F1 does not depend on Center
DATA = {"synthetic": True, "drawn": False, "fingerprint": "123456789012", "split_fingerprint": "1e1234567890"}


@pytest.fixture
def play(folder, make_config, open_study, report_of):
    """Report, one trial after the other, what is said of each of their epochs; return the study, still open."""

    def play_it(*trials, **config):
        config = {"objective": NONE, "constraints": FLOORS, "epochs": str(len(trials[0])), **config}
        study = open_study(folder, make_config(trials=50, **config))
        for reports in trials:
            number = study.ask().number
            for epoch, (center, none) in enumerate(reports, start=1):
                if study.report(number, report_of(epoch, center=center, none=none)) is not Decision.CONTINUE:
                    break
        return study

    return play_it


def statuses(study):
    return [record.status for record in study.records.values()]


def test_without_floors_nothing_is_missed(run, journal_of, folder):
    study = run(trials=3)

    assert all(record.shortfalls == [0.0] * 4 for record in study.records.values())
    assert [trial.constraints for trial in journal_of(folder).trials] == [{}] * 3


def test_the_shortfall_is_what_is_missing_of_all_floors_together(play, rows_of, folder):
    study = play([(0.7, 0.9), (0.4, 0.9)], constraints='["recall[Center] >= 0.5", "recall[none] >= 0.95"]')

    assert study.records[0].shortfalls == pytest.approx([0.05, 0.1 + 0.05])
    assert [row["shortfall"] for row in rows_of(folder)] == study.records[0].shortfalls


def test_every_ended_trial_carries_its_floors_in_the_journal(play, journal_of, folder):
    study = play(*[[(0.9, 0.8)] * 2] * 3, [(0.4, 0.1)] * 2, factor=2)
    study.reject(study.ask().number, "out of memory")
    study.fail(study.ask().number, "a bug")

    trials = journal_of(folder).trials
    assert statuses(study) == [COMPLETE] * 3 + [STOPPED, INFEASIBLE, FAILED]
    assert [trial.constraints.get("recall[Center] >= 0.5") for trial in trials] == pytest.approx(
        [-0.4] * 3 + [0.1, None, None]
    )
    assert [trial.constraints.keys() for trial in trials[:4]] == [{"recall[Center] >= 0.5", "macro_f1 >= 0.3"}] * 4
    assert trials[4].constraints == {"works": 10.0}
    assert trials[3].state is TrialState.PRUNED


def test_a_rejected_trial_that_reported_carries_both(folder, make_config, open_study, report_of, journal_of):
    with open_study(folder, make_config(constraints="[macro_f1 >= 0.3]")) as study:
        number = study.ask().number
        study.report(number, report_of(1, 0.2))
        study.reject(number, "loss became nan")

    assert journal_of(folder).trials[0].constraints == pytest.approx({"macro_f1 >= 0.3": 0.1, "works": 10.0})


def test_floors_are_met_by_the_last_epoch_alone(play):
    study = play([(0.1, 0.9), (0.9, 0.9)], [(0.9, 0.99), (0.1, 0.99)])

    assert [record.shortfalls[-1] == 0 for record in study.records.values()] == [True, False]
    assert study.best.number == 0


def test_the_judge_prefers_who_meets_the_floors(play):
    meets, misses = [(0.9, 0.5)] * 2, [(0.4, 0.99)] * 2

    study = play(meets, meets, meets, misses, factor=2)

    assert statuses(study) == [COMPLETE] * 3 + [STOPPED]
    assert study.records[3].value > study.records[0].value


def test_the_judge_lets_who_meets_the_floors_go_on_among_those_who_miss_them(play):
    meets, misses = [(0.9, 0.5)] * 2, [(0.4, 0.99)] * 2

    study = play(misses, misses, misses, meets, factor=2)

    assert study.records[3].status == COMPLETE


def test_of_those_who_miss_the_floors_the_judge_prefers_the_nearest(play):
    trials = [[(center, 0.9)] * 2 for center in (0.4, 0.4, 0.4, 0.3, 0.45)]

    assert statuses(play(*trials, factor=2)) == [COMPLETE] * 3 + [STOPPED, COMPLETE]


def test_a_judge_that_is_opened_again_still_prefers_who_meets_the_floors(
    play, folder, make_config, open_study, report_of
):
    play(*[[(0.9, 0.5)] * 2] * 3, factor=2).close()
    config = make_config(trials=50, objective=NONE, constraints=FLOORS, epochs="2", factor=2)

    with open_study(folder, config) as again:
        decision = again.report(again.ask().number, report_of(1, center=0.4, none=0.99))

    assert decision is Decision.FINISHED
    assert again.records[3].status == STOPPED


def test_the_best_meets_all_floors_even_if_another_is_better(play):
    study = play([(0.4, 0.99)], [(0.9, 0.6)], [(0.6, 0.7)], [(0.49, 1.0)])

    assert study.best is study.leader is study.records[2]


def test_if_all_miss_a_floor_there_is_no_best_but_a_leader(play, folder):
    study = play([(0.3, 0.99)], [(0.45, 0.6)], [(0.45, 0.7)], [(0.2, 1.0)])

    assert study.count(COMPLETE) == 4
    assert study.best is None
    assert study.leader is study.records[2]
    assert write_best(study, DATA) is None
    assert not folder.best.exists()


def test_what_meets_the_floors_is_exported(play, folder):
    study = play([(0.3, 0.99)], [(0.55, 0.6)])

    assert write_best(study, DATA) is study.records[1]
    assert "trial: 1\n" in folder.best.read_text("utf-8")


def test_best_and_leader_are_the_same_after_opening_again(play, folder, make_config, open_study):
    before = play([(0.3, 0.99)], [(0.45, 0.6)], [(0.7, 0.2)])
    found = (before.best.number, before.leader.number)
    before.close()

    with open_study(folder, make_config(trials=50, objective=NONE, constraints=FLOORS, epochs="1")) as after:
        assert (after.best.number, after.leader.number) == found == (2, 2)
        assert {n: record.shortfalls for n, record in after.records.items()} == {
            n: record.shortfalls for n, record in before.records.items()
        }


def test_a_score_on_the_floor_meets_it(play):
    assert play([(0.5, 0.9)]).best is not None


def test_the_sampler_goes_where_the_floors_are_met(new_folder, make_config, open_study, report_of):
    """The higher the rate the better the objective, but Center is only recalled below a rate of 0.003."""

    def share_of_low_rates(constraints):
        config = make_config(trials=60, epochs="1", objective=NONE, constraints=constraints)
        with open_study(new_folder(), config) as study:
            while assignment := study.ask():
                lr = assignment.config["lr"]
                study.report(assignment.number, report_of(1, center=0.9 if lr < 0.003 else 0.1, none=0.3 + 6 * lr))
        late = [record.config["lr"] for record in list(study.records.values())[30:]]
        return sum(lr < 0.003 for lr in late) / len(late)

    assert share_of_low_rates(FLOORS) > share_of_low_rates("[]") + 0.3


# The rule over the epochs is one and the same for what is recorded, judged, and best.


@pytest.mark.parametrize("over", ["last", "mean_last_3", "ema"])
def test_what_is_recorded_follows_the_rule_over_the_epochs(run, rows_of, journal_of, folder, classes, over):
    study = run(trials=5, factor=2, objective=f"{{maximize: macro_f1, over: {over}}}")

    objective, trials = Objective(metric="macro_f1", over=over), journal_of(folder).trials
    for record in study.records.values():
        scores = [report.val.scores for report in record.reports]
        expected = [objective.value(scores[: n + 1], classes) for n in range(len(scores))]
        assert record.values == expected
        assert trials[record.number].intermediate_values == dict(enumerate(expected, start=1))
        assert trials[record.number].value == expected[-1]
        assert [row["objective"] for row in rows_of(folder) if row["trial"] == record.number] == expected


# A trial that did well and fell back, and one that is steady.
FALLEN, STEADY = [0.8, 0.7, 0.3, 0.3], [0.4] * 4


def run_curves(study, curves, report_of):
    for curve in curves:
        number = study.ask().number
        for epoch, score in enumerate(curve, start=1):
            if study.report(number, report_of(epoch, score)) is not Decision.CONTINUE:
                break


@pytest.mark.parametrize(("over", "status"), [("last", STOPPED), ("mean_last_3", COMPLETE), ("ema", COMPLETE)])
def test_the_judge_follows_the_rule_over_the_epochs(folder, make_config, open_study, report_of, over, status):
    config = make_config(trials=9, factor=2, first_rung=3, objective=f"{{over: {over}}}")
    with open_study(folder, config) as study:
        run_curves(study, [STEADY, STEADY, STEADY, FALLEN], report_of)

    assert study.records[3].status == status


@pytest.mark.parametrize(("over", "best"), [("last", 0), ("mean_last_3", 1), ("ema", 1)])
def test_the_best_follows_the_rule_over_the_epochs(folder, make_config, open_study, report_of, over, best):
    config = make_config(trials=9, objective=f"{{over: {over}}}")
    with open_study(folder, config) as study:
        run_curves(study, [STEADY, [0.8, 0.8, 0.8, 0.39]], report_of)
        before = study.best.number

    with open_study(folder, config) as again:
        assert (before, again.best.number) == (best, best)


def test_a_smoothed_value_goes_on_after_an_interruption(new_folder, make_config, open_study):
    config, values = make_config(trials=2, objective="{over: ema}", first="[{lr: 1e-2}, {lr: 1e-3}]"), []
    for max_steps in ([None], [1, 2, 1, None]):
        folder = new_folder()
        for n in max_steps:
            with open_study(folder, config) as study:
                drive(study, quality_of=quality_by_lr, slots=1, max_steps=n)
        values.append([record.values for record in study.records.values()])

    assert values[0] == values[1]
    assert values[0][0][0] == pytest.approx(fake_score(1, quality=1.0))
