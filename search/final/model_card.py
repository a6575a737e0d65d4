"""The card that goes with a model: what it is, what it was judged by, what it must not be used for.

Source:
    Mitchell et al. 2019, Model Cards for Model Reporting, arXiv:1810.03993.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from search.final.model_file import TrainedModel
from search.study.confirmed import read_confirmed, sentences
from search.study.records import StudyFolder, read_json
from search.views.words import count

_CITATIONS = (
    "WM-811K: M.-J. Wu, J.-S. R. Jang and J.-L. Chen, Wafer Map Failure Pattern Recognition and Similarity Ranking for "
    "Large-Scale Data Sets, IEEE Transactions on Semiconductor Manufacturing 28 (1), 2015; and the MIR lab's corpus "
    "page, where its licence stands.",
)


def write_model_card(
    trained: TrainedModel,
    study: StudyFolder | None,
    sidecar: Mapping[str, Any],
    speeds: Mapping[str, Mapping[str, float]],
    *,
    model: str,
) -> str:
    """Write the card as Markdown, from the records alone; what was not recorded is said to be unknown.

    Args:
        trained: The model.
        study: Where it comes from; None for a model file alone.
        sidecar: What `model.json` says.
        speeds: Milliseconds per call, by file and batch.
        model: Fingerprint of the model's file, by which the ledger of the locked test knows it.
    """
    chapters = (
        _headline(trained, study),
        _use(trained),
        _data(trained, study),
        _training(trained, study),
        _scores(trained, study, model),
        _limits(trained),
        _files(sidecar, speeds),
        _licence(trained),
    )
    return "\n".join(line for chapter in chapters for line in [*chapter, ""])


def _headline(trained: TrainedModel, study: StudyFolder | None) -> Iterator[str]:
    name = study.name if study else "a model file"
    yield f"# {trained.config['model']} for wafer maps, from {name}\n"
    if trained.is_synthetic:
        yield "**SYNTHETIC: trained on made-up wafers. Nothing here says anything about real ones.**\n"
    if trained.leaky:
        yield f"**{trained.leaky}. Its test scores do not say how well new wafers are recognised.**\n"
    members = f"the mean of {len(trained.seeds)} trainings" if len(trained.seeds) > 1 else "one training"
    views = "eight views of each wafer" if trained.config["test_time"] == "symmetries" else "one view of each wafer"
    yield (
        f"Calls one of {len(trained.classes)} classes ({', '.join(trained.classes)}) for a wafer map: {members}, "
        f"{trained.n_parameters:,} parameters, {views}."
    )


def _use(trained: TrainedModel) -> Iterator[str]:
    rule = trained.rule
    yield "## Use\n"
    yield "```python"
    yield "import json, numpy, onnxruntime"
    yield 'session, about = onnxruntime.InferenceSession("model.onnx"), json.load(open("model.json"))'
    yield "maps = numpy.zeros((1, 45, 48), dtype=numpy.uint8)  # 0 no die, 1 passing, 2 failing; any height and width"
    yield 'probabilities = session.run(None, {"maps": maps})[0]'
    yield 'print(about["classes"][int(probabilities[0].argmax())])'
    yield "```\n"
    if not rule.n_fitted:
        why = rule.fitted_on or "no wafers were left to fit that on"
        yield f"Its probabilities are not calibrated: {why}."
        return
    yield f"Fitted on {rule.n_fitted:,} {rule.fitted_on}: temperature {rule.temperature:.3f} (inside the graph)."
    if rule.sure_from is not None:
        yield f"Calls with a probability below {rule.sure_from:.3f} should be looked at by eye."
    if rule.defect_from is not None:
        yield f"A wafer counts as defective from 1 - P(none) = {rule.defect_from:.3f}."
    if rule.shifts:
        yield f"Add {[round(shift, 3) for shift in rule.shifts]} to the log probabilities before the largest is called."


def _data(trained: TrainedModel, study: StudyFolder | None) -> Iterator[str]:
    yield "## Data\n"
    if study is None or not study.provenance.exists():
        yield f"Unknown but for its fingerprint {trained.data_fingerprint} and its split {trained.split_fingerprint}."
        return
    data = read_json(study.provenance)["data"]
    parts = ", ".join(f"{part} {n:,}" for part, n in data["wafers"].items())
    yield f"{data['source']}, fingerprint {data['fingerprint']};"
    yield f"split {data['split_fingerprint']} by {data['protocol']}: {parts}."
    yield f"{'Counted' if data.get('leaky') else 'Proved'}: {data['leak_check']}."


def _training(trained: TrainedModel, study: StudyFolder | None) -> Iterator[str]:
    yield "## Training\n"
    seeds = ", ".join(map(str, trained.seeds))
    yield f"On {trained.on}, seed{'s' * (len(trained.seeds) > 1)} {seeds}. Every value:\n"
    for key, value in trained.config.items():
        yield f"- `{key}`: {value}"
    found = read_confirmed(study) if study else None
    if found:
        yield "\nConfirmed after the search:\n"
        yield from (f"- {sentence}" for sentence in sentences(found))


def _scores(trained: TrainedModel, study: StudyFolder | None, model: str) -> Iterator[str]:
    yield "## Scores\n"
    ledger = study.final / "test.json" if study else None
    looks = read_json(ledger)["looks"] if ledger and ledger.exists() else []
    if not looks:
        yield "The locked test was not opened: how good it is on unseen wafers is unknown."
        return
    first = next((look for look in looks if look["model"] == model), None)
    if first is None:
        yield f"The locked test was not opened for this model; for others of its study, {count(len(looks), 'time')}."
        return
    if len(looks) > 1:
        what = "the first look, the only unspoiled one" if first is looks[0] else "the first look at this model"
        yield f"The locked test was opened {len(looks)} times; this is {what}.\n"
    n = sum(map(sum, first["test_confusion"]))
    for name in ("balanced_macro_f1", "macro_f1", "worst_class_f1", "accuracy"):
        low, high = first.get("test_intervals", {}).get(name, (None, None))
        bounds = f" ({100 * low:.2f} to {100 * high:.2f}, 95 %)" if low is not None else ""
        yield f"- {name.replace('_', ' ')}: {100 * first[f'test_{name}']:.2f} %{bounds}, n = {n:,}"
    yield "\n| class | precision | recall | F1 | wafers |\n| --- | --- | --- | --- | --- |"
    for name in trained.classes:
        cells = [first[f"test_{column}"][name] for column in ("precision", "recall", "f1")]
        shown = " | ".join("-" if cell is None else f"{100 * cell:.2f}" for cell in cells)
        yield f"| {name} | {shown} | {first['test_support'][name]:,} |"


def _limits(trained: TrainedModel) -> Iterator[str]:
    shares = ", ".join(
        f"{name} {share:.1%}" for name, share in zip(trained.classes, trained.shares.tolist(), strict=True)
    )
    yield "## Limits\n"
    yield "- It knows one pattern per wafer; of several it calls one, and of a pattern it has never seen some other."
    yield "- Products, dies and testers other than those of its data may look different to it; score it on them first:"
    yield "  `python -m search.evaluate STUDY --data FILE`."
    yield f"- Its probabilities take these class shares for granted: {shares}. Where others hold, say so:"
    yield "  `python -m search.predict ... --shares`."
    yield "- Rare classes were judged by few wafers: mind the intervals."


def _files(sidecar: Mapping[str, Any], speeds: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    parity = sidecar["parity"]
    yield "## Files\n"
    for name, worst in parity["largest_difference"].items():
        yield f"- `{name}`: differs from PyTorch by at most {worst:.1e} on {parity['n']:,} {parity['wafers']}"
    for name, by_batch in speeds.items():
        yield f"- {name}: " + ", ".join(f"{ms:.2f} ms for {batch}" for batch, ms in by_batch.items())


def _licence(trained: TrainedModel) -> Iterator[str]:
    yield "## Licence\n"
    yield "Code: Apache-2.0. The weights carry what the licence of the training data asks for."
    if not trained.is_synthetic:
        yield "If that was WM-811K, cite:\n"
        yield from (f"- {citation}" for citation in _CITATIONS)
