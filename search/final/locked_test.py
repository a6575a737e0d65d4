"""The locked test: opened by this room alone, and every look is written down."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from data_pipeline.batches import plain_batches
from data_pipeline.dataset import Dataset
from search.errors import DONE, ConfigError
from search.final.model_file import load_model
from search.study.best import load_best
from search.study.data import check_same_data, describe, open_data
from search.study.marks import marks_of
from search.study.predictions import NAME, Origin, Predictions, write_predictions
from search.study.provenance import describe_data
from search.study.records import StudyFolder, lock_folder, read_json, write_atomically, write_json
from search.study.rows import judgement_to_row
from search.trial.evaluation import choose_dtype, judge_logits, predict_batches
from search.views.figures import draw_confusion
from search.views.report import write_report
from search.views.terminal import say
from search.views.words import score_table


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """What the user asks for.

    Attributes:
        study: The study whose final model is tested.
        results: Folder of all studies; encoded maps are kept there.
        data: Wafers to use instead of those that best.yaml names; they must be the same ones.
    """

    study: StudyFolder
    results: Path
    data: str | None = None


def score_locked_test(request: EvaluateRequest, console: Console) -> int:
    """Score the final model on the test part and add the look to the ledger, `final/test.json`.

    What it predicted is kept in `final/test_predictions.parquet`, so that nothing else has to look.

    Raises:
        ConfigError: If there is no final model yet, or it does not belong to this study's data.
        DataError: If the wafers cannot be used.
    """
    final = request.study.final
    best, trained = load_best(request.study.best), load_model(final / "model.pt")
    # The model's picture: best.yaml may have been edited since.
    config = best.data.model_copy(update={"wafers": request.data or best.data.wafers, **asdict(trained.picture)})
    dataset = open_data(config, results=request.results)
    check_same_data(dataset, fingerprint=best.data_fingerprint, split_fingerprint=best.split_fingerprint)
    if (trained.data_fingerprint, trained.split_fingerprint) != (best.data_fingerprint, best.split_fingerprint):
        raise ConfigError(f"{final / 'model.pt'}: was trained on other wafers than this study's; retrain it")
    say(console, describe(dataset))
    marks = marks_of(describe_data(dataset))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = plain_batches(dataset.encode("test").to(device))
    dtype = choose_dtype(trained.precision, device)
    logits_NK, labels = predict_batches(trained.model.to(device), batches, dtype=dtype)
    judgement = judge_logits(logits_NK, labels, n_classes=len(trained.classes))
    with lock_folder(final):
        model = _fingerprint(final / "model.pt")
        look = judgement_to_row(judgement, trained.classes, split="test") | {"model": model, "marks": list(marks)}
        looks = _add_look(final / "test.json", look)
        origin = Origin(
            study=request.study.name,
            model=model,
            data_fingerprint=best.data_fingerprint,
            split_fingerprint=best.split_fingerprint,
            protocol=dataset.splits.protocol,
            synthetic=dataset.wafers.is_synthetic,
            leaky=dataset.splits.leaky,
            when=looks[-1]["when"],
            on=trained.on,
            n_parameters=trained.n_parameters,
            config=trained.config,
        )
        write_predictions(_to_predictions(logits_NK, dataset, origin), final / NAME)
        title = f"{request.study.name}: locked test ({', '.join([*marks, '%'])})"
        write_atomically(final / "test_confusion.png", draw_confusion(judgement, trained.classes, title=title))
        if request.study.provenance.exists():
            write_report(request.study)
    console.print(score_table(judgement.scores, trained.classes, title=title))
    say(console, _about_looks(looks))
    for what, name in (("confusion matrix", "test_confusion.png"), ("predictions", NAME), ("ledger", "test.json")):
        say(console, f"{what:<18}{final / name}")
    return DONE


def _to_predictions(logits_NK: Tensor, dataset: Dataset, origin: Origin) -> Predictions:
    wafers, test = dataset.wafers, dataset.splits.test
    return Predictions(
        origin=origin,
        classes=wafers.classes,
        wafers=test,
        lots=[wafers.lot_names[lot] for lot in wafers.lots[test]],
        labels=wafers.labels[test],
        probabilities=logits_NK.softmax(1).cpu().numpy(),
        predicted=logits_NK.argmax(1).cpu().numpy(),
    )


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


def _fingerprint(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:12]
