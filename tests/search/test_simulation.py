from collections.abc import Iterator

import pytest

from search.errors import TrialFailed
from search.simulation import CLASSES, Recording, accept_any, report_score, simulate
from search.space.config import DataConfig, ResourcesConfig, SearchConfig, StudyConfig
from search.space.objective import Objective
from search.space.space import Constant, Range, Space
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, INFEASIBLE, RUNNING, STOPPED
from search.study.study import Decision, Study
from search.testing import FakeClock

EPOCHS = 9


def make_config(*, trials=12, stop="none", seed=0):
    return StudyConfig(
        name="hill",
        data=DataConfig(),
        space=Space({"epochs": Constant(EPOCHS), "x": Range(0.0, 1.0), "y": Range(0.0, 1.0)}),
        objective=Objective(),
        first=(),
        forbid=(),
        floors=(),
        search=SearchConfig.model_validate({"trials": trials, "stop": stop, "seed": seed}),
        resources=ResourcesConfig(),
    )


ASHA = {"asha": {"first_rung": 1, "factor": 3}}
PASHA = {"asha": {"first_rung": 1, "factor": 3, "progressive": True}}


class Hill:
    """A trial gets better with every epoch, the more the nearer it is to (0.3, 0.7); some do not fit."""

    def __init__(self, *, seconds=lambda number: 1.0, works_up_to=1.0):
        self.seconds = seconds
        self.works_up_to = works_up_to

    def run(self, assignment) -> Iterator:
        x, y = assignment.config["x"], assignment.config["y"]
        seconds = self.seconds(assignment.number)
        for epoch in range(assignment.epochs_done + 1, EPOCHS + 1):
            if x > self.works_up_to:
                yield seconds, TrialFailed("out_of_memory", "does not fit")
                return
            score = (1 - (x - 0.3) ** 2 - (y - 0.7) ** 2) * epoch / (epoch + 2)
            yield seconds, report_score(epoch, score / 2, seconds=seconds)


def search(recording: Recording | None = None, *, workers=1, max_reports=None, folder=None, **config):
    return simulate(
        make_config(**config),
        recording or Hill(),
        workers=workers,
        max_reports=max_reports,
        folder=folder,
        check=accept_any,
    )


def known(records):
    return [(record.number, record.status, dict(record.config), list(record.values)) for record in records]


def loop(folder, recording, **config):
    """Run a study with one worker as anyone would write it down first."""
    with Study(folder, make_config(**config), classes=CLASSES, clock=FakeClock(), check=accept_any) as study:
        while assignment := study.ask():
            for _, report in recording.run(assignment):
                if isinstance(report, TrialFailed):
                    study.reject(assignment.number, str(report))
                elif study.report(assignment.number, report) is not Decision.CONTINUE:
                    break
        return list(study.records.values())


@pytest.mark.parametrize("stop", ["none", ASHA, PASHA], ids=["no judge", "asha", "pasha"])
def test_one_worker_gives_what_a_plain_loop_gives(tmp_path, stop):
    recording = Hill(works_up_to=0.8)
    expected = loop(StudyFolder(tmp_path / "study"), recording, stop=stop)

    simulation = search(recording, stop=stop)

    assert known(simulation.records) == known(expected)


def test_workers_side_by_side_share_the_time():
    alone = search(workers=1)
    together = search(workers=4)

    assert alone.n_reports == together.n_reports == 12 * EPOCHS
    assert alone.seconds == 12 * EPOCHS
    assert together.seconds == 3 * EPOCHS


def test_a_slow_trial_does_not_keep_the_other_workers_waiting():
    simulation = search(Hill(seconds=lambda number: 10.0 if number == 0 else 1.0), workers=2, trials=11)

    assert simulation.seconds == 10 * EPOCHS


def test_results_arrive_in_the_order_of_their_time():
    lengths = {0: 3.0, 1: 2.0}
    simulation = search(Hill(seconds=lengths.__getitem__), workers=2, trials=2, max_reports=5)

    first, second = simulation.records

    assert simulation.seconds == 6.0
    assert (len(first.values), len(second.values)) == (2, 3)  # both report after 6 s, the first worker before the other


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_seed_gives_the_same_search(workers):
    one, other = (search(workers=workers, stop=ASHA, trials=20, seed=3) for _ in range(2))

    assert known(one.records) == known(other.records)
    assert (one.n_reports, one.seconds, one.course) == (other.n_reports, other.seconds, other.course)


def test_another_seed_gives_another_search():
    assert known(search(seed=1).records) != known(search(seed=2).records)


def test_stopping_saves_reports():
    stopping = search(stop=ASHA, trials=30, workers=4)

    assert {record.status for record in stopping.records} == {COMPLETE, STOPPED}
    assert stopping.n_reports == sum(len(record.reports) for record in stopping.records)
    assert stopping.n_reports < search(trials=30, workers=4).n_reports / 2


def test_a_cap_saves_reports_where_the_order_is_settled_and_hands_over_as_good_a_trial():
    asha, pasha = (search(stop=stop, trials=30, workers=4, seed=1) for stop in (ASHA, PASHA))
    complete = [sum(record.status == COMPLETE for record in one.records) for one in (asha, pasha)]

    assert len(asha.records) == len(pasha.records) == 30
    assert pasha.n_reports < 0.9 * asha.n_reports
    assert 1 <= complete[1] < complete[0]
    assert pasha.shipped.status == COMPLETE
    assert pasha.shipped.value >= asha.shipped.value - 0.01


def run_by_hand(study, first, third):
    """Run a trial of this score after its first and from its third epoch on; return how many epochs it got."""
    number, epoch, decision = study.ask().number, 0, Decision.CONTINUE
    while decision is Decision.CONTINUE:
        epoch += 1
        decision = study.report(number, report_score(epoch, first if epoch < 3 else third, seconds=1.0))
    return epoch


@pytest.mark.parametrize(("first", "n_epochs"), [(0.35, 3), (0.25, EPOCHS)], ids=["settled", "overtaken"])
def test_a_study_that_is_opened_again_has_the_cap_it_had(tmp_path, first, n_epochs):
    def study():
        folder, config = StudyFolder(tmp_path / "study"), make_config(stop=PASHA)
        return Study(folder, config, classes=CLASSES, clock=FakeClock(), check=accept_any)

    with study() as one:
        before = [run_by_hand(one, *scores) for scores in ((0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (first, 0.5))]
        before.append(run_by_hand(one, 0.31, 0.42))
    with study() as again:
        after = run_by_hand(again, 0.32, 0.43)

    assert before == [EPOCHS] * 4 + [n_epochs]  # each of the four was the best when it came
    assert after == n_epochs


def test_what_does_not_work_is_counted_and_takes_its_time():
    simulation = search(Hill(works_up_to=-1.0), trials=6)

    assert {record.status for record in simulation.records} == {INFEASIBLE}
    assert simulation.n_wasted == simulation.n_reports == 6
    assert simulation.seconds == 6.0
    assert simulation.shipped is None
    assert simulation.course == ()


def test_the_course_ends_with_what_is_shipped():
    simulation = search(trials=20, workers=4)

    reports, numbers = zip(*simulation.course, strict=True)
    worth = [simulation.records[number].value for number in numbers]

    assert numbers[-1] == simulation.shipped.number
    assert simulation.shipped.value == max(record.value for record in simulation.records)
    assert worth == sorted(worth)
    assert list(reports) == sorted(reports)


def test_a_budget_in_reports_is_kept_to_the_report():
    simulation = search(workers=4, max_reports=50)

    assert simulation.n_reports == sum(len(record.reports) for record in simulation.records) == 50
    assert RUNNING in {record.status for record in simulation.records}


def test_an_interrupted_study_can_be_gone_on_with(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    cut = search(folder=folder, workers=4, max_reports=50)

    simulation = search(folder=folder, workers=4)

    assert cut.n_reports + simulation.n_reports == 12 * EPOCHS
    assert {record.status for record in simulation.records} == {COMPLETE}
    assert [len(record.reports) for record in simulation.records] == [EPOCHS] * 12


@pytest.mark.parametrize("score", [0.0, 1e-9, 0.5, 1 - 1e-9, 1.0])
def test_a_reported_score_is_every_score_and_keeps_nine_digits(score):
    scores = report_score(1, score, seconds=1.0).val.scores

    for name in ("macro_f1", "balanced_macro_f1", "worst_class_f1", "accuracy"):
        assert getattr(scores, name) == pytest.approx(score, rel=0, abs=1e-11)
