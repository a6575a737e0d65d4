"""Opening a study's journal: clearing away what a killed process left, and reading back what it had recorded."""

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from search.errors import ConfigError
from search.space.config import StudyConfig
from search.space.space import epochs_of
from search.study.records import StudyFolder, cut_torn_line, read_lines, to_line, write_atomically
from search.study.rows import FAILED, TrialRecord, collect_rows


def open_journal(folder: StudyFolder, config: StudyConfig) -> optuna.Study:
    """Open the Optuna study after clearing away what a killed process may have left; needs the folder's lock."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.journal.with_name(f"{folder.journal.name}.lock").unlink(missing_ok=True)
    cut_torn_line(folder.journal)
    try:
        storage = JournalStorage(JournalFileBackend(str(folder.journal.absolute())))
    except ValueError as error:
        raise ConfigError(
            f"{folder.journal}: is damaged ({error}); restore it, or use --study NAME for a new study"
        ) from None
    names = optuna.get_all_study_names(storage)
    if names:  # under its old name if the folder was renamed
        study = optuna.load_study(study_name=names[0], storage=storage)
    else:
        study = optuna.create_study(storage=storage, study_name=folder.path.name, direction="maximize")
    # A sampler that starts again from the same seed would propose its first configurations a second time.
    seed = int(np.random.SeedSequence([config.search.seed, len(study.trials)]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group, in Optuna since 2021
        samplers: dict[str, Any] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        study.sampler = samplers[config.search.sampler]()
    return study


def recover(study: optuna.Study, folder: StudyFolder) -> tuple[dict[int, TrialRecord], float]:
    """Read what the journal knows, and drop the rows of trials.jsonl that it does not know.

    Returns:
        The records by trial number, and the seconds that the study had run.

    Raises:
        ConfigError: If one of the two files misses more than a crash can explain.
    """
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False) if "config" in trial.user_attrs}
    found = list(read_lines(folder.trials))
    rows = [row for row in found if row["trial"] in trials and _is_known(row, trials[row["trial"]])]
    known = Counter(row["trial"] for row in rows if "objective" in row)
    strays = {row["trial"] for row in found if row["trial"] not in trials}
    strays |= {number for number, trial in trials.items() if known[number] != len(trial.intermediate_values)}
    if strays:
        raise ConfigError(
            f"{folder.path}: {folder.journal.name} and {folder.trials.name} disagree on trial {min(strays)}, more than "
            "a crash can explain; restore both from one backup, or use --study NAME for a new study"
        )
    if folder.trials.exists():  # also cuts a torn last line
        write_atomically(folder.trials, "".join(to_line(row) for row in rows))
    records = collect_rows(rows)
    for number, trial in trials.items():
        config = trial.user_attrs["config"]
        record = records.setdefault(number, TrialRecord(number=number, config=config, epochs=epochs_of(config)))
        if trial.state.is_finished():
            record.status = trial.user_attrs.get("status", FAILED)
    return dict(sorted(records.items())), max((row["elapsed"] for row in found), default=0.0)


def _is_known(row: Mapping[str, Any], trial: FrozenTrial) -> bool:
    if "objective" in row:
        return row["epoch"] in trial.intermediate_values
    return trial.state.is_finished()
