"""best.yaml: the configuration to retrain, with everything it takes and the numbers that speak for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.space.config import DataConfig
from search.space.config_file import read_section
from search.space.problems import Problems
from search.space.space import model_of
from search.space.strict_yaml import dump_yaml, read_yaml
from search.study.confirmed import Confirmed, describe_candidate, read_current, sentences
from search.study.marks import marks_of, name_wafers, warnings_of
from search.study.records import write_atomically
from search.study.rows import COMPLETE, STOPPED, TrialRecord
from search.study.study import Study
from search.trial.metrics import Scores
from search.trial.params import TrialParams, from_flat
from search.trial.vocabulary import nearest

_FORMAT = 2
_UNCONFIRMED = (
    "The best of many noisy scores overstates itself: what it is worth, `python -m search.confirm` and the locked test "
    "say."
)
_KEYS = ("format", "study", "trial", "data", "data_fingerprint", "split_fingerprint", "cpu_threads", "params")


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """What best.yaml says.

    Attributes:
        study: Name of the study it comes from.
        trial: Number of the trial there.
        data: What it was trained on.
        data_fingerprint: Of all wafers.
        split_fingerprint: Of their division.
        cpu_threads: Threads that the trial had; on a CPU the same number gives the same training bit for bit.
        params: The configuration.
    """

    study: str
    trial: int
    data: DataConfig
    data_fingerprint: str
    split_fingerprint: str
    cpu_threads: int
    params: TrialParams


def write_best(study: Study, data: Mapping[str, Any]) -> TrialRecord | None:
    """Write best.yaml if any trial ran to its end: with the confirmed configuration, else with the search's winner.

    Args:
        study: The study.
        data: From `describe_data`.

    Returns:
        The trial that it holds; None if there is none.
    """
    winner = study.best
    if winner is None:
        return None
    confirmed = read_current(study.folder, winner=winner.number, split_fingerprint=data["split_fingerprint"])
    record = study.records[confirmed.chosen] if confirmed else winner
    if record.scores is None:
        return None
    wafers = study.config.data.wafers
    where = wafers if wafers in ("auto", "synthetic") else str(Path(wafers).resolve())
    if data["drawn"]:
        where = "synthetic"  # they are drawn again, even where somebody has put a file since
    tree = {
        "format": _FORMAT,
        "study": study.folder.name,
        "trial": record.number,
        "data": study.config.data.model_dump() | {"wafers": where},
        "data_fingerprint": data["fingerprint"],
        "split_fingerprint": data["split_fingerprint"],
        "cpu_threads": study.config.resources.of(model_of(record.config))[0],
        "params": from_flat(record.config, where="best", image_size=study.config.data.image_size).to_flat(),
    }
    write_atomically(study.folder.best, _comment(study, record, record.scores, data, confirmed) + dump_yaml(tree))
    return record


def load_best(path: Path) -> Best:
    """Read a best.yaml, edited by hand or not, and check all of it.

    Raises:
        ConfigError: With every problem found.
    """
    tree, lines = read_yaml(path)
    problems = Problems(path, lines)
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        problems.add((), f"must be a best.yaml of format {_FORMAT}, as a search writes it")
        problems.raise_if_any()
    for key in tree:
        if key not in _KEYS:
            problems.add((key,), f"unknown key; {nearest(key, list(_KEYS))}")
    for key in _KEYS:
        if key not in tree:
            problems.add((), f"lacks {key}")
    for key, kind in (("study", str), ("trial", int), ("data_fingerprint", str), ("split_fingerprint", str)):
        if not isinstance(tree.get(key, kind()), kind):
            problems.add((key,), f"must be {'a word' if kind is str else 'a whole number'}; got {tree[key]!r}")
    threads, flat = tree.get("cpu_threads", 1), tree.get("params", {})
    if not isinstance(threads, int) or threads < 1:
        problems.add(("cpu_threads",), f"must be a whole number from 1; got {threads!r}")
    if not isinstance(flat, dict):
        problems.add(("params",), f"must be a mapping; got {flat!r}")
    data = read_section(DataConfig, tree, "data", problems)
    problems.raise_if_any()
    return Best(
        study=tree["study"],
        trial=tree["trial"],
        data=data,
        data_fingerprint=tree["data_fingerprint"],
        split_fingerprint=tree["split_fingerprint"],
        cpu_threads=threads,
        params=from_flat(flat, where=f"{path} params", image_size=data.image_size),
    )


def _comment(
    study: Study, record: TrialRecord, scores: Scores, data: Mapping[str, Any], confirmed: Confirmed | None
) -> str:
    """Say in comments where the configuration comes from and what it scored."""
    objective = study.config.objective.metric
    lines = [
        f"The best of study {study.folder.name}{f' on {name_wafers(data)}' if marks_of(data) else ''}: "
        f"{study.count(COMPLETE)} ran to their end, {study.count(STOPPED)} were stopped.",
        f"Trial {record.number} after {_epochs(record)} nominal epochs of {study.config.data.epoch_samples:,} wafers, "
        f"on {sum(scores.support):,} validation wafers{'' if data.get('leaky') else ' of other lots'}, one seed:",
        f"  {objective} {record.value:.4f}, balanced macro-F1 {scores.balanced_macro_f1:.4f}, "
        f"macro-F1 {scores.macro_f1:.4f}, accuracy {scores.accuracy:.4f}",
        *(
            f"  {name:<10} precision {scores.precision[k]:.3f}  recall {scores.recall[k]:.3f}  "
            f"F1 {scores.f1[k]:.3f}  of {scores.support[k]:,}"
            for k, name in enumerate(study.classes)
        ),
        *warnings_of(data),
        *(_comment_confirmed(confirmed) if confirmed else [_UNCONFIRMED]),
        f"Next: python -m search.retrain {study.folder.in_commands}",
    ]
    return "".join(f"# {line}\n" for line in lines)


def _epochs(record: TrialRecord) -> str:
    is_whole = len(record.reports) == record.epochs
    return str(record.epochs) if is_whole else f"{len(record.reports)} of {record.epochs}"


def _comment_confirmed(confirmed: Confirmed) -> list[str]:
    rows = [f"  {describe_candidate(row, is_alone=confirmed.is_alone)}" for row in confirmed.candidates]
    return [f"Confirmed, {confirmed.metric} in %, intervals of 95 %:", *rows, *sentences(confirmed)]
