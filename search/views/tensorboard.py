"""Event files for TensorBoard: a run per trial in the study's `tensorboard/`, with its scalars and hyperparameters."""

import math
import shutil
import time
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.api_pb2 import DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from search.space.space import Config
from search.study.rows import COMPLETE, RUNNING, STOPPED, TrialRecord
from search.study.study import Study
from search.trial.training import EpochReport
from search.trial.vocabulary import Scalar

FOLDER = "tensorboard"
OBJECTIVE = "val/objective"
_OF_ALL = ("accuracy", "macro_f1", "balanced_macro_f1")


class TensorBoardLog:
    """Writes a study's event files while it runs; a context manager.

    Entering writes what the study knows already anew, so that no attempt leaves anything out or behind it twice.
    tensorboardX's `SummaryWriter` is not used: it has a thread and a queue per run, and would write the names of all
    Korean classes as the same underscores.

    Args:
        study: What to write; only read.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._folder = study.folder.path / FOLDER
        self._runs: dict[int, _Run] = {}

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        with _Run(self._folder) as overview:
            overview.write(_experiment(self._study))
        for number, record in self._study.records.items():
            if record.reports or record.status != RUNNING:
                self.on_event(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._runs:
            self._runs.popitem()[1].close()

    def on_event(self, number: int) -> None:
        """Write what a trial has reported since, and its end."""
        record = self._study.records[number]
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = _Run(self._folder / f"trial-{number:04d}", began=time.time() - record.seconds)
            run.write(_session_start(record.config))
        seconds = list(accumulate(report.train_seconds + report.val_seconds for report in record.reports))
        for report, value, after in list(zip(record.reports, record.values, seconds, strict=True))[run.n_epochs :]:
            scalars = _scalars(report, self._study.classes) | {OBJECTIVE: value}
            run.write(_summary(scalars), epoch=report.epoch, seconds=after)
            run.n_epochs += 1
        if record.status != RUNNING:
            run.write(_session_end(record), seconds=seconds[-1] if seconds else 0.0)
            self._runs.pop(number).close()


class _Run:
    """One event file, flushed after each event; a context manager.

    Args:
        folder: Made if missing.
        began: Time of the first event; the others are as much later as the trial has trained.
    """

    def __init__(self, folder: Path, *, began: float | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.n_epochs = 0
        self._began = time.time() if began is None else began
        self._writer = EventsWriter(str(folder / "events"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, summary: Summary, *, epoch: int = 0, seconds: float = 0.0) -> None:
        self._writer.write_event(Event(summary=summary, step=epoch, wall_time=self._began + seconds))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _scalars(report: EpochReport, classes: tuple[str, ...]) -> dict[str, float]:
    scalars = {"train/loss": report.train_loss, "train/accuracy": report.train_accuracy, "train/lr": report.lr}
    if report.val is not None:
        scores = report.val.scores
        scalars |= {"val/loss": report.val.loss} | {f"val/{name}": getattr(scores, name) for name in _OF_ALL}
        scalars |= {f"val_f1/{name}": value for name, value in zip(classes, scores.f1, strict=True)}
    return {name: value for name, value in scalars.items() if math.isfinite(value)}


def _summary(scalars: dict[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()])


def _experiment(study: Study) -> Summary:
    """Say which columns the table of hyperparameters has; without this each branch would bring its own."""
    space = study.config.space
    columns = [HParamInfo(name=name, type=_type_of(space.values_of(name))) for name in space.parameters()]
    metrics = [MetricInfo(name=MetricName(tag=tag)) for tag in (OBJECTIVE, *(f"val/{name}" for name in _OF_ALL))]
    return _hparams("experiment", HParamsPluginData(experiment=Experiment(hparam_infos=columns, metric_infos=metrics)))


def _session_start(config: Config) -> Summary:
    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in config.items():
        kind = {str: "string_value", bool: "bool_value"}.get(type(value), "number_value")
        setattr(start.hparams[name], kind, value)
    return _hparams("session_start_info", HParamsPluginData(session_start_info=start))


def _session_end(record: TrialRecord) -> Summary:
    status = "STATUS_SUCCESS" if record.status in (COMPLETE, STOPPED) else "STATUS_FAILURE"
    end = SessionEndInfo(status=Status.Value(status), end_time_secs=time.time())
    return _hparams("session_end_info", HParamsPluginData(session_end_info=end))


def _hparams(tag: str, content: HParamsPluginData) -> Summary:
    """Wrap what TensorBoard's table of hyperparameters is made of; it travels as metadata of empty summaries."""
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    return Summary(value=[Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin))])


def _type_of(values: tuple[Scalar, ...]) -> int:
    kinds = {type(value) for value in values}
    name = "STRING" if str in kinds else "BOOL" if kinds == {bool} else "FLOAT64"
    return int(DataType.Value(f"DATA_TYPE_{name}"))
