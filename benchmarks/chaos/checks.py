"""What must hold after a run, checked from its files alone; each violation is a line that begins with its kind."""

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

LOST, TWICE, ZOMBIE, WINNER, OTHER = "lost", "twice", "zombie", "winner", "other"
KINDS = (LOST, TWICE, ZOMBIE, WINNER, OTHER)
ENDED, JUDGED = ("complete", "stopped"), ("complete", "stopped", "infeasible")
_END_OF_TRIAL, _VALUE, _ATTRIBUTE = 6, 7, 8  # optuna/storages/journal/_storage.py, JournalOperation


@dataclass
class Known:
    """Rows that both files have held at some moment, by trial and epoch, byte for byte; they must stay."""

    rows: dict[tuple[int, int], bytes] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)

    def remember(self, study: Path) -> int:
        """Add what the files hold now; return how many rows that are."""
        lines = _whole_lines(study / "study.journal")
        operations = [json.loads(line) for line in lines if _is_json(line)]
        told = {(op["trial_id"], op["step"]) for op in operations if op["op_code"] == _VALUE}
        ended = {op["trial_id"] for op in operations if op["op_code"] == _END_OF_TRIAL}
        n = 0
        for line in _whole_lines(study / "trials.jsonl"):
            if not _is_json(line):
                continue
            row = json.loads(line)
            key = (row["trial"], row["epoch"])
            if "objective" in row and key in told:
                self.rows.setdefault(key, line)
                n += 1
                if row["status"] in ENDED and row["trial"] in ended:
                    self.ended[row["trial"]] = row["status"]
        return n


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def read_rows(study: Path) -> list[dict[str, Any]]:
    """Read trials.jsonl.

    Raises:
        ValueError: If a line of it is damaged.
    """
    return [json.loads(line) for line in _whole_lines(study / "trials.jsonl")]


def check_study(study: Path, known: Known, *, trials: int, scratch: Path) -> list[str]:
    """Check everything that needs no process and no training."""
    try:
        rows = read_rows(study)
        return [
            *_check_kept(study, known, rows),
            *_check_once(rows, trials=trials),
            *_check_journal(study, rows, scratch=scratch),
            *_check_winner(study, rows),
        ]
    except (OSError, ValueError, KeyError) as error:
        return [f"{OTHER}: the study cannot be read: {type(error).__name__}: {error}"]


def _check_kept(study: Path, known: Known, rows: list[dict[str, Any]]) -> list[str]:
    now = {(row["trial"], row["epoch"]): line for row, line in zip(rows, _reports(study), strict=True) if line}
    found = [f"{LOST}: trial {t} epoch {e} is gone" for t, e in known.rows if (t, e) not in now]
    found += [
        f"{LOST}: trial {t} epoch {e} has changed"
        for (t, e), line in known.rows.items()
        if now.get((t, e), line) != line
    ]
    last = {row["trial"]: row["status"] for row in rows}
    found += [f"{LOST}: trial {t} was {s}, is {last.get(t)}" for t, s in known.ended.items() if last.get(t) != s]
    return found


def _reports(study: Path) -> list[bytes]:
    """The lines of trials.jsonl, b"" in place of those that hold no report."""
    return [line if b'"objective"' in line else b"" for line in _whole_lines(study / "trials.jsonl")]


def _check_once(rows: list[dict[str, Any]], *, trials: int) -> list[str]:
    found = []
    epochs = defaultdict(list)
    for row in rows:
        if "objective" in row:
            epochs[row["trial"]].append(row["epoch"])
    for trial, seen in epochs.items():
        if seen != list(range(1, len(seen) + 1)):
            found.append(f"{TWICE}: trial {trial} has the epochs {seen}")
    ends = Counter(row["trial"] for row in rows if row["status"] != "running")
    found += [f"{TWICE}: trial {trial} has ended {n} times" for trial, n in ends.items() if n > 1]
    last = {row["trial"]: row for row in rows}
    judged = [row for row in last.values() if row["status"] in JUDGED]
    configs = Counter(json.dumps(row["config"], sort_keys=True) for row in judged)
    found += [f"{TWICE}: {n} judged trials with {config}" for config, n in configs.items() if n > 1]
    if len(judged) != trials:
        found.append(f"{OTHER}: {len(judged)} trials are judged, not {trials}")
    found += [f"{OTHER}: trial {t} is left {row['status']}" for t, row in last.items() if row["status"] == "running"]
    for row in last.values():
        if row["status"] == "complete" and row["epoch"] != row["epochs"]:
            found.append(f"{OTHER}: trial {row['trial']} is complete after {row['epoch']} of {row['epochs']} epochs")
    return found


def _check_journal(study: Path, rows: list[dict[str, Any]], *, scratch: Path) -> list[str]:
    """Both files tell the same, and the journal holds no trial that still runs."""
    copy = scratch / "journal-copy"
    shutil.copy(study / "study.journal", copy)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(copy)))
    (name,) = optuna.get_all_study_names(storage)
    trials = {trial.number: trial for trial in optuna.load_study(study_name=name, storage=storage).get_trials()}
    values: dict[int, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if "objective" in row:
            values[row["trial"]][row["epoch"]] = row["objective"]
    last = {row["trial"]: row["status"] for row in rows}
    found = []
    # What a torn file has cost was tried again under another number; Optuna's journal cannot be told of that.
    written_off = {row["trial"] for row in rows if row["reason"].startswith("its last report was lost")}
    for number, trial in ((number, trial) for number, trial in trials.items() if number not in written_off):
        if trial.state in (TrialState.RUNNING, TrialState.WAITING):
            found.append(f"{ZOMBIE}: trial {number} is {trial.state.name} in the journal")
        if trial.intermediate_values != values[number]:
            found.append(f"{OTHER}: trial {number} has other values in the journal than in trials.jsonl")
        if trial.user_attrs.get("status") != last.get(number):
            found.append(f"{OTHER}: trial {number} is {trial.user_attrs.get('status')} there, {last.get(number)} here")
        if last.get(number) in ENDED and trial.value != values[number].get(len(values[number])):
            found.append(f"{OTHER}: trial {number} ended with {trial.value} in the journal")
    found += [f"{OTHER}: trial {number} is not in the journal" for number in last.keys() - trials.keys()]
    return found


def objective_of(confusion: list[list[int]]) -> float:
    """Macro-F1 as if all classes that occur were equally frequent, from counts; rows are actual classes."""
    counts = np.array(confusion, dtype=float)
    occurs = counts.sum(1) > 0
    shares = counts[occurs] / counts[occurs].sum(1, keepdims=True)
    hits = np.diag(counts)[occurs] / counts[occurs].sum(1)
    return float(np.mean(2 * hits / (1 + shares.sum(0)[occurs])))


def find_winner(rows: list[dict[str, Any]]) -> int | None:
    """The trial that ran to its end with the best objective, computed anew; the first of equals."""
    complete = [row for row in rows if row["status"] == "complete"]
    scores = {row["trial"]: objective_of(row["val_confusion"]) for row in complete}
    return min(scores, key=lambda trial: (-round(scores[trial], 12), trial), default=None)


def _check_winner(study: Path, rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        if "objective" in row and abs(row["objective"] - objective_of(row["val_confusion"])) > 1e-9:
            found.append(f"{WINNER}: trial {row['trial']} epoch {row['epoch']} is worth something else than it says")
    winner = find_winner(rows)
    if winner is None:
        return found
    best = yaml.safe_load((study / "best.yaml").read_text("utf-8"))
    config = next(row["config"] for row in rows if row["trial"] == winner)
    if best["trial"] != winner:
        found.append(f"{WINNER}: best.yaml names trial {best['trial']}, the best is trial {winner}")
    elif any(_look_up(best["params"], key) != value for key, value in config.items()):
        found.append(f"{WINNER}: best.yaml has another configuration than trial {winner}")
    return found


def _look_up(params: dict[str, Any], key: str) -> Any:
    """`model.wafer_cnn.lr` in a space is the `lr` of the trials that choose `wafer_cnn`."""
    return params.get(key, params.get(key.rpartition(".")[2]))


def compare_retrained(rows: list[dict[str, Any]], again: list[dict[str, Any]]) -> list[str]:
    """Check that trainings alone gave bit for bit what the search has recorded."""
    found = []
    last = {row["trial"]: row for row in rows if row["status"] == "complete"}
    for report in again:
        recorded = last[report["trial"]]
        for key, value in report.items():
            if key not in ("train_seconds", "val_seconds", "peak_memory") and recorded.get(key) != value:
                found.append(f"{WINNER}: trial {report['trial']}: {key} is {recorded.get(key)}, alone {value}"[:200])
                break
    return found
