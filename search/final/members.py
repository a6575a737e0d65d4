"""Training one member of a final model, so that a kill costs an epoch at most and a finished member nothing."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from search.final.epoch_log import epoch_line, is_best_so_far
from search.study.checkpoints import load_checkpoint, save_checkpoint, save_tensors
from search.study.records import append_line, read_lines, to_line, write_atomically
from search.study.rows import report_from_row, report_to_row
from search.trial.data import TrialData
from search.trial.learner import Learner
from search.trial.metrics import Scores
from search.trial.params import TrialParams
from search.trial.prediction import Predictor
from search.trial.training import EpochReport, train_and_evaluate
from search.views.terminal import say

EpochRule = Literal["last", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where a training keeps what it needs to go on.

    Attributes:
        path: The folder.
        key: Says which training of all members this is; files of another one are not used.
        classes: Names of the K classes.
    """

    path: Path
    key: str
    classes: tuple[str, ...]

    def member(self, seed: int) -> Path:
        """Name the file of a finished member."""
        return self.path / f"member-{seed}.pt"

    @property
    def checkpoint(self) -> Path:
        """The state of the member that trains."""
        return self.path / "checkpoint.pt"

    @property
    def best_epoch(self) -> Path:
        """Its network after the best epoch so far."""
        return self.path / "best-epoch.pt"

    @property
    def log(self) -> Path:
        """One JSON line per epoch of every member."""
        return self.path / "epochs.jsonl"

    @property
    def owner(self) -> Path:
        """Says which training the files belong to, while it lasts."""
        return self.path / "training.txt"

    def claim(self) -> None:
        """Begin, or go on: what another training has left is removed."""
        owner = self.owner.read_text("utf-8") if self.owner.exists() else ""
        if owner != self.key:
            self.tidy()
            self.log.unlink(missing_ok=True)
            write_atomically(self.owner, self.key)

    def tidy(self) -> None:
        """Remove everything but the log."""
        for path in (self.owner, self.checkpoint, self.best_epoch, *self.path.glob("member-*.pt")):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One trained model.

    Attributes:
        seed: That it was trained from.
        reports: Of all its epochs.
        epoch: After which its weights were taken.
        predictor: It, in evaluation mode.
    """

    seed: int
    reports: list[EpochReport]
    epoch: int
    predictor: Predictor


def train_member(
    params: TrialParams,
    data: TrialData,
    folder: Folder,
    *,
    rule: EpochRule,
    value: Callable[[Scores], float],
    console: Console,
) -> Member:
    """Train from one seed to the end, or take what an interrupted call of the same training has left.

    Args:
        params: The configuration, with the member's seed.
        data: On its device.
        folder: Where states are kept.
        rule: Whose weights are taken: the last epoch's, or those of the epoch with the highest `value` on validation.
        value: What the best epoch is best at; each that is the best so far is marked.
        console: Where each epoch is said.

    Raises:
        TrialFailed: If the training diverges.
    """
    finished = _load_finished(folder, params.seed)
    if finished:
        say(console, f"seed {params.seed}: is finished already")
        reports, epoch, state = finished
        return Member(seed=params.seed, reports=reports, epoch=epoch, predictor=_rebuild(params, data, state))
    reports, predictor = _train(params, data, folder, rule=rule, value=value, console=console)
    epoch = params.epochs
    if rule == "best":
        saved = _load(folder.best_epoch)
        epoch = int(saved["epoch"])
        predictor.network.load_state_dict(saved["network"])
        say(console, f"seed {params.seed}: the weights after epoch {epoch} are taken")
    rows = [report_to_row(report, folder.classes) for report in reports]
    kept = {"key": _key(folder, params.seed), "rows": rows, "epoch": epoch, "predictor": predictor.state_dict()}
    save_tensors(kept, folder.member(params.seed))
    folder.checkpoint.unlink(missing_ok=True)
    folder.best_epoch.unlink(missing_ok=True)
    return Member(seed=params.seed, reports=reports, epoch=epoch, predictor=predictor)


def _train(
    params: TrialParams,
    data: TrialData,
    folder: Folder,
    *,
    rule: EpochRule,
    value: Callable[[Scores], float],
    console: Console,
) -> tuple[list[EpochReport], Predictor]:
    key = _key(folder, params.seed)
    saved = load_checkpoint(folder.checkpoint, key=key)
    earlier = [row for row in read_lines(folder.log) if row["seed"] == params.seed]
    reports = [report_from_row(row) for row in earlier][: saved[0].epoch - 1] if saved else []
    if saved:
        reports.append(saved[0])
        if rule == "best":  # the kill may have come between the checkpoint and this
            _keep_if_best(folder, saved[1], reports, value)
    _log(folder, params.seed, reports)
    if reports:
        say(console, f"seed {params.seed}: going on after epoch {len(reports)}")
    generator = torch.Generator().manual_seed(params.seed)
    training = train_and_evaluate(params, data, generator=generator, state=saved[1] if saved else None)
    start, first = time.monotonic(), len(reports)
    while True:
        try:
            evaluation = next(training)
        except StopIteration as end:
            return reports, end.value
        save_checkpoint(folder.checkpoint, evaluation, classes=folder.classes, key=key)
        reports.append(evaluation.report)
        if rule == "best":
            _keep_if_best(folder, evaluation.state, reports, value)
        append_line(folder.log, {"seed": params.seed, **report_to_row(evaluation.report, folder.classes)})
        elapsed, timed = time.monotonic() - start, len(reports) - first
        say(console, epoch_line(reports, epochs=params.epochs, elapsed=elapsed, timed=timed, value=value))


def _keep_if_best(
    folder: Folder, state: Mapping[str, Any], reports: Sequence[EpochReport], value: Callable[[Scores], float]
) -> None:
    """Keep the weights that the last report judged, the averaged ones where there are any, if it is the best so far."""
    if is_best_so_far(reports, value):
        average = state.get("average")
        network = average["model"] if average else state["model"]
        save_tensors({"epoch": reports[-1].epoch, "network": network}, folder.best_epoch)


def _rebuild(params: TrialParams, data: TrialData, state: Mapping[str, Any]) -> Predictor:
    predictor = Learner(params, data, generator=torch.Generator().manual_seed(params.seed)).predictor
    predictor.load_state_dict(state)
    return predictor.eval()


def _log(folder: Folder, seed: int, reports: list[EpochReport]) -> None:
    """Write the log anew, with exactly these reports of one seed."""
    rows = [row for row in read_lines(folder.log) if row["seed"] != seed]
    rows += [{"seed": seed, **report_to_row(report, folder.classes)} for report in reports]
    write_atomically(folder.log, "".join(map(to_line, rows)))


def _load_finished(folder: Folder, seed: int) -> tuple[list[EpochReport], int, Mapping[str, Any]] | None:
    try:
        saved = _load(folder.member(seed))
        if saved["key"] != _key(folder, seed):
            return None
        return [report_from_row(row) for row in saved["rows"]], int(saved["epoch"]), saved["predictor"]
    except Exception:  # noqa: BLE001 - torch raises anything on a missing or damaged file; the member is trained anew
        return None


def _key(folder: Folder, seed: int) -> str:
    return f"{folder.key} seed {seed}"


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content
