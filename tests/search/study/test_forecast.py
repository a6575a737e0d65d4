"""The time that a search still takes, held against simulated searches whose end is known."""

import heapq
import math
import random
import statistics
import tempfile
from pathlib import Path

import pytest

from search.study.forecast import Pace, Survival, seconds_left
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, RUNNING
from search.testing import fake_report

EPOCH_S = 3.0


@pytest.fixture
def folder():
    """A folder in memory where there is one: a study syncs every report to the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield StudyFolder(Path(path) / "a-study")


@pytest.fixture
def forecasts(folder, make_config, open_study, clock):
    """Play a search whose epochs take about three seconds; return its end and what was foretold when."""

    def run(*, slots, seed, **options):
        config, dice = make_config(seed=seed, sampler="random", **options), random.Random(seed)
        study = open_study(folder, config, clock=clock)
        survival, pace, said, arriving, merits = Survival(config.search), Pace(), [], [], {}

        def start():
            if assignment := study.ask():
                merits[assignment.number] = dice.random()
                heapq.heappush(arriving, (clock.now + EPOCH_S * dice.uniform(0.8, 1.2), assignment.number, 1))

        for _ in range(slots):
            start()
        while arriving:
            clock.now, number, epoch = heapq.heappop(arriving)
            pace.add(elapsed=clock.now, seconds=EPOCH_S, slots=len(study.running))
            score = min(max(merits[number] * epoch / (epoch + 2) + dice.gauss(0, 0.02), 0.0), 1.0)
            study.report(number, fake_report(epoch, quality=score * (epoch + 2) / epoch, n_classes=3))
            record = study.records[number]
            if record.status == RUNNING:
                heapq.heappush(arriving, (clock.now + EPOCH_S * dice.uniform(0.8, 1.2), number, epoch + 1))
            else:
                survival.add(length=record.epochs, epochs=epoch, is_cut_short=record.status != COMPLETE)
                start()
            if said and clock.now < said[-1][0] + 2 * EPOCH_S:
                continue  # often enough
            courses = [(other.epochs, len(other.reports)) for other in study.running]
            to_start = config.search.trials - len(study.records)
            said.append((clock.now, seconds_left(survival, pace, courses, to_start=to_start)))
        return clock.now, said

    return run


def errors(end, said, shares):
    """By how much a forecast is off, as a ratio, when so much of the search is over."""
    return [next(left for now, left in said if now >= share * end) / (end * (1 - share)) for share in shares]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("slots", "trials", "epochs"), [(2, 24, "[6, 12, 18]"), (8, 60, "[8, 16, 24]"), (32, 100, "27")]
)
def test_the_time_left_is_about_what_a_search_then_takes(forecasts, slots, trials, epochs, seed):
    end, said = forecasts(slots=slots, trials=trials, epochs=epochs, factor=3, first_rung=2, seed=seed)

    ratios = errors(end, said, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert 0.6 < statistics.median(ratios) < 1.6
    assert sum(0.5 < ratio < 2 for ratio in ratios) >= 5


def test_without_a_judge_the_time_left_is_right_from_the_first_round_on(forecasts):
    end, said = forecasts(slots=4, trials=24, epochs="10", seed=0)

    assert all(0.85 < ratio < 1.2 for ratio in errors(end, said, [0.05, 0.2, 0.5, 0.8]))


def test_nothing_is_foretold_before_the_first_report(make_config):
    survival, pace = Survival(make_config(factor=3).search), Pace()

    assert math.isnan(pace.seconds_per_epoch)
    assert math.isnan(seconds_left(survival, pace, [(4, 0)], to_start=5))


def test_before_anything_is_known_one_of_factor_is_assumed_to_pass_a_rung(make_config):
    survival = Survival(make_config(factor=3, first_rung=2).search)

    assert survival.curve(9) == pytest.approx([1, 1, *([1 / 3] * 4), *([1 / 9] * 3)])


def test_trials_that_went_on_count_as_well_as_those_that_ended(make_config):
    survival = Survival(make_config().search)
    survival.add(length=4, epochs=1, is_cut_short=True)

    assert survival.curve(4, running=[(4, 2), (4, 3), (4, 1)]) == pytest.approx([1, 0.75, 0.75, 0.75])


def test_slots_that_report_in_bursts_do_not_look_fast():
    pace = Pace()
    for burst in range(1, 5):
        for slot in range(8):
            pace.add(elapsed=10 * burst + slot / 100, seconds=9.0, slots=8)

    assert pace.seconds_per_epoch == pytest.approx(10, rel=0.01)
