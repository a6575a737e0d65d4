"""Between Ray Tune and the study: Tune asks and reports here, the study decides."""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.errors import ConfigError
from search.execution.garbage import Tidying
from search.execution.interrupts import Interrupts
from search.execution.packing import Packing
from search.execution.trainable import FAILED, HALTED, OK, REJECTED, read_report
from search.space.space import model_of
from search.study.rows import TrialRecord
from search.study.study import Decision, Study

# A slot that Ray's memory monitor kills ends with an error that Tune does not know in several places (Ray 2.60,
# air/execution/_internal/actor_manager.py and tune/experiment/trial.py), and that would end the search. Tune knows how
# to lose a process, so it is one of those errors from here on.
OutOfMemoryError.__bases__ = (RayActorError,)
OutOfMemoryError._preempted = OutOfMemoryError._actor_init_failed = False  # type: ignore[attr-defined]

# What a slot must know of a trial, beside its configuration.
Brief = Callable[[TrialRecord], Mapping[str, object]]


@contextmanager
def _one_step(study: Study, interrupts: Interrupts) -> Iterator[None]:
    """Let nothing come between what belongs together on the disk; a disk that takes no more ends the search."""
    with interrupts.shield():
        try:
            yield
        except ConfigError as error:
            study.give_up(str(error))
        except OSError as error:  # from Optuna's journal; the system names no file where a write fails
            study.give_up(f"{error.filename or study.folder.path}: cannot be written ({error.strerror or error})")


def _takes_no_more(study: Study) -> bool:
    """Whether a write has failed: half a line may be the last one then, and nothing may be written behind it."""
    return isinstance(study.failure, ConfigError)


class StudySearcher(Searcher):
    """Hands the study's trials to Tune.

    Args:
        study: Asks.
        packing: Says what every slot gets.
        arrays: What every slot reads, see `share_arrays`; a reference.
        brief: Says what else a trial's slot must know of it.
        interrupts: Catches the signals.
    """

    def __init__(self, study: Study, *, packing: Packing, arrays: object, brief: Brief, interrupts: Interrupts) -> None:
        super().__init__()
        self._brief = brief
        self._study = study
        self._packing = packing
        self._arrays = arrays
        self._interrupts = interrupts
        self._tidying = Tidying()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher to restore it later; ours is never restored, its study is opened again."""
        return {}

    def set_search_properties(self, *args: Any, **spec: Any) -> bool:
        """Accept Tune's metric and mode, which are not used."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's config, None if it must wait, FINISHED if there is nothing more to wait for."""
        models = [model_of(record.config) for record in self._study.running]
        if not self._study.failure and not self._packing.has_room(models):
            return None
        self._tidying.before_suggestion()
        assignment = None
        with _one_step(self._study, self._interrupts):
            assignment = self._study.ask()
        if assignment is None:
            # After a failed write some trial may be neither told nor let go, and waiting for it would never end.
            must_wait = self._study.running and not self._study.failure
            return None if must_wait else str(Searcher.FINISHED)
        record = self._study.records[assignment.number]
        record.slot = self._free_slot()
        cpus, gpus = self._packing.slices[model_of(record.config)]
        return {
            "number": assignment.number,
            "params": json.dumps(assignment.config, sort_keys=True),
            "epochs_done": assignment.epochs_done,
            "batch_size": assignment.params.batch_size,
            "expected_memory": assignment.expected_memory,
            "checkpoint": self._study.folder.place(self._study.folder.checkpoint(assignment.number)),
            "slot": record.slot,
            "cpus": cpus,
            "gpus": gpus,
            "arrays": self._arrays,
            **self._brief(record),
        }

    def _free_slot(self) -> int:
        """Number the slot of a new actor; one that is used again keeps its number, and tells it in its reports."""
        used = {record.slot for record in self._study.running}
        return next(slot for slot in count(1) if slot not in used)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler, which hears everything, has told the study."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal is on the disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a study resumes by being opened again."""
        raise NotImplementedError("open the study again instead")


class StudyScheduler(FIFOScheduler):
    """Takes every result to the study, and its decision back."""

    def __init__(self, study: Study, *, on_event: Callable[[int], None], interrupts: Interrupts) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._on_event = on_event
        self._interrupts = interrupts

    def __getstate__(self) -> dict[str, Any]:
        """See StudySearcher."""
        return {}

    def set_search_properties(self, *args: Any, **spec: Any) -> bool:
        """Accept Tune's metric and mode, which are not used."""
        return True

    def choose_trial_to_run(self, controller: Any) -> Trial | None:
        """Return one that waits for its slot; Tune's own goes twice through all trials ever, at each step."""
        # With 1,000 slots and 6,000 trials a step of Tune takes 1.13 ms with its own, 0.37 ms with this one.
        waiting = [trial for trial in controller.get_live_trials() if trial.status == Trial.PENDING]
        return min(waiting, key=lambda trial: trial.config["number"], default=None)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record one step and decide whether the trial goes on."""
        if _takes_no_more(self._study):
            return str(TrialScheduler.STOP)
        number, go_on = trial.config["number"], False
        with _one_step(self._study, self._interrupts):
            go_on = self._take(number, result)
            self._on_event(number)
        return str(TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP)

    def _take(self, number: int, result: Mapping[str, Any]) -> bool:
        """Tell the study; return whether the trial goes on."""
        match result["outcome"]:
            case outcome if outcome == OK:
                record = self._study.records[number]
                record.slot = result["slot"]
                address = result["node_ip"]
                host = result["hostname"] + ("" if address.startswith("127.") else f" ({address})")
                record.place = f"{result['place']} on {host}, pid {result['pid']}"
                return self._study.report(number, read_report(result)) is Decision.CONTINUE
            case outcome if outcome == REJECTED:
                self._study.reject(number, result["reason"])
            case outcome if outcome == HALTED:
                self._study.halt(number, result["reason"])
            case outcome if outcome == FAILED:
                self._study.fail(number, result["reason"], details=result["traceback"])
                return True  # its next step raises, so that Tune drops the broken process
        return False

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        """Record that a process died; a trial whose failure was reported before is known already."""
        if _takes_no_more(self._study):
            return
        details, number = _read_error(trial), trial.config["number"]
        reason = _summarise(details)
        tell = self._study.lose if _has_lost_process(trial) else self._study.fail
        with _one_step(self._study, self._interrupts):
            if tell(number, reason, details=details):
                n_epochs = len(self._study.records[number].reports)
                why = textwrap.shorten(reason, 100)
                sys.stderr.write(f"trial {number} lost its process after epoch {n_epochs} and goes on ({why})\n")
            self._on_event(number)

    def debug_string(self) -> str:
        """Name it in Tune's own logs."""
        return "the study decides"


def _read_error(trial: Trial) -> str:
    """Read what Tune has written of an error; `Trial.get_error` looks for it where it will lie later."""
    path = Path(trial.error_file) if trial.error_file else None
    return path.read_text(encoding="utf-8") if path and path.exists() else ""


def _has_lost_process(trial: Trial) -> bool:
    """Whether the process or its machine has gone, for whatever reason; one that cannot even begin has not."""
    path = Path(trial.pickled_error_file) if trial.pickled_error_file else None
    error = ray.cloudpickle.loads(path.read_bytes()) if path and path.exists() else None  # of this process's own making
    return isinstance(error, RayActorError) and "creation task" not in str(error)


def _summarise(details: str) -> str:
    """Take the line that names the error: the last that begins with one, else the first below Tune's own headline."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", details).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines[1:2] or ["its process died"])[-1]
