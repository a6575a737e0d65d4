"""A search from its space file to best.yaml and the report page."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from data_pipeline.dataset import Dataset
from search.errors import DONE, INTERRUPTED, ConfigError
from search.execution.cluster import Cluster, check_reachable, stop_ray
from search.execution.confirming import ConfirmRequest, confirm_study
from search.execution.copying import Forget, keep_copy
from search.execution.device import find_shares, free_memory, plan_memory
from search.execution.gauges import Gauges
from search.execution.interrupts import Interrupts
from search.execution.observers import Observer, Observers
from search.execution.opening import open_cluster
from search.execution.tuner import run_trials
from search.space.config import StudyConfig
from search.space.config_file import find_space, is_study_name, load_study_config
from search.space.space import Branch
from search.study.best import write_best
from search.study.confirmation import fit_to_lots
from search.study.data import absent_classes, check_objective, describe, open_data, trial_data
from search.study.finding import find_study, locate_study
from search.study.marks import marks_of
from search.study.places import is_address
from search.study.provenance import check_same_study, describe_data, record_attempt, record_end
from search.study.records import RESULTS, StudyFolder, remove_if_unstarted
from search.study.study import Study
from search.study.warm_start import write_warm_start
from search.study.winner import write_winner
from search.views.outcome import show_outcome
from search.views.report import write_report
from search.views.tensorboard import TensorBoardLog
from search.views.terminal import Detail, SearchView, WarningsOnly, say
from search.views.words import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asks for on the command line.

    Attributes:
        space: Path or name of a space file.
        overrides: Values by dotted path that replace those of the file.
        study: Name of the study; None takes the space's, marked where the wafers are synthetic or the split leaky.
        results: Folder of all studies, or the address of a store that gets a copy of this one.
        warm_start: Earlier studies to learn from.
        address: Of a Ray cluster; None starts one here.
        dashboard: Whether a Ray started here serves its dashboard.
        tensorboard: Whether the study's folder gets event files for TensorBoard.
        detail: How much is said while it searches, see `SearchView`.
    """

    space: str
    overrides: dict[str, object]
    study: str | None
    results: str
    warm_start: tuple[str, ...]
    address: str | None
    dashboard: bool
    tensorboard: bool = False
    detail: Detail = "normal"

    @property
    def folder(self) -> Path:
        """Of all studies, on this disk."""
        return RESULTS if is_address(self.results) else Path(self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that was asked for, read and checked.

    Attributes:
        space_file: As found.
        config: What it says, with what the command line says.
        dataset: The wafers, divided.
        data: What is known of them.
        folder: Of the study; nothing was written there.
        noted: What the study's folder notes: `config`, with a confirmation that the search itself goes without.
    """

    space_file: Path
    config: StudyConfig
    dataset: Dataset
    data: dict[str, object]
    folder: StudyFolder
    noted: StudyConfig


def prepare(request: Request) -> Prepared:
    """Read everything that a search needs, and check all that can be checked before Ray is started.

    Raises:
        ConfigError: If anything asked for is impossible.
        DataError: If the wafers cannot be used.
    """
    if request.study is not None and not is_study_name(request.study):
        raise ConfigError(f"--study: must be letters, digits, '.', '_' or '-', at most 80; got {request.study!r}")
    for name in request.warm_start:
        find_study(name, results=request.folder)
    if request.address:
        check_reachable(request.address)
    space_file = find_space(request.space)
    config = load_study_config(space_file, overrides=request.overrides)
    dataset = open_data(config.data, results=request.folder)
    data = describe_data(dataset)
    check_objective(config, dataset)
    name = request.study or "-".join([config.name, *(mark.lower() for mark in marks_of(data))])
    folder = locate_study(request.results, name)
    check_same_study(folder, config, data)
    return Prepared(space_file=space_file, config=config, dataset=dataset, data=data, folder=folder, noted=config)


def search(request: Request, console: Console) -> int:
    """Search, or go on searching, and confirm the best where the space asks for that.

    Everything found is in the study's folder when this returns.

    Returns:
        The exit code: DONE, or INTERRUPTED if the same command would go on.

    Raises:
        ConfigError: If anything asked for is impossible; before any trial.
        DataError: If the wafers cannot be used; before any trial.
        StudyAborted: If trials fail one after the other.
    """
    found = skip_vain_confirmation(prepare(request), console)
    again = ConfirmRequest(
        study=found.folder,
        results=request.folder,
        address=request.address,
        dashboard=request.dashboard,
        detail=request.detail,
    )
    with keep_copy(found.folder) as forget:
        check_same_study(found.folder, found.config, found.data)  # what a copy has brought, too
        try:
            code, cluster = _search(found, request, console, forget)
            if code != DONE or found.config.confirm is None or not found.folder.best.exists():
                return code
            return confirm_study(again, found.config, found.dataset, console, cluster=cluster, forget=forget)
        finally:
            stop_ray()


def skip_vain_confirmation(found: Prepared, console: Console) -> Prepared:
    """Leave out a confirmation that wafers of too few lots could not decide, and say so: the search goes without."""
    try:
        if found.config.confirm:
            fit_to_lots(found.dataset, found.config.confirm)
    except ConfigError as why:
        say(console, f"WARNING: nothing will be confirmed: {why}")
        return replace(found, config=replace(found.config, confirm=None))
    return found


def _search(found: Prepared, request: Request, console: Console, forget: Forget) -> tuple[int, Cluster | None]:
    """Return the exit code, and the cluster that was started, if one was needed."""
    config, dataset, data, folder = found.config, found.dataset, found.data, found.folder
    classes = dataset.wafers.classes
    chat = WarningsOnly(file=console.file) if request.detail == "quiet" else console
    for text in (describe(dataset), *absent_classes(dataset)):
        say(chat, text)
    # Suggestions are small sums: more threads than one would take the cores from the slots, and gain nothing.
    threadpool_limits(limits=1, user_api="blas")
    with Interrupts() as interrupts, Study(folder, config, classes=classes, forget=forget) as study:
        _say_how_far(study, chat)
        if study.is_over:
            return _finish(study, dataset, console, chat, is_over=True), None
        arrays = trial_data(dataset, config.data)
        try:
            _learn_from_earlier(study, request, data, chat)
            cluster = open_cluster(study, arrays, chat, address=request.address, dashboard=request.dashboard)
        except ConfigError:
            remove_if_unstarted(folder)
            raise
        device = cluster.packing.device
        record_attempt(folder, found.noted, data, space_text=found.space_file.read_text("utf-8"), device=device)
        _say_dashboard(cluster, chat)
        study.gpus_of = lambda model: cluster.packing.slices[model].gpus
        planner, largest = plan_memory(config, arrays, find_shares(cluster.packing, free=free_memory()), chat)
        study.plan = planner.total if largest else None
        with _observe(study, request, console, marks=marks_of(data)) as observers:
            is_over = run_trials(study, arrays, cluster, on_event=observers.on_event, interrupts=interrupts)
        record_end(folder, is_exhausted=study.is_exhausted)
        if not is_over or config.confirm is None:
            stop_ray()  # before the page is made, or Ray's processes would outlive an interrupted search by seconds
        return _finish(study, dataset, console, chat, is_over=is_over), cluster


def _observe(study: Study, request: Request, console: Console, *, marks: Sequence[str]) -> Observers:
    view = SearchView(study, console, marks=marks, detail=request.detail)
    observers: list[Observer] = [view, Gauges(study, view.snapshot)]
    if request.tensorboard:
        observers.append(TensorBoardLog(study))
    return Observers(observers, on_broken=lambda text: sys.stderr.write(f"{text}\n"))  # the view shows that, too


def _learn_from_earlier(study: Study, request: Request, data: dict[str, object], console: Console) -> None:
    if request.warm_start:
        told = write_warm_start(study.folder, request.warm_start, study.config, data, results=request.folder)
        for line in told:
            say(console, line)
        if told:  # else the study has learned from these when it was opened
            study.learn_from_earlier()


def _say_how_far(study: Study, console: Console) -> None:
    limit = f", {duration(study.config.search.time)}" if study.config.search.time else ""
    say(
        console,
        f"study {study.folder.path}: {study.config.search.trials} trials{limit}, "
        f"maximising {study.config.objective.metric} over {len(study.config.space.parameters())} parameters",
    )
    branches = [node for node in study.config.space.nodes.values() if isinstance(node, Branch)]
    if study.config.search.sampler == "qmc" and any(inner for node in branches for inner in node.options.values()):
        say(console, "WARNING: qmc draws what belongs to a branch at random; tpe_gp, tpe and gp learn it")
    if study.records:
        say(
            console,
            f"going on after {len(study.records)} trials and {duration(study.elapsed)}; "
            f"{len(study.paused)} were interrupted and go on first",
        )
    if study.is_out_of_time and not study.is_over:
        say(console, "the time is up, but no trial has come to its end: the one nearest to it goes on")


def _say_dashboard(cluster: Cluster, console: Console) -> None:
    if cluster.dashboard:
        say(
            console,
            f"Ray dashboard: {cluster.dashboard}  (its token: run `ray get-auth-token`; from another machine first "
            f"`ssh -L 8265:{cluster.dashboard.removeprefix('http://')} HOST`)",
        )


def _finish(study: Study, dataset: Dataset, console: Console, chat: Console, *, is_over: bool) -> int:
    data = describe_data(dataset)
    write_best(study, data)
    unshown = write_winner(study, dataset, patience_s=60 if is_over else 10)
    write_report(study.folder, say=partial(say, chat))
    show_outcome(study, console, marks=marks_of(data), is_over=is_over, note=unshown or "")
    return DONE if is_over else INTERRUPTED
