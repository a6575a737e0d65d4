import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.space.config import StudyConfig
from search.study.records import StudyFolder
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, RUNNING, STOPPED
from search.study.study import Study
from search.testing import FakeClock, drive, fake_report, quality_by_lr
from search.trial.evaluation import Judgement
from search.trial.metrics import score_confusion
from search.trial.training import EpochReport


@pytest.fixture(scope="session")
def classes() -> tuple[str, ...]:
    return ("Center", "Edge-Ring", "none")


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], StudyFolder]:
    """Choose a folder for a study; it does not exist yet."""
    return lambda: StudyFolder(tmp_path_factory.mktemp("results") / "a-study")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "results" / "a-study")


@pytest.fixture(scope="session")
def make_config(load: Callable[..., StudyConfig]) -> Callable[..., StudyConfig]:
    """Make the config of a study of six trials of four epochs, none of them stopped unless `factor` is given.

    What else is given stands in the section where it belongs.
    """
    searched = ("time", "gpu_hours", "trial_time", "failures", "seed")

    def make(
        *, trials: int = 6, factor: int | None = None, epochs: str = "4", sampler: str = "tpe", **more: object
    ) -> StudyConfig:
        rung, peers = more.get("first_rung", 1), more.get("peers", 3)
        stop = f"{{asha: {{first_rung: {rung}, factor: {factor}, peers: {peers}}}}}" if factor else "none"
        limits = "".join(f", {key}: {more[key]}" for key in searched if key in more)
        return load(
            f"""
            name: fake
            data: {{wafers: synthetic, image_size: 16, epoch_samples: 256}}
            space:
              epochs: {epochs}
              lr: {{low: 1e-4, high: 1e-1, log: true}}
              weight_decay: {{low: 0.0, high: 0.1}}
              model: {{choose: {{wafer_cnn: {{width: [4, 8], dropout: {{low: 0.0, high: 0.5}}}}, wafer_resnet: {{}}}}}}
            objective: {more.get("objective", "{}")}
            first: {more.get("first", "[]")}
            forbid: {more.get("forbid", "[]")}
            constraints: {more.get("constraints", "[]")}
            search: {{trials: {trials}, sampler: {sampler}, stop: {stop}{limits}}}
            """
        )

    return make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def open_study(classes: tuple[str, ...]) -> Iterator[Callable[..., Study]]:
    """Open a study whose time stands still; what a test leaves open is closed in the end."""
    opened = []

    def open_it(folder: StudyFolder, config: StudyConfig, *, clock: FakeClock | None = None) -> Study:
        opened.append(Study(folder, config, classes=classes, clock=clock or FakeClock()))
        return opened[-1]

    yield open_it
    for study in opened:
        study.close()


@pytest.fixture
def run(folder, make_config, open_study):
    """Run a whole study; return it, closed."""

    def run_it(*, quality_of=quality_by_lr, slots=2, **config):
        with open_study(folder, make_config(**config)) as study:
            drive(study, quality_of=quality_of, slots=slots)
        return study

    return run_it


@pytest.fixture(scope="session")
def report_of() -> Callable[..., EpochReport]:
    """Make the report of an epoch, in which all scores are `score`, or each class is recalled by itself.

    What is missed of Center is called Edge-Ring and what is missed of none Center, so that the F1 of none hangs on its
    own recall alone.
    """

    def make(epoch: int, score: float = 0.5, *, center: float | None = None, none: float = 1.0) -> EpochReport:
        report = fake_report(epoch, quality=score * (epoch + 2) / epoch, n_classes=3)
        if center is None:
            return report
        n_center, n_none = round(10_000 * center), round(10_000 * none)
        confusion = np.array([[n_center, 10_000 - n_center, 0], [0, 10_000, 0], [10_000 - n_none, 0, n_none]])
        rows = tuple(tuple(map(int, row)) for row in confusion)
        return replace(report, val=Judgement(loss=0.5, confusion=rows, scores=score_confusion(confusion)))

    return make


@pytest.fixture(scope="session")
def journal_of() -> Callable[[StudyFolder], optuna.Study]:
    """Read the Optuna study of a folder, as another program would."""

    def read(folder: StudyFolder) -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(folder.journal)))
        [name] = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage)

    return read


@pytest.fixture(scope="session")
def rows_of() -> Callable[[StudyFolder], list[dict]]:
    """Read the trials.jsonl of a folder, as another program would."""
    return lambda folder: [json.loads(line) for line in folder.trials.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def assert_consistent(journal_of, rows_of) -> Callable[[StudyFolder, Study], None]:
    """Check that the journal, trials.jsonl and what the study knows say the same."""
    states = {
        RUNNING: TrialState.RUNNING,
        COMPLETE: TrialState.COMPLETE,
        STOPPED: TrialState.PRUNED,
        INFEASIBLE: TrialState.PRUNED,
        FAILED: TrialState.FAIL,
    }

    def check(folder: StudyFolder, study: Study) -> None:
        trials = {t.number: t for t in journal_of(folder).trials}  # none of them is waiting
        rows = rows_of(folder)
        known = {(n, epoch): value for n, t in trials.items() for epoch, value in t.intermediate_values.items()}
        reports = [((row["trial"], row["epoch"]), row["objective"]) for row in rows if "objective" in row]
        assert sorted(reports) == sorted(known.items())  # no epoch is missing, none stands there twice
        assert {n: t.state for n, t in trials.items()} == {n: states[r.status] for n, r in study.records.items()}
        assert {n: t.user_attrs["config"] for n, t in trials.items()} == {n: r.config for n, r in study.records.items()}
        ended = {n: record for n, record in study.records.items() if record.status != RUNNING}
        attributes = {n: (trials[n].user_attrs["status"], trials[n].user_attrs.get("reason", "")) for n in ended}
        assert attributes == {n: (record.status, record.reason) for n, record in ended.items()}
        floors = {floor.text for floor in study.config.floors}
        for n, record in ended.items():
            judged = floors if record.reports else set()
            assert set(trials[n].constraints) == judged | ({"works"} if record.status == INFEASIBLE else set())
            has_value = bool(record.values) and record.status != FAILED
            assert trials[n].values == ([record.value] if has_value else None)
        for n, record in study.records.items():
            assert record.values == [known[n, epoch] for epoch in range(1, len(record.values) + 1)]
            assert [report.epoch for report in record.reports] == list(range(1, len(record.reports) + 1))
        last = {row["trial"]: row["status"] for row in rows}
        assert last == {n: r.status for n, r in study.records.items() if n in last}

    return check
