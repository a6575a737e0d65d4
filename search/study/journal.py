"""The journal: an Optuna study in a file, one line for everything that happens to a trial. It is the truth."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.errors import ConfigError
from search.space.space import Config, epochs_of
from search.study.records import StudyFolder, cut_torn_line, read_lines, to_line, write_atomically
from search.study.rows import COMPLETE, FAILED, INFEASIBLE, TrialRecord, collect_rows, to_row
from search.study.samplers import VIOLATION

_CREATE_TRIAL = 4
_STATES = {COMPLETE: TrialState.COMPLETE, FAILED: TrialState.FAIL}  # all others end as PRUNED


class Journal:
    """The journal of one study, in a folder whose lock the caller holds.

    Optuna's own `ask` is not used here: it would search the whole history for every proposal. A trial is added with
    all that is known of it in a single line, so that no crash leaves one behind that nobody can describe.

    Args:
        folder: Of the study; what a killed process may have left in it is cleared away.

    Raises:
        ConfigError: If the journal is damaged.
    """

    def __init__(self, folder: StudyFolder) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.journal.with_name(f"{folder.journal.name}.lock").unlink(missing_ok=True)
        cut_torn_line(folder.journal)
        try:
            self._storage = JournalStorage(JournalFileBackend(str(folder.journal.absolute())))
        except ValueError as error:
            raise ConfigError(
                f"{folder.journal}: is damaged ({error}); restore it, or use --study NAME for a new study"
            ) from None
        names = optuna.get_all_study_names(self._storage)
        if names:  # under its old name if the folder was renamed
            self._study = optuna.load_study(study_name=names[0], storage=self._storage)
        else:
            self._study = optuna.create_study(storage=self._storage, study_name=folder.path.name, direction="maximize")
        self._study.sampler = optuna.samplers.RandomSampler()  # never asked
        self._ids = {trial.number: trial._trial_id for trial in self.trials()}

    def trials(self) -> list[FrozenTrial]:
        """Return all trials that the journal knows, in the order of their numbers."""
        return self._study.get_trials(deepcopy=False)

    def unfinished(self) -> list[int]:
        """Return the numbers of the trials of which no end is recorded."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in running]

    def add(
        self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], attributes: Mapping[str, Any]
    ) -> int:
        """Record that a trial starts.

        Args:
            params: Its searched parameters, by full name.
            distributions: What each was drawn from.
            attributes: What else there is to know: `config`, the flat configuration with all constants, at least.

        Returns:
            The number that it gets.
        """
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs=dict(attributes),
        )
        trial_id = self._storage.create_new_trial(self._study._study_id, template_trial=trial)
        number = self._storage.get_trial_number_from_id(trial_id)
        self._ids[number] = trial_id
        return number

    def report(self, number: int, *, epoch: int, value: float) -> None:
        """Record what the objective was after an epoch."""
        self._storage.set_trial_intermediate_value(self._ids[number], epoch, value)

    def end(self, record: TrialRecord, *, attributes: Mapping[str, Any], violations: Mapping[str, float]) -> None:
        """Record how a trial ended.

        Args:
            record: The trial.
            attributes: What to keep of it besides.
            violations: By how much it misses each constraint; positive where it does.
        """
        trial_id = self._ids[record.number]
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        known = self._storage.get_trial(trial_id).constraints  # a crash may have come just after
        trial = optuna.trial.Trial(self._study, trial_id)
        for key, violation in violations.items():
            if key not in known:
                trial.set_constraint(key, violation)
        values = [record.value] if record.values and record.status != FAILED else None  # as Optuna's `tell` does
        self._storage.set_trial_state_values(trial_id, _STATES.get(record.status, TrialState.PRUNED), values)


def describe_end(record: TrialRecord, classes: Sequence[str], shortfalls: Mapping[str, float]) -> dict[str, object]:
    """Collect what other programs may want to show of an ended trial.

    Args:
        record: The trial.
        classes: Names of the K classes.
        shortfalls: By how much it misses each floor.
    """
    attributes: dict[str, object] = {"status": record.status}
    if record.reason:
        attributes["reason"] = record.reason
    if record.scores:
        f1 = {name: round(value, 4) for name, value in zip(classes, record.scores.f1, strict=True)}
        attributes["val_f1"] = {name: value for name, value in f1.items() if not math.isnan(value)}
    if shortfalls:  # optuna-dashboard does not show Optuna's own constraints
        attributes["shortfalls"] = {floor: round(shortfall, 4) for floor, shortfall in shortfalls.items()}
    return attributes


def find_violations(record: TrialRecord, shortfalls: Mapping[str, float]) -> dict[str, float]:
    """Collect what the sampler learns beside the objective: the floors, of stopped trials too, and whether it works."""
    works = {"works": VIOLATION} if record.status == INFEASIBLE else {}
    return {**shortfalls, **works}


def read_configs(lines: Iterable[Mapping[str, Any]]) -> list[Config]:
    """Read the configurations of the trials that lines of a journal begin, in the order of their numbers.

    For those who may neither lock nor write: Optuna's own reader would do both.

    Source:
        optuna/storages/journal/_storage.py, JournalOperation: 4 is CREATE_TRIAL.
    """
    return [line["user_attrs"]["config"] for line in lines if line["op_code"] == _CREATE_TRIAL]


def recover(journal: Journal, folder: StudyFolder) -> tuple[dict[int, TrialRecord], float]:
    """Read what the journal knows, and drop the rows of trials.jsonl that it does not know.

    A disk that lost the last line of trials.jsonl, though it had said that the line was safe, costs one trial: if that
    had ended, it counts as failed, and so is tried again; if not, it reports the epoch again.

    Returns:
        The records by trial number, and the seconds that the study had run.

    Raises:
        ConfigError: If one of the two files misses more than a crash can explain.
    """
    trials = {trial.number: trial for trial in journal.trials()}
    found = list(read_lines(folder.trials))
    rows = [row for row in found if row["trial"] in trials and _is_known(row, trials[row["trial"]])]
    elapsed = max((row["elapsed"] for row in found), default=0.0)
    failed = {row["trial"] for row in rows if row["status"] == FAILED}
    lost = _find_lost(rows, trials) - failed
    strays = {row["trial"] for row in found if row["trial"] not in trials}
    if len(lost) > 1 or not all(_lacks_only_the_last(rows, trials[number]) for number in lost):
        strays |= lost
    if strays:
        raise ConfigError(
            f"{folder.path}: {folder.journal.name} and {folder.trials.name} disagree on trial {min(strays)}, more than "
            "a crash can explain; restore both from one backup, or use --study NAME for a new study"
        )
    records = collect_rows(rows)
    for number, trial in trials.items():
        config = trial.user_attrs["config"]
        record = records.setdefault(number, TrialRecord(number=number, config=config, epochs=epochs_of(config)))
        record.origin = {key: trial.user_attrs[key] for key in ("first", "retry_of") if key in trial.user_attrs}
        if trial.state.is_finished() and number in lost:
            record.status, record.reason = FAILED, f"its last report was lost from {folder.trials.name}"
            rows.append(to_row(record, classes=(), elapsed=elapsed))
        elif trial.state.is_finished():
            record.status = FAILED if number in failed else trial.user_attrs.get("status", FAILED)
    if folder.trials.exists():  # also cuts a torn last line
        write_atomically(folder.trials, "".join(to_line(row) for row in rows))
    return dict(sorted(records.items())), elapsed


def _find_lost(rows: Sequence[Mapping[str, Any]], trials: Mapping[int, FrozenTrial]) -> set[int]:
    """Find the trials whose reports do not all have a row."""
    n_rows = Counter(row["trial"] for row in rows if "objective" in row)
    return {number for number, trial in trials.items() if n_rows[number] != len(trial.intermediate_values)}


def _lacks_only_the_last(rows: Sequence[Mapping[str, Any]], trial: FrozenTrial) -> bool:
    """Whether all reports of a trial but its last have a row."""
    epochs = [row["epoch"] for row in rows if row["trial"] == trial.number and "objective" in row]
    return epochs == sorted(trial.intermediate_values)[:-1]


def _is_known(row: Mapping[str, Any], trial: FrozenTrial) -> bool:
    if "objective" in row:
        return row["epoch"] in trial.intermediate_values
    return trial.state.is_finished() or "status" in trial.user_attrs  # else its end was not begun, and is forgotten
