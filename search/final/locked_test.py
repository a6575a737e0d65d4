"""The locked test: opened by this room alone, and every look is written down."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from data_pipeline.wafer_files import load_wafers
from search.errors import DONE, ConfigError
from search.final.external_test import score_external
from search.final.model_file import TrainedModel, load_model
from search.final.outcome import draw_pictures, origin_of, predict_logits, show_scored, to_predictions
from search.final.scoring import score_logits, scored_to_row, tell_other_shares
from search.study.best import Best, load_best
from search.study.data import check_same_data, describe, open_data
from search.study.marks import marks_of
from search.study.predictions import NAME, write_predictions
from search.study.provenance import describe_data
from search.study.records import StudyFolder, fingerprint_file, lock_folder, read_json, write_json
from search.views.report import write_report
from search.views.terminal import say

# Class shares that differ by more than this are worth a line.
_OTHER_SHARES = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """What the user asks for.

    Attributes:
        study: The study whose final model is tested.
        results: Folder of all studies; encoded maps are kept there.
        data: Where the study's wafers lie now, or other labelled wafers to score the model on.
    """

    study: StudyFolder
    results: Path
    data: str | None = None


def evaluate(request: EvaluateRequest, console: Console) -> int:
    """Score the final model: on the study's locked test, or on an external file of labelled wafers.

    Raises:
        ConfigError: If there is no final model yet, it does not belong to this study's data, or an external file has
            nothing to score it on.
        DataError: If the wafers cannot be used.
    """
    best, trained = load_best(request.study.best), load_model(request.study.final / "model.pt")
    if request.data is not None:
        external = load_wafers(Path(request.data))
        if external.fingerprint != best.data_fingerprint:
            return score_external(request.study, trained, external, console, name=Path(request.data).stem)
    return _score_locked_test(request, best, trained, console)


def _score_locked_test(request: EvaluateRequest, best: Best, trained: TrainedModel, console: Console) -> int:
    """Score the test part and add the look to the ledger, `final/test.json`.

    What it predicted is kept in `final/test_predictions.parquet`, so that nothing else has to look.
    """
    final = request.study.final
    # The model's picture: best.yaml may have been edited since.
    config = best.data.model_copy(update={"wafers": request.data or best.data.wafers, **asdict(trained.picture)})
    dataset = open_data(config, results=request.results)
    check_same_data(dataset, fingerprint=best.data_fingerprint, split_fingerprint=best.split_fingerprint)
    if (trained.data_fingerprint, trained.split_fingerprint) != (best.data_fingerprint, best.split_fingerprint):
        raise ConfigError(f"{final / 'model.pt'}: was trained on other wafers than this study's; retrain it")
    say(console, describe(dataset))
    marks = marks_of(describe_data(dataset))
    logits_NK, labels = predict_logits(trained.model, dataset.encode("test"), console, precision=trained.precision)
    lots = dataset.wafers.lots[dataset.splits.test]
    scored = score_logits(
        logits_NK, labels, rule=trained.rule, classes=trained.classes, lots=lots, shares=trained.shares
    )
    with lock_folder(final):
        model = fingerprint_file(final / "model.pt")
        row = scored_to_row(scored, trained.classes, split="test")
        looks = _add_look(final / "test.json", row | {"model": model, "marks": list(marks)})
        origin = origin_of(
            trained,
            dataset.wafers,
            study=request.study.name,
            model=model,
            split=dataset.splits.fingerprint,
            protocol=dataset.splits.protocol,
            when=looks[-1]["when"],
        )
        kept = to_predictions(scored, trained.classes, dataset.wafers, dataset.splits.test, origin)
        write_predictions(kept, final / NAME)
        title = f"{request.study.name}: locked test ({', '.join([*marks, '%'])})"
        pictures = draw_pictures(
            scored, trained, dataset.wafers, dataset.splits.test, final, prefix="test", title=title
        )
        if request.study.provenance.exists():
            write_report(request.study)
    show_scored(scored, trained, console, title=title)
    counts = np.bincount(dataset.wafers.labels[dataset.splits.train], minlength=len(trained.classes))
    natural = counts / counts.sum()
    if np.abs(natural - trained.shares).max() > _OTHER_SHARES:
        told = tell_other_shares(scored, assumed=trained.shares, wanted=natural, whose="the training part")
        say(console, told)
    say(console, _about_looks(looks))
    files = [*pictures, ("predictions", final / NAME), ("ledger", final / "test.json")]
    for what, path in files:
        say(console, f"{what:<18}{path}")
    say(console, f"{'next':<18}python -m search.export {request.study.in_commands}")
    return DONE


def _add_look(ledger: Path, look: dict[str, Any]) -> list[dict[str, Any]]:
    """Append a look; what earlier looks saw stays."""
    looks: list[dict[str, Any]] = read_json(ledger)["looks"] if ledger.exists() else []
    looks.append({"when": datetime.now(UTC).isoformat(timespec="seconds"), **look})
    write_json(ledger, {"format": 1, "looks": looks})
    return looks


def _about_looks(looks: list[dict[str, Any]]) -> str:
    if len(looks) == 1:
        return "This was the first look at the test part; it is in the ledger."
    earlier = "\n".join(
        f"  {look['when']}  model {look['model']}  macro-F1 {100 * look['test_macro_f1']:.2f}  "
        f"balanced {100 * look['test_balanced_macro_f1']:.2f}"
        for look in looks
    )
    return (
        f"This was look {len(looks)} at the test part. If earlier looks decided which model this is, it is no honest "
        f"test any more. All looks:\n{earlier}"
    )
