"""Training the best of a search again, on the same slots, and saying which of them is best and what it is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from data_pipeline.dataset import Dataset
from search.errors import DONE, INTERRUPTED, ConfigError
from search.execution.cluster import Cluster, stop_ray
from search.execution.copying import Forget, keep_copy
from search.execution.device import find_shares, make_planner
from search.execution.interrupts import Interrupts
from search.execution.observers import Observers
from search.execution.opening import open_cluster
from search.execution.tuner import run_trials
from search.space.config import ConfirmConfig, StudyConfig
from search.space.config_file import load_study_config
from search.space.space import Config
from search.space.strict_yaml import dump_yaml, read_yaml
from search.study.best import write_best
from search.study.confirmation import (
    Division,
    choose_candidates,
    configure,
    divide,
    finished_runs,
    fit_to_lots,
    fold_of,
    no_less_than,
    plan_runs,
    predictions_path,
    read_logits,
)
from search.study.confirmed import Confirmed, write_confirmed
from search.study.data import check_same_data, describe, open_data, trial_data
from search.study.judging import conclude
from search.study.marks import marks_of
from search.study.places import read_place, remove_place
from search.study.provenance import describe_data, record_attempt, record_end
from search.study.records import StudyFolder, confirm_folder, read_json, write_atomically
from search.study.rows import COMPLETE, TrialRecord
from search.study.study import Study
from search.study.winner import keep_winner
from search.views.confirmed import show_confirmed
from search.views.report import write_report
from search.views.terminal import Detail, SearchView, WarningsOnly, say


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRequest:
    """What the user asks for.

    Attributes:
        study: Whose best are confirmed.
        results: Folder of all studies; encoded maps are kept there.
        overrides: Values of the study's `confirm` section that are to be others.
        data: Wafers to use instead of those that the study names; they must be the same ones.
        address: Of a Ray cluster; None starts one here.
        dashboard: Whether a Ray started here serves its dashboard.
        detail: How much is said meanwhile, see `SearchView`.
    """

    study: StudyFolder
    results: Path
    overrides: Mapping[str, int] = field(default_factory=dict)
    data: str | None = None
    address: str | None = None
    dashboard: bool = True
    detail: Detail = "normal"


def confirm(request: ConfirmRequest, console: Console) -> int:
    """Confirm a study that was searched before.

    Raises:
        ConfigError: If there is nothing to confirm, or anything asked for is impossible.
        DataError: If the wafers cannot be used.
        StudyAborted: If runs fail one after the other.
    """
    asked = {f"confirm.{key}": value for key, value in request.overrides.items()}
    config = load_study_config(request.study.resolved, overrides=asked)
    if request.data is not None:
        config = replace(config, data=config.data.model_copy(update={"wafers": request.data}))
    dataset = open_data(config.data, results=request.results)
    known = read_json(request.study.provenance)["data"]
    check_same_data(dataset, fingerprint=known["fingerprint"], split_fingerprint=known["split_fingerprint"])
    say(console, describe(dataset))
    with keep_copy(request.study) as forget:
        try:
            return confirm_study(request, config, dataset, console, forget=forget)
        finally:
            stop_ray()


def confirm_study(
    request: ConfirmRequest,
    config: StudyConfig,
    dataset: Dataset,
    console: Console,
    *,
    cluster: Cluster | None = None,
    forget: Forget = remove_place,
) -> int:
    """Train the best again, or go on with that; what is found then stands in best.yaml and on the page.

    Args:
        request: What the user asks for.
        config: Of the search, with the `confirm` section that counts.
        dataset: The study's.
        console: Where to say what happens.
        cluster: That runs already; None starts Ray, which the caller stops.
        forget: See `Study`.

    Returns:
        The exit code: DONE, or INTERRUPTED if the same command would go on.
    """
    folder, data = request.study, describe_data(dataset)
    sub = confirm_folder(folder)
    earlier: list[Config] = read_yaml(sub.resolved)[0]["first"] if sub.resolved.exists() else []
    wanted = fit_to_lots(dataset, no_less_than(earlier, config.confirm or ConfirmConfig()))
    chat = WarningsOnly(file=console.file) if request.detail == "quiet" else console
    with Interrupts() as interrupts, Study(folder, config, classes=dataset.wafers.classes) as study:
        candidates = choose_candidates(list(study.records.values()), top=wanted.top, earlier=earlier)
        if not candidates:
            floors = " and meets the constraints" if config.floors else ""
            raise ConfigError(f"{folder.path}: no trial ran to its end{floors}, so there is nothing to confirm")
        runs = _put_behind(earlier, configure(config, plan_runs(candidates, wanted), study.records))
        # Earlier calls may have asked for another number of folds.
        n_folds = {wanted.folds, *(fold_of(int(run["seed"]))[1] for run in runs.first)}
        divided = {n: divide(dataset, n_folds=n) for n in sorted(n_folds)}
        with Study(sub, runs, classes=dataset.wafers.classes, only_first=True, forget=forget) as confirmation:
            say(chat, _tell_plan(candidates, wanted, confirmation))
            is_over = confirmation.is_over or _run(
                confirmation, dataset, divided, request, chat, console, interrupts, cluster
            )
            if not is_over:
                done = f"{confirmation.count(COMPLETE)} of {len(confirmation.config.first)} trainings are finished"
                say(console, f"interrupted: {done}; the same command goes on from here")
                return INTERRUPTED
            _bring_predictions(confirmation)
            found = conclude(config, candidates, confirmation.records, sub, dataset, divided[wanted.folds])
        if found:
            _show_hardest(study, found, confirmation, dataset)
        return _tell(study, found, data, console, chat)


def _put_behind(earlier: Sequence[Config], runs: StudyConfig) -> StudyConfig:
    """Put the runs behind those of an earlier call, whose order the study remembers."""
    points = [*earlier, *(point for point in runs.first if point not in earlier)]
    limits = runs.search.model_copy(update={"trials": len(points)})
    return replace(runs, first=tuple(points), search=limits)


def _tell_plan(candidates: Sequence[TrialRecord], wanted: ConfirmConfig, confirmation: Study) -> str:
    parts = [f"{wanted.seeds} fresh seeds"] if wanted.seeds else []
    parts += [f"{wanted.folds} folds of other lots"] if wanted.folds else []
    names = ", ".join(str(each.number) for each in candidates if each.status == COMPLETE)
    left = ", ".join(str(each.number) for each in candidates if each.status != COMPLETE)
    names += f"; unfinished {left}" if left else ""
    done = f"; {len(confirmation.records)} of them have begun before" if confirmation.records else ""
    return (
        f"confirming the best {len(candidates)} (trials {names}) by {' and '.join(parts)} each: "
        f"{len(confirmation.config.first)} trainings to their end{done}"
    )


def _run(
    confirmation: Study,
    dataset: Dataset,
    divided: Mapping[int, Sequence[Division]],
    request: ConfirmRequest,
    chat: Console,
    console: Console,
    interrupts: Interrupts,
    cluster: Cluster | None,
) -> bool:
    """Train what is left on Ray's slots; return whether nothing is left."""
    config, folder = confirmation.config, confirmation.folder
    data = describe_data(dataset)
    arrays = trial_data(dataset, config.data)
    folds = [(fold, n_folds) for n_folds, divisions in divided.items() for fold in range(1, len(divisions))]
    if cluster is None:
        cluster = open_cluster(confirmation, arrays, chat, address=request.address, dashboard=request.dashboard)
    text = dump_yaml(config.to_tree())
    record_attempt(folder, config, data, space_text=text, device=cluster.packing.device)
    auto = find_shares(cluster.packing)[config.space.models[0]].auto
    confirmation.plan = make_planner(config, arrays, auto=auto).total
    view = SearchView(confirmation, console, marks=marks_of(data), detail=request.detail)
    with Observers([view], on_broken=partial(say, chat)) as observers:
        is_over = run_trials(
            confirmation,
            arrays,
            cluster,
            on_event=observers.on_event,
            interrupts=interrupts,
            divisions=[(divided[n][fold].train_rows, divided[n][fold].val_rows) for fold, n in folds],
            brief=partial(_brief, folder, folds),
        )
    record_end(folder, is_exhausted=confirmation.is_exhausted)
    return is_over


def _brief(folder: StudyFolder, folds: Sequence[tuple[int, int]], record: TrialRecord) -> dict[str, object]:
    """Tell a slot on which division a run trains, 0 for the search's own, and where its predictions are kept."""
    seed = int(record.config["seed"])
    place = folder.place(predictions_path(folder, seed, record.number))
    return {"division": [(0, 0), *folds].index(fold_of(seed)), "predictions": place}


def _bring_predictions(confirmation: Study) -> None:
    """Fetch what slots have left in a store; without one it lies here already."""
    folder = confirmation.folder
    for record in confirmation.records.values():
        path = predictions_path(folder, int(record.config["seed"]), record.number)
        if folder.remote and record.status == COMPLETE and not path.exists():
            content = read_place(folder.place(path))
            if content is not None:
                write_atomically(path, content)


def _show_hardest(study: Study, found: Confirmed, confirmation: Study, dataset: Dataset) -> None:
    """Let the page show the wafers that the chosen one gets most wrong; the search kept those of its own winner."""
    runs = finished_runs(confirmation.records, study.records[found.chosen].config)
    own = [run for run in runs if fold_of(int(run.config["seed"]))[0] == 0]
    logits = read_logits(confirmation.folder, own[0]) if own else None
    if logits is not None and found.chosen != (study.leader.number if study.leader else None):
        keep_winner(study.folder, dataset, trial=found.chosen, logits_NK=logits)


def _tell(study: Study, found: Confirmed | None, data: Mapping[str, object], console: Console, chat: Console) -> int:
    if found is None:
        raise ConfigError(f"{study.folder.path}: no run of any candidate came to its end; nothing is confirmed")
    write_confirmed(study.folder, found)
    write_best(study, data)
    write_report(study.folder, say=partial(say, chat))
    show_confirmed(found, study, console, marks=marks_of(data))
    return DONE
