"""Scoring a model on labelled wafers from elsewhere: another fab, another month, another file."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from data_pipeline.batches import wrap_arrays
from data_pipeline.encode import encode_maps
from data_pipeline.wafer_set import WaferSet
from search.errors import DONE, ConfigError
from search.final.model_file import TrainedModel
from search.final.outcome import draw_pictures, origin_of, predict_logits, show_scored, to_predictions
from search.final.scoring import score_logits, scored_to_row
from search.study.marks import marks_of
from search.study.predictions import write_predictions
from search.study.records import StudyFolder, fingerprint_file, write_json
from search.trial.calibration import estimate_shares
from search.trial.vocabulary import nearest
from search.views.terminal import say


def score_external(study: StudyFolder, trained: TrainedModel, wafers: WaferSet, console: Console, *, name: str) -> int:
    """Score the final model on wafers that do not belong to the study; the ledger of its locked test is not touched.

    Wafers that the model has seen, map by map, are left out. Numbers, predictions and pictures go to
    `final/external-<name>*`.

    Raises:
        ConfigError: If no wafer is labelled, a class is unknown to the model, or all labelled wafers were seen.
    """
    wafers = _with_classes_of(trained, wafers)
    labelled = np.flatnonzero(wafers.labels >= 0)
    is_seen = np.isin(wafers.content[labelled], trained.seen)
    rows = labelled[~is_seen]
    if not len(rows):
        why = (
            "no wafer is labelled" if not len(labelled) else f"the model has seen all {len(labelled):,} labelled wafers"
        )
        raise ConfigError(f"{wafers.source}: nothing to score on: {why}")
    marks = marks_of({"synthetic": wafers.is_synthetic, "leaky": trained.leaky})
    say(console, _describe(wafers, labelled, is_seen, trained.classes))
    encoded = wrap_arrays(encode_maps(wafers, rows, picture=trained.picture), wafers.labels[rows])
    logits_NK, labels = predict_logits(trained.model, encoded, console, precision=trained.precision)
    scored = score_logits(
        logits_NK,
        labels,
        rule=trained.rule,
        classes=trained.classes,
        lots=wafers.lots[rows],
        shares=trained.shares,
    )
    final, when = study.final, datetime.now(UTC).isoformat(timespec="seconds")
    name = f"external-{name}"
    model = fingerprint_file(final / "model.pt")
    shares = estimate_shares(scored.probabilities, assumed=trained.shares)
    row: dict[str, Any] = scored_to_row(scored, trained.classes, split="external")
    row |= {
        "when": when,
        "model": model,
        "marks": list(marks),
        "source": wafers.source,
        "fingerprint": wafers.fingerprint,
    }
    row |= {"n_seen": int(is_seen.sum()), "n_unlabelled": len(wafers) - len(labelled)}
    row |= {"estimated_shares": dict(zip(trained.classes, shares.tolist(), strict=True))}
    write_json(final / f"{name}.json", {"format": 1, **row})
    origin = origin_of(trained, wafers, study=study.name, model=model, split="", protocol="external", when=when)
    write_predictions(to_predictions(scored, trained.classes, wafers, rows, origin), final / f"{name}.parquet")
    title = f"{study.name} on {wafers.source} ({', '.join([*marks, '%'])})"
    pictures = draw_pictures(scored, trained, wafers, rows, final, prefix=name, title=title)
    show_scored(scored, trained, console, title=title)
    files = [*pictures, ("predictions", final / f"{name}.parquet"), ("numbers", final / f"{name}.json")]
    for what, path in files:
        say(console, f"{what:<18}{path}")
    return DONE


def _with_classes_of(trained: TrainedModel, wafers: WaferSet) -> WaferSet:
    """Number the labels as the model does.

    Raises:
        ConfigError: If a label that occurs is none of the model's classes.
    """
    known = trained.classes
    occurring = [wafers.classes[k] for k in np.unique(wafers.labels[wafers.labels >= 0])]
    for name in occurring:
        if name not in known:
            raise ConfigError(f"{wafers.source}: class {name!r} is unknown to the model; {nearest(name, list(known))}")
    places: NDArray[np.int64] = np.array([known.index(name) if name in known else -1 for name in wafers.classes] + [-1])
    return replace(wafers, labels=places[wafers.labels], classes=known)


def _describe(
    wafers: WaferSet, labelled: NDArray[np.int64], is_seen: NDArray[np.bool_], classes: tuple[str, ...]
) -> str:
    counts = np.bincount(wafers.labels[labelled[~is_seen]], minlength=len(classes))
    listed = ", ".join(f"{name} {n:,}" for name, n in zip(classes, counts, strict=True) if n)
    absent = [name for name, n in zip(classes, counts, strict=True) if not n]
    lines = [
        f"{wafers.source}: not the study's wafers, so an external test; the locked test stays closed",
        f"  {len(wafers):,} wafers, {len(wafers) - len(labelled):,} of them unlabelled; "
        f"{int(is_seen.sum()):,} that the model has seen are left out",
        f"  {int((~is_seen).sum()):,} to score on: {listed}",
    ]
    lines += [f"  no wafer of {', '.join(absent)}: not in any mean"] if absent else []
    return "\n".join(lines)
