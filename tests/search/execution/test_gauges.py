"""The gauges, without Ray; tests/end_to_end/test_watching.py reads them from a real one."""

import io
import json
import re
import time
from pathlib import Path

import pytest
from ray.util.metrics import Gauge
from rich.console import Console

from search.errors import TrialFailed
from search.execution.gauges import GAUGES, PREFIX, Gauges, Text
from search.study.rows import INFEASIBLE
from search.testing import drive, fake_report, quality_by_lr
from search.views.terminal import SearchView

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "wafer_search.json"
# What Ray exports of a machine by itself; GPU ones only where there are some.
OF_RAY = {"ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_gpus_utilization", "ray_node_gram_used"}


def series(gauges):
    """What is shown now, by gauge and tags; each series once."""
    samples = gauges.samples()
    assert all(set(sample.tags) == set(GAUGES[sample.gauge][1]) for sample in samples)
    shown = {(sample.gauge, *sample.tags.values()): sample.value for sample in samples}
    assert len(shown) == len(samples)
    return shown


def start(study, *slots):
    """Ask for a trial for each of the slots."""
    numbers = [study.ask().number for _ in slots]
    for number, slot in zip(numbers, slots, strict=True):
        study.records[number].slot = slot
    return numbers


@pytest.fixture
def watched(open_heard):
    """Open a study and the gauges of it."""

    def watch(**config):
        study = open_heard(**config)
        view = SearchView(study, Console(file=io.StringIO()))
        study.hear = view.on_event
        return study, Gauges(study, view.snapshot)

    return watch


def test_a_running_trial_is_shown_by_its_slot(watched):
    study, gauges = watched()
    first, second = start(study, 1, 2)

    study.report(second, fake_report(1, quality=0.9, n_classes=3))

    shown = series(gauges)
    assert (shown["running_trial", "1"], shown["running_trial", "2"]) == (first, second)
    assert (shown["running_epoch", "1"], shown["running_epoch", "2"]) == (0, 1)
    assert shown["running_epochs", "2"] == 4
    assert shown["running_objective", "2"] == shown["running_macro_f1", "2"] == pytest.approx(0.3)
    assert shown["running_f1", "2", "b"] == pytest.approx(0.3)
    assert ("running_f1", "1", "b") not in shown
    assert shown["trials", "running"] == 2


def test_speed_is_that_of_the_last_epoch(watched):
    study, gauges = watched()
    [number] = start(study, 1)

    study.report(number, fake_report(1, quality=0.9, n_classes=3))
    study.report(number, fake_report(2, quality=0.9, n_classes=3))

    assert series(gauges)["running_samples_per_second", "1"] == pytest.approx(1000)


def test_the_best_is_that_of_the_trials_that_ran_to_their_end(watched):
    study, gauges = watched()
    drive(study, quality_of=quality_by_lr)

    shown = series(gauges)
    assert shown["best_trial",] == study.best.number
    assert shown["best_objective",] == study.best.value
    assert shown["best_meets_floors",] == 1
    assert shown["best_f1", "none"] == study.best.scores.f1[2]
    assert shown["trials", "complete"] == shown["trials_judged",] == shown["trials_asked",] == 6


def test_a_best_that_misses_the_floors_says_so(watched):
    study, gauges = watched(constraints='["f1[none] >= 0.99"]')
    drive(study, quality_of=quality_by_lr)

    shown = series(gauges)
    assert study.best is None
    assert (shown["best_trial",], shown["best_meets_floors",]) == (study.leader.number, 0)


def test_what_does_not_work_is_counted_by_a_few_fixed_reasons(watched):
    reasons = [
        "loss became nan in epoch 3",
        "out of memory at batch_size 512",
        "loss became inf in epoch 1",
        "a riddle",
    ]
    study, gauges = watched(trials=4)

    def fails(assignment, epoch):
        raise TrialFailed("diverged", reasons[assignment.number])

    drive(study, quality_of=fails)

    shown = series(gauges)
    found = {key[1]: value for key, value in shown.items() if key[0] == "infeasible"}
    assert found == {"diverged": 2, "out of memory": 1, "takes too long": 0, "other": 1}
    assert shown["trials", INFEASIBLE] == 4


def test_time_left_is_shown_as_soon_as_it_is_known(watched):
    study, gauges = watched()
    before = series(gauges)
    [number] = start(study, 1)
    study.report(number, fake_report(1, quality=0.9, n_classes=3))

    assert ("seconds_left",) not in before
    assert series(gauges)["seconds_left",] > 0


def test_a_long_search_leaves_no_more_series_than_a_short_one(watched):
    study, gauges = watched(trials=60)
    view, seen = study.hear, set()

    def hear(number):
        view(number)
        study.records[number].slot = 1 + number % 2
        seen.update(key for key in series(gauges) if "0" not in key)  # the slot of trials that have not reported yet

    study.hear = hear
    drive(study, quality_of=quality_by_lr)

    n_best, n_running, n_classes, n_states, n_reasons = 5, 7, 3, 6, 4
    assert len(seen) == n_best + n_classes + 2 * (n_running + n_classes) + n_states + n_reasons + 4


def test_what_keeps_failing_is_told_to_whom_tells_of_events(open_heard, monkeypatch):
    def fail():
        raise RuntimeError("no snapshot")

    monkeypatch.setattr("search.execution.gauges._REPEAT_EVERY_S", 0.0)
    gauges = Gauges(open_heard(), fail)

    with gauges:
        deadline = time.monotonic() + 20
        with pytest.raises(RuntimeError, match="no snapshot"):
            while time.monotonic() < deadline:
                gauges.on_event(0)


def test_ray_takes_names_of_any_script():
    text = "study 깨짐 è"

    Gauge("wafer_search_test", tag_keys=("study",)).set(1.0, {"study": Text(text)})  # else UnicodeEncodeError

    assert Text(text) == text


def test_every_metric_of_the_dashboard_is_one_that_is_exported():
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["definition"] for variable in dashboard["templating"]["list"]]

    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}

    assert asked - OF_RAY == {f"ray_{PREFIX}{name}" for name in GAUGES}
    assert asked >= OF_RAY


def test_every_label_of_the_dashboard_is_a_tag_of_its_metric():
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    found = re.findall(rf"by \(([\w, ]+)\) \(ray_{PREFIX}(\w+)\{{study=", "\n".join(queries))

    assert found
    assert all(set(labels.split(", ")) <= set(GAUGES[name][1]) for labels, name in found)
