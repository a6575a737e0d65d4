"""The final training of the best configuration, from one seed or several, and how its logits are to be read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from data_pipeline.dataset import Dataset, join_parts
from search.errors import DONE, ConfigError
from search.final.members import EpochRule, Folder, Member, train_member
from search.final.model_file import TrainedModel, class_shares, load_model, save_model
from search.final.outcome import predict_logits
from search.final.teaching import make_teacher
from search.space.config_file import load_study_config
from search.space.objective import Objective
from search.study.best import Best, load_best
from search.study.confirmation import out_of_fold
from search.study.data import check_same_data, describe, open_data, trial_data
from search.study.marks import marks_of
from search.study.provenance import describe_data, describe_device
from search.study.records import (
    StudyFolder,
    confirm_folder,
    fingerprint_file,
    lock_folder,
    read_lines,
    write_atomically,
    write_json,
)
from search.study.rows import collect_rows, judgement_to_row, report_to_row
from search.trial.calibration import fit_rule
from search.trial.data import TrialData
from search.trial.decision import DecisionRule
from search.trial.evaluation import Judgement, choose_device, judge_calls, judge_logits
from search.trial.memory import keep_freed_memory
from search.trial.metrics import Scores
from search.trial.params import TrialParams, from_flat
from search.trial.prediction import Ensemble, TestTime
from search.trial.vocabulary import Scalar, nearest
from search.views.figures import draw_curves
from search.views.terminal import say
from search.views.words import count, metric_words, score_table

TRAIN, TRAIN_VAL = "train", "train+val"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRequest:
    """What the user asks for.

    Attributes:
        best: A best.yaml.
        out: Folder for the model and its numbers.
        results: Folder of all studies; encoded maps are kept there.
        on: TRAIN, watching validation, or TRAIN_VAL, which has no validation left.
        data: Wafers to use instead of those that best.yaml names; they must be the same ones.
        seeds: Of the members; () trains one from the trial's own seed.
        n_seeds: So many members instead, from the trial's own seed and those that follow it; None: as `seeds` says.
        epoch: Whose weights are taken, see `train_member`.
        test_time: From how many views the model decides; None as the trial did.
        threads: CPU threads instead of the trial's.
        teacher: A model file to learn from beside the labels; None: from the labels alone.
        teacher_weight: Of the teacher in the loss.
        changes: Values of the configuration that are to be others, by full name.
    """

    best: Path
    out: Path
    results: Path
    on: str = TRAIN
    data: str | None = None
    seeds: tuple[int, ...] = ()
    n_seeds: int | None = None
    epoch: EpochRule = "last"
    test_time: TestTime | None = None
    threads: int | None = None
    teacher: Path | None = None
    teacher_weight: float = 0.7
    changes: Mapping[str, Scalar] = field(default_factory=dict)


def retrain(request: RetrainRequest, console: Console) -> int:
    """Train the configuration of a best.yaml for its full length and write `model.pt`, its numbers and its curves.

    On train, with the trial's seed and threads, a CPU yields the trial's reports again bit for bit.

    Raises:
        ConfigError: If best.yaml, an option or the teacher cannot be used, the wafers are others than the study's, or
            the folder cannot be written.
        DataError: If the wafers cannot be used.
        TrialFailed: If the training diverges.
    """
    if request.epoch == "best" and request.on == TRAIN_VAL:
        raise ConfigError("--epoch best: needs validation wafers to choose by; use --on train, or --epoch last")
    best = load_best(request.best)
    params = _configure(request, best)
    seeds = request.seeds or tuple(range(params.seed, params.seed + (request.n_seeds or 1)))
    config = best.data if request.data is None else best.data.model_copy(update={"wafers": request.data})
    dataset = open_data(config, results=request.results)
    check_same_data(dataset, fingerprint=best.data_fingerprint, split_fingerprint=best.split_fingerprint)
    torch.set_num_threads(request.threads or best.cpu_threads)
    keep_freed_memory()
    device = choose_device()
    say(console, describe(dataset))
    data = _choose_parts(trial_data(dataset, config), on=request.on)
    if request.teacher:
        say(console, f"asking the teacher {request.teacher} about {len(data.train):,} wafers, eight views of each")
        teacher = make_teacher(
            load_model(request.teacher), dataset, on=request.on, weight=request.teacher_weight, console=console
        )
        data = replace(data, teacher=teacher)
    data = data.to(device)
    with lock_folder(request.out):
        named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        say(
            console,
            f"training trial {best.trial} of {best.study} on {request.on} ({len(data.train):,} wafers), {named}, "
            f"{count(params.epochs, 'nominal epoch')} of {data.epoch_samples:,} each, {describe_device(device)}",
        )
        folder = _folder(request, best, params, dataset)
        folder.claim()
        objective = _objective(request.best)
        if data.val is not None:
            say(console, f"+ marks the best {metric_words(objective.metric)} on validation so far")
        classes = dataset.wafers.classes

        def value(scores: Scores) -> float:
            return objective.value([scores], classes)

        members = [
            train_member(
                params.model_copy(update={"seed": seed}), data, folder, rule=request.epoch, value=value, console=console
            )
            for seed in seeds
        ]
        _finish(request, best, params, members, data, dataset, objective, console)
        folder.tidy()
    return DONE


def _configure(request: RetrainRequest, best: Best) -> TrialParams:
    """Return the configuration of best.yaml with what the command line wants otherwise."""
    flat, changes = best.params.to_flat(), dict(request.changes)
    changes |= {"test_time": request.test_time} if request.test_time is not None else {}
    for key in changes:
        if key not in flat:
            raise ConfigError(f"--set {key}: is not in {request.best}; {nearest(key, list(flat))}")
    if changes == {}:
        return best.params
    return from_flat({**flat, **changes}, where="--set", image_size=best.data.image_size)


def _folder(request: RetrainRequest, best: Best, params: TrialParams, dataset: Dataset) -> Folder:
    flat = {**params.to_flat(), "seed": 0}
    teacher = f"{fingerprint_file(request.teacher)} {request.teacher_weight}" if request.teacher else ""
    what = f"{request.on} {request.epoch} {teacher} {best.data_fingerprint} {best.split_fingerprint} {dataset.picture}"
    return Folder(path=request.out, key=f"{what} {sorted(flat.items())}", classes=dataset.wafers.classes)


def _objective(best: Path) -> Objective:
    """Return what the study of a best.yaml maximises; balanced macro-F1 where it stands alone."""
    resolved = StudyFolder(best.parent).resolved
    return load_study_config(resolved).objective if resolved.exists() else Objective()


def _choose_parts(data: TrialData, *, on: str) -> TrialData:
    if on == TRAIN:
        return data
    assert data.val is not None
    everything = join_parts(data.train, data.val)
    return replace(data, train=everything, val=None)


def _finish(
    request: RetrainRequest,
    best: Best,
    params: TrialParams,
    members: Sequence[Member],
    data: TrialData,
    dataset: Dataset,
    objective: Objective,
    console: Console,
) -> None:
    """Put the members together, fit how they are read, and write everything."""
    model = Ensemble([member.predictor for member in members]).to(data.train.labels.device).eval()
    say(console, "fitting how the model is read")
    rule, judgement, read = _read_logits(request, params, model, data, dataset, objective, console)
    splits, wafers = dataset.splits, dataset.wafers
    trained = TrainedModel(
        model=model,
        config={**params.to_flat(), "seed": members[0].seed},
        seeds=tuple(member.seed for member in members),
        classes=wafers.classes,
        picture=dataset.picture,
        on=request.on,
        data_fingerprint=best.data_fingerprint,
        split_fingerprint=best.split_fingerprint,
        is_synthetic=wafers.is_synthetic,
        leaky=splits.leaky,
        rule=rule,
        seen=np.unique(wafers.content[np.concatenate([splits.train, splits.val])]),
    )
    save_model(trained, request.out / "model.pt")
    marks = marks_of(describe_data(dataset))
    _write_numbers(request, members, trained, judgement, marks, trial=best.trial)
    if judgement:
        what = "validation" if len(members) == 1 else f"validation, {len(members)} members together"
        what += " without class thresholds" if rule.shifts else ""
        title = f"{what} ({', '.join([*marks, '%'])})"
        console.print(score_table(judgement.scores, wafers.classes, title=title))
    say(console, _describe_rule(rule, wafers.classes))
    if read:
        means = f"macro-F1 {100 * read.scores.macro_f1:.2f}, balanced {100 * read.scores.balanced_macro_f1:.2f}"
        say(console, f"with these thresholds, on the wafers they were fitted on: {means}; the test shows what is left")
    for name in ("model.pt", "metrics.json", "curves.png"):
        say(console, str(request.out / name))
    folder = StudyFolder(request.out.resolve().parent)
    if folder.provenance.exists() and request.out.name == folder.final.name:
        say(console, f"next                python -m search.evaluate {folder.in_commands}")


def _read_logits(
    request: RetrainRequest,
    params: TrialParams,
    model: Ensemble,
    data: TrialData,
    dataset: Dataset,
    objective: Objective,
    console: Console,
) -> tuple[DecisionRule, Judgement | None, Judgement | None]:
    """Fit the rule on wafers that no member was trained on: validation, or what models of other folds predicted.

    Returns:
        The rule; where there is validation, how the model does there; and, with class thresholds, how it does by them.
    """
    classes, wafers = dataset.wafers.classes, dataset.wafers
    fit = partial(fit_rule, classes=classes, shares=class_shares(model), statistic=objective.statistic(classes))
    if data.val is not None:
        logits, labels = predict_logits(model, data.val, console, precision=params.precision)
        groups = wafers.lots[dataset.splits.val]
        rule = fit(logits, labels, groups=groups, fitted_on="validation wafers")
        without = judge_logits(logits, labels, n_classes=len(classes))
        if not rule.shifts:
            return rule, without, None
        called = rule.call(rule.probabilities(logits))
        return rule, without, judge_calls(logits, called, labels, n_classes=len(classes))
    if request.teacher:
        why = "the models of other folds had no teacher, so they say nothing of this one"
        return DecisionRule(fitted_on=why), None, None
    folder = confirm_folder(StudyFolder(request.best.parent))
    records = collect_rows(list(read_lines(folder.trials)))
    found = out_of_fold(folder, records, params, dataset)
    if found is None:
        return DecisionRule(), None, None
    logits, labels = torch.from_numpy(found.logits), torch.from_numpy(found.labels)
    fitted_on = "training and validation wafers, each as a single model of another fold calls it"
    return fit(logits, labels, groups=found.lots, fitted_on=fitted_on), None, None


def _describe_rule(rule: DecisionRule, classes: Sequence[str]) -> str:
    """Say how logits are read, and what that was fitted on."""
    if not rule.n_fitted:
        why = rule.fitted_on or (
            "no wafers are left that the model was not trained on; "
            "`python -m search.confirm STUDY --folds 3` leaves some for --on train+val"
        )
        return f"nothing is calibrated: {why}"
    shifted = [f"{name} {shift:+.2f}" for name, shift in zip(classes, rule.shifts, strict=False) if shift]
    parts = [f"temperature {rule.temperature:.3f}"]
    parts += [f"thresholds shifted for {', '.join(shifted)}" if shifted else "no class thresholds (they do not pay)"]
    parts += [f"sure from {rule.sure_from:.3f}"] if rule.sure_from is not None else []
    parts += [f"a defect from {rule.defect_from:.3f}"] if rule.defect_from is not None else []
    return f"fitted on {rule.n_fitted:,} {rule.fitted_on}: {', '.join(parts)}"


def _write_numbers(
    request: RetrainRequest,
    members: Sequence[Member],
    trained: TrainedModel,
    judgement: Judgement | None,
    marks: tuple[str, ...],
    *,
    trial: int,
) -> None:
    device = next(trained.model.parameters()).device
    reports = [report for member in members for report in member.reports]
    metrics = {
        "trial": trial,
        "on": request.on,
        "marks": list(marks),
        "epochs": len(members[0].reports),
        "epoch": [member.epoch for member in members],
        "seeds": list(trained.seeds),
        "test_time": trained.config["test_time"],
        "teacher": str(request.teacher) if request.teacher else None,
        "n_parameters": trained.n_parameters,
        "device": describe_device(device),
        "seconds": sum(report.train_seconds + report.val_seconds for report in reports),
        "at_epoch": [report_to_row(member.reports[member.epoch - 1], trained.classes) for member in members],
        "together": judgement_to_row(judgement, trained.classes, split="val") if judgement else None,
        "rule": asdict(trained.rule),
    }
    write_json(request.out / "metrics.json", metrics)
    title = ", ".join([f"final training on {request.on}", *marks])
    trainings = {f"seed {member.seed}": member.reports for member in members}
    write_atomically(request.out / "curves.png", draw_curves(trainings, title=title))
