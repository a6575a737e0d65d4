import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import search.export
from data_pipeline.augment import to_channels
from data_pipeline.encode import Picture, encode_maps
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import write_parquet
from data_pipeline.wafer_set import make_wafer_set
from search.final import exporting
from search.final.deployed import Deployed, Encoder
from search.final.model_card import write_model_card
from search.final.model_file import load_model, save_model
from search.study.provenance import describe_device
from search.study.records import StudyFolder, write_json
from search.trial.decision import DecisionRule

SHAPES = ((26, 30), (45, 48), (64, 71), (22, 50), (100, 41), (10, 10), (300, 202))


@pytest.fixture
def make_model(make_trained):
    """Make a final model whose logits are shifted, with a rule by which they are read."""

    def make(*, aspect="stretched", encoding="coverage", **options):
        rule = DecisionRule(temperature=0.5, sure_from=0.9, defect_from=0.4, fitted_on="some", n_fitted=500)
        picture = Picture(image_size=16, aspect=aspect, encoding=encoding)
        return make_trained(shift=torch.linspace(-1, 1, 9), picture=picture, rule=rule, **options)

    return make


@pytest.fixture
def files_say(monkeypatch):
    """Put files that say what a function says in place of the exported ones, which take half a minute to make."""

    def put(predict):
        graphs = lambda deployed, files: [path.write_bytes(b"") for path in files.values()]  # noqa: E731
        monkeypatch.setattr(exporting, "_write_graphs", graphs)
        monkeypatch.setattr(exporting, "_load", lambda name, path: predict)

    return put


def draw_maps(shape, *, n=3):
    return np.random.default_rng(sum(shape)).integers(0, 3, (n, *shape), dtype=np.uint8)


@pytest.mark.parametrize("aspect", ["stretched", "kept"])
@pytest.mark.parametrize("encoding", ["coverage", "states"])
@pytest.mark.parametrize("size", [16, 40])
def test_the_graph_sees_exactly_what_the_encoder_makes(aspect, encoding, size):
    picture = Picture(image_size=size, aspect=aspect, encoding=encoding)
    for shape in SHAPES:
        maps = draw_maps(shape)
        wafers = make_wafer_set(maps, ["none"] * 3, ["a"] * 3, source="drawn")
        expected = to_channels(torch.from_numpy(encode_maps(wafers, np.arange(3), picture=picture)))

        assert torch.equal(Encoder(picture)(torch.from_numpy(maps)), expected)


@pytest.fixture
def folder(tmp_path, monkeypatch, make_model):
    monkeypatch.chdir(tmp_path)
    save_model(make_model(members=2, test_time="symmetries"), tmp_path / "model.pt")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"members": 2, "test_time": "symmetries"},
        {"aspect": "kept", "encoding": "states"},
        {"aspect": "kept", "model": "wafer_resnet"},
    ],
)
def test_exported_files_say_what_the_model_says_for_maps_of_any_shape(tmp_path, make_model, options):
    trained = make_model(**options)
    save_model(trained, tmp_path / "model.pt")

    assert search.export.main([str(tmp_path / "model.pt"), "--check", "300"]) == 0

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    module = torch.export.load(tmp_path / "model.pt2").module()
    for shape in SHAPES:
        maps = draw_maps(shape)
        wafers = make_wafer_set(maps, ["none"] * 3, ["a"] * 3, source="drawn")
        pictures = to_channels(torch.from_numpy(encode_maps(wafers, np.arange(3), picture=trained.picture)))
        with torch.inference_mode():
            expected = trained.rule.probabilities(trained.model(pictures)).numpy()
        assert session.run(None, {"maps": maps})[0] == pytest.approx(expected, abs=1e-5)
        assert module(torch.from_numpy(maps)).detach().numpy() == pytest.approx(expected, abs=1e-6)
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    about = json.loads((tmp_path / "model.json").read_text("utf-8"))
    assert about["classes"] == list(trained.classes)
    assert max(about["parity"]["largest_difference"].values()) < 1e-4
    card = (tmp_path / "model_card.md").read_text("utf-8")
    assert "SYNTHETIC" in card and "was not opened" in card


def test_a_graph_that_says_something_else_is_not_kept(folder, files_say, capsys):
    files_say(lambda maps: np.full((len(maps), 9), 1 / 9, np.float32))

    assert search.export.main(["model.pt", "--check", "50"]) == 2

    assert "differs by" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["model.pt"]


def test_members_and_the_title_of_the_speeds_read_well(folder, files_say, capsys):
    deployed = Deployed(load_model(folder / "model.pt")).eval()

    def predict(maps):
        with torch.inference_mode():
            return deployed(torch.from_numpy(maps)).numpy()

    files_say(predict)

    assert search.export.main(["model.pt", "--check", "20"]) == 0

    said = capsys.readouterr().out
    assert "parameters, 2 members\n" in said
    title = f"ms per call, medians of 7, {describe_device(torch.device('cpu'))}"
    assert title in [line.rstrip() for line in said.splitlines()]


def test_what_is_not_installed_is_named_with_the_command(folder, monkeypatch, capsys):
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)

    assert search.export.main(["model.pt"]) == 2

    assert "needs onnxscript: pip install 'wafer-search[export]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["missing.pt"], "no study there"), (["model.pt", "--check", "0"], "--check: must be at least 1"),
     (["model.pt", "--data", "missing.parquet"], "missing.parquet: no such file")],
)  # fmt: skip
def test_bad_input_is_refused(folder, files_say, capsys, arguments, message):
    files_say(None)

    assert search.export.main(arguments) == 2

    assert message in capsys.readouterr().err


def test_the_card_shouts_what_spoils_the_numbers(make_model):
    trained = replace(
        make_model(), leaky="LEAKY (deck): the same wafers stand in training and test", is_synthetic=False
    )
    sidecar = {"parity": {"n": 5, "wafers": "wafers", "largest_difference": {"model.onnx": 1e-7}}}

    card = write_model_card(trained, None, sidecar, {"model.onnx": {"1": 0.5}}, model="abc")

    assert "**LEAKY (deck)" in card
    assert "SYNTHETIC" not in card
    assert "Fitted on 500 some: temperature 0.500" in card
    assert "WM-811K" in card


def test_the_card_has_no_scores_of_another_model(make_model, tmp_path):
    study, trained = StudyFolder(tmp_path), make_model()
    sidecar = {"parity": {"n": 5, "wafers": "wafers", "largest_difference": {"model.onnx": 1e-7}}}
    per_class = dict.fromkeys(trained.classes, 0.5)

    def look(model, score):
        numbers = {f"test_{name}": score for name in ("balanced_macro_f1", "macro_f1", "worst_class_f1", "accuracy")}
        columns = {f"test_{name}": per_class for name in ("precision", "recall", "f1")}
        support = dict.fromkeys(trained.classes, 3)
        return {"model": model, "test_confusion": [[27]], "test_support": support, **numbers, **columns}

    def card(model):
        return write_model_card(trained, study, sidecar, {"model.onnx": {"1": 0.5}}, model=model)

    write_json(study.final / "test.json", {"format": 1, "looks": [look("old", 0.5), look("new", 0.75)]})

    assert "not opened for this model; for others of its study, 2 times" in card("newest")
    assert "50.00 %" not in card("newest")
    assert "accuracy: 75.00 %" in card("new")
    assert "this is the first look at this model" in card("new")
    assert "this is the first look, the only unspoiled one" in card("old")


def test_wafers_of_a_file_are_checked_on(folder, files_say):
    write_parquet(make_wafers(300, seed=9), folder / "wafers.parquet")
    seen = []
    files_say(lambda maps: seen.append(len(maps)) or np.zeros((len(maps), 9), np.float32))

    assert search.export.main(["model.pt", "--data", "wafers.parquet", "--check", "40"]) == 2
    assert sum(seen) == 80  # two files, forty wafers each
