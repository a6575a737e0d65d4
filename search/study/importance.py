"""How much each parameter mattered: PED-ANOVA on a study's journal, beside what it says where nothing matters."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.study.records import StudyFolder

# PED-ANOVA compares the best trials with all; Optuna advises at least five in the better part.
_LEAST_TOP, _LEAST_COMPLETE, _LEAST_ENDED = 5, 10, 20
_SHUFFLES = 40

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """What one parameter's value tells of whether a trial is among the best.

    Attributes:
        name: Full name of the parameter.
        n: Ended trials that have it.
        share: Of all importance; the shares of all parameters make 1.
        by_chance: What 19 of 20 random deals of the scores to the trials stay below, in the same unit; may exceed 1.
    """

    name: str
    n: int
    share: float
    by_chance: float

    @property
    def stands_out(self) -> bool:
        """Whether it is more than what chance gives it in 19 of 20 cases."""
        return self.share > self.by_chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """Of all parameters, those that stand out and the largest first.

    Attributes:
        n_ended: Trials that count.
        n_top: How many of them are the best that all are compared with.
        parameters: One for each; empty if nothing can be said, and then `why_not` says why.
        why_not: In words.
    """

    n_ended: int
    n_top: int
    parameters: tuple[Importance, ...]
    why_not: str = ""


def measure_importance(folder: StudyFolder) -> Importances:
    """Measure each searched parameter's importance; the journal is only read.

    PED-ANOVA compares how a parameter's values are spread among the best trials with how they are spread among all.
    Only which trials are the best counts, not by how much, so those that were stopped or did not work count as well,
    as not among the best: of those alone that ran to their end, what ASHA weeds out first would seem unimportant. A
    parameter of one branch is compared among the trials of that branch and weighs as much as they do (conditional
    PED-ANOVA), so all parameters stand on one scale. Floors are not seen, the objective alone counts.

    Source:
        Watanabe et al. 2023, PED-ANOVA, arXiv:2304.10255; Optuna 5's evaluator for branches, arXiv:2601.20800.
    """
    if not folder.journal.exists():
        return _nothing("the study has no journal")
    with _silence():
        trials = _ended_trials(folder)
        scores = _score(trials)
        n_complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
        searched = {name for trial in trials for name, kind in trial.distributions.items() if not kind.single()}
        if not searched:
            return _nothing("no ended trial has a searched value")
        if n_complete < _LEAST_COMPLETE or len(trials) < _LEAST_ENDED:
            return _nothing(
                f"{len(trials)} trials ended, {n_complete} of them by running to their end; below {_LEAST_ENDED} and "
                f"{_LEAST_COMPLETE} the shares would be chance"
            )
        return _measure(trials, scores, sorted(searched), n_top=_choose_top(len(trials), n_complete))


def _nothing(why: str) -> Importances:
    return Importances(n_ended=0, n_top=0, parameters=(), why_not=why)


def _choose_top(n: int, n_complete: int) -> int:
    """Take a tenth as the best, but enough to compare, and not everything that ran to its end."""
    return max(_LEAST_TOP, min(-(-n // 10), n_complete // 2))


def _score(trials: list[FrozenTrial]) -> Values:
    """Return the objective of complete trials, and for all others one that is below them."""
    is_complete = np.array([trial.state == TrialState.COMPLETE for trial in trials], dtype=bool)
    values = np.array([trial.value if trial.value is not None else np.nan for trial in trials], dtype=np.float64)
    below = values[is_complete].min(initial=0.0) - 1.0
    return np.where(is_complete, values, below)


def _measure(trials: list[FrozenTrial], scores: Values, names: list[str], *, n_top: int) -> Importances:
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [create_trial(params=trial.params, distributions=trial.distributions, value=0.0) for trial in trials]
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=n_top / len(trials))
    observed = _evaluate(study, evaluator, names, scores)
    total = observed.sum()
    if not total > 0:
        return _nothing("the best trials cannot be told from the others: too many have the same score")
    random = np.random.default_rng(0)
    dealt = [_evaluate(study, evaluator, names, random.permutation(scores)) for _ in range(_SHUFFLES)]
    bounds = np.quantile(np.array(dealt), 0.95, axis=0)
    found = [
        Importance(
            name=name,
            n=sum(name in trial.params for trial in trials),
            share=float(value / total),
            by_chance=float(bound / total),
        )
        for name, value, bound in zip(names, observed, bounds, strict=True)
    ]
    parameters = tuple(sorted(found, key=lambda each: (not each.stands_out, -each.share)))
    return Importances(n_ended=len(trials), n_top=n_top, parameters=parameters)


def _evaluate(study: optuna.Study, evaluator: PedAnovaImportanceEvaluator, names: list[str], scores: Values) -> Values:
    """Measure with these scores; to Optuna lower targets are better. It is not to normalise, where 0 becomes equal."""
    found = get_param_importances(
        study, evaluator=evaluator, params=names, target=lambda trial: -scores[trial.number], normalize=False
    )
    return np.array([found[name] for name in names])


def _ended_trials(folder: StudyFolder) -> list[FrozenTrial]:
    """Read the journal; its own class would mend it, which only the study's driver may do."""
    storage = JournalStorage(JournalFileBackend(str(folder.journal.absolute())))
    names = optuna.get_all_study_names(storage)
    if not names:
        return []
    study = optuna.load_study(study_name=names[0], storage=storage, sampler=optuna.samplers.RandomSampler())
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


@contextmanager
def _silence() -> Iterator[None]:
    """Optuna warns of experimental arguments and of branches with few trials, which the page says itself."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
