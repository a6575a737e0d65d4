"""Event files for TensorBoard: a run per trial in the study's `tensorboard/`, with its scalars and hyperparameters."""

import math
import shutil
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX.proto.api_pb2 import DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.record_writer import masked_crc32c

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
    tensorboardX's `SummaryWriter` is not used: it has a thread and a queue per run, waits for the disk after every
    event, and writes the names of all Korean classes as the same underscores.

    Args:
        study: What to write; only read.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._folder = study.folder.path / FOLDER
        self._runs: dict[int, _Run] = {}  # of the trials under way

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        _Run(self._folder).append([_event(_experiment(self._study))])
        for number, record in self._study.records.items():
            if record.reports or record.status != RUNNING:
                self.on_event(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: what was written is in the files."""

    def on_event(self, number: int) -> None:
        """Write what a trial has reported since, and its end."""
        record, events = self._study.records[number], []
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = _Run(self._folder / f"trial-{number:04d}", began=time.time() - record.seconds)
            events.append(_event(_session_start(record.config)))
        for report, value in list(zip(record.reports, record.values, strict=True))[run.n_epochs :]:
            scalars = _scalars(report, self._study.classes) | {OBJECTIVE: value}
            run.n_epochs, run.seconds = report.epoch, run.seconds + report.train_seconds + report.val_seconds
            events.append(_event(_summary(scalars), epoch=report.epoch, time_s=run.began + run.seconds))
        if record.status != RUNNING:
            events.append(_event(_session_end(record)))
            del self._runs[number]
        run.append(events)


class _Run:
    """The event file of one trial.

    Args:
        folder: Made if missing.
        began: When; its reports are as much later as it has trained.

    Attributes:
        n_epochs: Written so far.
        seconds: That those took.
    """

    def __init__(self, folder: Path, *, began: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.began, self.n_epochs, self.seconds = began, 0, 0.0
        self._path = folder / "events.out.tfevents"
        self._path.write_bytes(_frame(Event(file_version="brain.Event:2", wall_time=time.time())))

    def append(self, events: Sequence[Event]) -> None:
        """Write events; a reader sees them at once."""
        with self._path.open("ab") as file:
            file.write(b"".join(_frame(event) for event in events))


def _frame(event: Event) -> bytes:
    """Put length and checksums around an event, as TFRecord files have them."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    length_sum, content_sum = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return bytes(length + length_sum + content + content_sum)


def _event(summary: Summary, *, epoch: int = 0, time_s: float | None = None) -> Event:
    return Event(summary=summary, step=epoch, wall_time=time.time() if time_s is None else time_s)


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
