"""One slot of the search: a Ray actor that trains one trial after the other.

Actors are reused, so that torch, the device and the data stay warm between trials. What happens to a trial is reported
as a result; the actor itself fails only when its process can no longer be trusted.
"""

import io
import json
import os
import traceback
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import tune
from torch import nn

from data_pipeline.batches import plain_batches, wrap_arrays
from search.errors import ConfigError, TrialFailed
from search.execution.packing import FAKE_GPUS
from search.study.checkpoints import load_checkpoint, save_checkpoint
from search.study.places import write_place
from search.study.rows import report_from_row, report_to_row
from search.trial.data import TrialData, take_rows
from search.trial.evaluation import choose_dtype, predict_batches
from search.trial.memory import (
    explain_out_of_memory,
    is_out_of_memory,
    keep_freed_memory,
    peak_memory,
    restart_peak,
    take_gpu_share,
)
from search.trial.params import from_flat
from search.trial.training import EpochReport, Evaluation, train_and_evaluate

OK, REJECTED, HALTED, FAILED = "ok", "rejected", "halted", "failed"
Rows = NDArray[np.int64]


class WaferTrial(tune.Trainable):
    """Trains what its config says, one nominal epoch per step.

    The config holds `number`, `params` (flat, as JSON), `epochs_done`, `checkpoint` (a place), `batch_size` and
    `expected_memory` (bytes; 0 if unknown) for messages; of the slot `slot` (its number), `cpus`, `gpus` and `arrays`
    (a reference to what `share_arrays` returns); and, where a trial is judged on another division than the search's,
    `division` (its number there), and `predictions`, a place where its last logits are kept.
    """

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """Ask for what one trial gets; `tune.with_resources` would hide this class's name from the dashboard."""
        return tune.PlacementGroupFactory([{"CPU": config["cpus"], "GPU": config["gpus"]}])

    def setup(self, config: dict[str, Any]) -> None:
        """Put the data on the device, once per actor."""
        arrays = ray.get(config["arrays"])  # read-only, one copy per machine
        self._slot = config["slot"]
        torch.set_num_threads(config["cpus"])
        keep_freed_memory()
        self._broken: str | None = None
        self._device = torch.device("cuda" if torch.cuda.is_available() and config["gpus"] else "cpu")
        if self._device.type == "cuda":
            take_gpu_share(config["gpus"])
        elif config["gpus"] and not os.environ.get(FAKE_GPUS):
            self._broken = (
                f"Ray lends GPU {ray.get_gpu_ids()}, but torch finds none: is it built for CUDA, with a driver?"
            )
        self._classes: tuple[str, ...] = arrays["classes"]
        self._image_size: int = arrays["image_size"]
        self._own = open_arrays(arrays).to(self._device)
        self._divisions: list[tuple[Rows, Rows]] = arrays["divisions"]
        self._data, self._division = self._own, 0
        self.reset_config(config)

    def __repr__(self) -> str:
        """Name the slot; Ray asks once, so this cannot be the trial."""
        gpus = ", ".join(f"GPU {gpu}" for gpu in ray.get_gpu_ids())
        return f"slot {self._slot}{f' ({gpus})' if gpus else ''}"

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on the next trial. Never raises nor refuses: Tune would then lose the trial without telling anyone."""
        self._config = new_config
        self._training: Generator[Evaluation, None, nn.Module] | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train one nominal epoch and report it, or report why that is impossible."""
        if self._broken:
            raise RuntimeError(self._broken)  # Tune then removes this actor and starts a fresh process
        outcome = REJECTED
        try:
            report = self._next_report()
            return {
                "outcome": OK,
                "slot": self._slot,
                "place": repr(self),
                "row": json.dumps(report_to_row(report, self._classes)),
            }
        except TrialFailed as failure:
            reason = str(failure)
        except ConfigError as error:  # its checkpoint cannot be written: that is not the configuration's fault
            outcome, reason = HALTED, str(error)
        except Exception as error:  # noqa: BLE001 - reported to the study, with its traceback
            if not is_out_of_memory(error):
                self._broken = f"{type(error).__name__}: {error}"
                return {"outcome": FAILED, "reason": self._broken, "traceback": traceback.format_exc()}
            reason = self._explain(error)
        # Not before the handlers are left: an error's traceback holds every tensor of the step that failed.
        self._clear()
        return {"outcome": outcome, "reason": reason}

    def cleanup(self) -> None:
        """Let the training go."""
        self._training = None

    def _next_report(self) -> EpochReport:
        if self._training is None:
            self._training = self._begin()
        if self._unsaid:  # a crash came before they were recorded, or they were recorded where nobody can look any more
            return self._unsaid.popleft()
        evaluation = next(self._training)
        self._keep_predictions(evaluation)
        place, key = self._config["checkpoint"], self._config["params"]
        save_checkpoint(place, evaluation, classes=self._classes, key=key, earlier=self._reports)
        self._reports.append(evaluation.report)
        return evaluation.report

    def _begin(self) -> Generator[Evaluation, None, nn.Module]:
        """Begin a trial, or go on from its checkpoint."""
        restart_peak(self._device)
        self._divide(self._config.get("division", 0))
        key = self._config["params"]
        saved = load_checkpoint(self._config["checkpoint"], key=key)
        self._reports = [*saved.earlier, saved.report] if saved else []
        self._unsaid = deque(report for report in self._reports if report.epoch > self._config["epochs_done"])
        params = from_flat(json.loads(key), where="trial", image_size=self._image_size)
        generator = torch.Generator().manual_seed(params.seed)
        return train_and_evaluate(params, self._data, generator=generator, state=saved.state if saved else None)

    def _divide(self, division: int) -> None:
        """Take on the data of another division; the one before it is let go."""
        if division != self._division:
            self._data = self._own
            self._data = take_rows(self._own, *self._divisions[division - 1]) if division else self._own
            self._division = division

    def _keep_predictions(self, evaluation: Evaluation) -> None:
        """Write the logits of the judged wafers where that is asked for, after the last epoch."""
        place = self._config.get("predictions")
        if not place:
            return
        params = from_flat(json.loads(self._config["params"]), where="trial", image_size=self._image_size)
        if evaluation.report.epoch < params.epochs:
            return
        assert self._training is not None and self._data.val is not None
        try:
            next(self._training)
        except StopIteration as end:
            dtype = choose_dtype(params.precision, self._device)
            logits, _ = predict_batches(end.value, plain_batches(self._data.val), dtype=dtype)
            buffer = io.BytesIO()
            np.save(buffer, logits.cpu().numpy())
            write_place(place, buffer.getvalue())

    def _explain(self, error: Exception) -> str:
        return explain_out_of_memory(
            error,
            batch_size=self._config["batch_size"],
            expected=self._config["expected_memory"],
            peak=peak_memory(self._device),
        )

    def _clear(self) -> None:
        """Let the training go, and all memory that it held with it."""
        if self._training is not None:
            self._training.close()
        self._training = None
        restart_peak(self._device)


def read_report(result: Mapping[str, Any]) -> EpochReport:
    """Read the report out of a result of `WaferTrial.step`."""
    return report_from_row(json.loads(result["row"]))


def open_arrays(arrays: Mapping[str, Any]) -> TrialData:
    """Make of what `share_arrays` returned, read-only as Ray hands it out, what trials train on; on the CPU."""
    return TrialData(
        train=wrap_arrays(arrays["train_maps"], arrays["train_labels"]),
        val=wrap_arrays(arrays["val_maps"], arrays["val_labels"]),
        n_classes=len(arrays["classes"]),
        epoch_samples=arrays["epoch_samples"],
        features=arrays["features"],
    )


def share_arrays(
    data: TrialData, *, classes: tuple[str, ...], image_size: int, divisions: Sequence[tuple[Rows, Rows]] = ()
) -> dict[str, Any]:
    """Collect what every slot needs, as plain arrays that Ray can share without copying.

    Args:
        data: Training and validation wafers.
        classes: Names of the K classes.
        image_size: Pixels per side.
        divisions: Other divisions of the same wafers: rows to learn from and to judge by, counted through both parts.
    """
    assert data.val is not None
    arrays: dict[str, Any] = {"classes": classes, "image_size": image_size, "epoch_samples": data.epoch_samples}
    arrays |= {"features": data.features, "divisions": list(divisions)}
    for name, part in (("train", data.train), ("val", data.val)):
        arrays[f"{name}_maps"] = np.ascontiguousarray(part.maps.numpy())
        arrays[f"{name}_labels"] = np.ascontiguousarray(part.labels.numpy())
    return arrays
