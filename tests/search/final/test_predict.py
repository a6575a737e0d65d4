import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import search.predict
from data_pipeline.augment import to_channels
from data_pipeline.encode import encode_maps
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import write_parquet
from search.final.model_file import save_model
from search.final.saliency import attribute
from search.trial.calibration import correct_shares
from search.trial.decision import DecisionRule

RULE = DecisionRule(temperature=1.5, sure_from=0.13, defect_from=0.9, fitted_on="some", n_fitted=500)


@pytest.fixture
def wafers():
    return make_wafers(300, seed=3)


@pytest.fixture
def trained(make_trained, wafers):
    return make_trained(shift=torch.linspace(-1, 1, 9), rule=RULE, seen=np.sort(wafers.content[:10]))


@pytest.fixture
def folder(tmp_path, wafers, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(trained, tmp_path / "model.pt")
    write_parquet(wafers, tmp_path / "wafers.parquet")
    return tmp_path


def run(*arguments):
    return search.predict.main(["model.pt", "wafers.parquet", *map(str, arguments)])


def probabilities_of(trained, wafers):
    maps = torch.from_numpy(encode_maps(wafers, np.arange(len(wafers)), picture=trained.picture))
    with torch.inference_mode():
        return trained.rule.probabilities(trained.model(to_channels(maps))).numpy()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_wafer_gets_a_row_with_what_the_model_says(folder, trained, wafers, suffix):
    assert run("--out", f"calls{suffix}") == 0

    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    table, expected = read(folder / f"calls{suffix}"), probabilities_of(trained, wafers)
    order = expected.argsort(1)
    none = wafers.classes.index("none")
    assert table["wafer"].tolist() == list(range(300))
    assert table["class"].tolist() == [wafers.classes[k] for k in order[:, -1]]
    assert table["second"].tolist() == [wafers.classes[k] for k in order[:, -2]]
    assert table["probability"].to_numpy() == pytest.approx(expected.max(1), abs=1e-5)
    assert table["label"].tolist() == [wafers.classes[k] for k in wafers.labels]
    assert table["unsure"].astype(bool).tolist() == (expected.max(1) < 0.13).tolist()
    assert table["defective"].astype(bool).tolist() == (1 - expected[:, none] >= 0.9).tolist()
    assert table["seen"].sum() == np.isin(wafers.content, wafers.content[:10]).sum()
    assert table["problem"].isna().all()


def test_the_lots_are_summed_up(folder, wafers, capsys):
    assert run("--out", "calls.csv") == 0

    table, lots = pd.read_csv("calls.csv"), pd.read_csv("calls.lots.csv")
    assert lots["wafers"].sum() == 300
    assert lots["defect_share"].is_monotonic_decreasing
    row = lots.iloc[0]
    mine = table[table["lot"].astype(str) == str(row["lot"])]
    assert row["defect_share"] == pytest.approx((mine["class"] != "none").mean(), abs=1e-5)
    said = capsys.readouterr().out
    assert "WARNING: SYNTHETIC" in said
    assert "300 wafers, 300 called" in said
    assert "were in the model's training or validation" in said


def test_wafers_with_a_problem_are_reported_and_the_rest_goes_through(folder, wafers, capsys):
    table = pq.read_table("wafers.parquet")
    maps = table["map"].to_pylist()
    maps[7], maps[8] = b"\x01\x02", b"\x00" * len(maps[8])
    pq.write_table(table.set_column(table.schema.get_field_index("map"), "map", pa.array(maps)), "wafers.parquet")

    assert run("--out", "calls.csv") == 0

    found = pd.read_csv("calls.csv")
    assert found["wafer"].tolist() == list(range(300))
    assert found["problem"].notna().sum() == 2
    assert found.loc[8, "problem"] == "no die"
    assert found.loc[[7, 8], "class"].isna().all()
    said = capsys.readouterr().out
    assert "298 called" in said
    assert "1 not called: no die (wafer 8)" in said


def test_problems_are_counted_by_kind_and_listed_by_wafer(folder, capsys):
    table = pq.read_table("wafers.parquet")
    maps = table["map"].to_pylist()
    for row in range(10, 17):
        maps[row] = b"\x01" * row
    pq.write_table(table.set_column(table.schema.get_field_index("map"), "map", pa.array(maps)), "wafers.parquet")

    assert run("--out", "calls.csv") == 0

    assert "7 not called: map: must have height x width cells (wafer 10, 11, 12, 13, 14, …)" in capsys.readouterr().out
    assert "got 12 for" in pd.read_csv("calls.csv").loc[12, "problem"]


def test_wafers_of_a_folder_are_called_by_their_names(folder, wafers, capsys):
    (folder / "maps" / "unlabelled").mkdir(parents=True)
    for i in range(4):
        np.save(folder / "maps" / "unlabelled" / f"lot1_{i}.npy", wafers.map(i))
    (folder / "maps" / "unlabelled" / "lot1_2.npy").write_bytes(b"damaged")

    assert search.predict.main(["model.pt", "maps"]) == 0

    table = pd.read_csv("maps.predictions.csv")
    assert table["name"].tolist() == [f"unlabelled/lot1_{i}.npy" for i in range(4)]
    assert table["class"].isna().tolist() == [False, False, True, False]
    assert "wafer 2 unlabelled/lot1_2.npy)" in capsys.readouterr().out


def test_other_class_shares_change_what_is_called(folder, trained, wafers):
    shares = np.full(9, 0.01)
    shares[2] = 0.92
    given = [f"{name}={share}" for name, share in zip(wafers.classes, shares, strict=True)]

    assert run("--out", "calls.parquet", "--shares", *given) == 0

    expected = correct_shares(probabilities_of(trained, wafers).astype(float), assumed=np.full(9, 1 / 9), wanted=shares)
    table = pd.read_parquet("calls.parquet")
    assert table["class"].tolist() == [wafers.classes[k] for k in expected.argmax(1)]
    assert (table["class"] == wafers.classes[2]).mean() > 0.5


def test_thresholds_that_were_fitted_for_other_shares_are_left_out(folder, make_trained, wafers):
    rule = replace(RULE, shifts=(9.0, *[0.0] * 8))
    save_model(make_trained(shift=torch.linspace(-1, 1, 9), rule=rule), folder / "model.pt")
    given = [f"{name}=1" for name in wafers.classes]

    assert run("--out", "own.csv") == run("--out", "given.csv", "--shares", *given) == 0

    assert set(pd.read_csv("own.csv")["class"]) == {wafers.classes[0]}
    assert wafers.classes[0] not in set(pd.read_csv("given.csv")["class"])


def test_what_a_killed_process_of_the_same_number_has_left_is_not_appended_to(folder):
    (folder / f".calls.csv.{os.getpid()}.partial").write_text("wafer,class\n0,Center\n", "utf-8")

    assert run("--out", "calls.csv") == 0

    assert pd.read_csv("calls.csv")["wafer"].tolist() == list(range(300))


def test_a_disk_that_does_not_take_the_end_of_a_file_leaves_nothing(folder, monkeypatch, capsys):
    really_close = pq.ParquetWriter.close

    def close(self):
        really_close(self)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(pq.ParquetWriter, "close", close)
        code = run("--out", "calls.parquet")

    assert code == 2
    assert "calls.parquet: cannot be written (No space left on device)" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["model.pt", "wafers.parquet"]


@pytest.mark.parametrize(
    ("name", "out"), [("w.2026-05.parquet", "w.2026-05.predictions.csv"), ("w.parquet", "w.predictions.csv")]
)
def test_predictions_are_named_after_the_whole_name_of_the_file(folder, wafers, name, out):
    write_parquet(wafers, folder / name)

    assert search.predict.main(["model.pt", name]) == 0

    assert (folder / out).is_file()


def test_all_cores_are_used_where_the_system_does_not_say_which_are_ours(folder, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)

    assert run("--out", "calls.csv") == 0

    assert asked == [os.cpu_count()]


def test_labels_are_not_needed(folder, wafers):
    write_parquet(replace(wafers, labels=np.full(300, -1)), folder / "wafers.parquet")

    assert run() == 0

    assert pd.read_csv("wafers.predictions.csv")["label"].isna().all()


def test_a_model_without_a_rule_leaves_empty_what_it_cannot_know(folder, trained):
    save_model(replace(trained, rule=DecisionRule()), folder / "model.pt")

    assert run("--out", "calls.parquet") == 0

    table = pd.read_parquet("calls.parquet")
    assert table["unsure"].isna().all() and table["defective"].isna().all()
    assert table["class"].notna().all()


@pytest.mark.parametrize("defect_from", [0.9, 0.895, None])
def test_unsure_and_defective_wafers_are_explained_first_then_the_least_sure(folder, trained, wafers, defect_from):
    save_model(replace(trained, rule=replace(RULE, defect_from=defect_from)), folder / "model.pt")

    assert run("--out", "calls.parquet", "--explain", "why", "--explain-max", 3) == 0

    table = pd.read_parquet("calls.parquet")
    marks = table["unsure"].fillna(False).astype(int) + table["defective"].fillna(False).astype(int)
    first = table.assign(marks=-marks).sort_values(["marks", "probability", "wafer"]).head(3)["wafer"]
    rows = sorted(int(path.name.split("-")[1]) for path in (folder / "why").glob("*.png"))
    assert rows == sorted(first)


def test_what_speaks_for_a_call_adds_up_to_the_call(trained, wafers):
    maps = torch.from_numpy(encode_maps(wafers, np.arange(5), picture=trained.picture))
    for picture in to_channels(maps):
        found = attribute(trained.model, picture, 3, steps=300)

        clean = torch.stack([picture.sum(0), torch.zeros(16, 16)])
        with torch.no_grad():
            with_fails, without = trained.model(torch.stack([picture, clean])).log_softmax(1)[:, 3]
        assert found.sum().item() == pytest.approx((with_fails - without).item(), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "calls.txt"], "must end in .csv or .parquet"),
        (["--out", "nowhere/calls.csv"], "is no folder"),
        (["--out", "wafers.parquet"], "would write over wafers.parquet, which is read"),
        (["--explain", "model.pt"], "--explain model.pt: is no folder"),
        (["--shares", "Centre=1"], "no such class; did you mean 'Center'"),
        (["--shares", "Center=x"], "must be CLASS=NUMBER"),
        (["--shares", "Center=0"], "must be above 0"),
        (["--shares", "Center=1"], "must name every class of the model; missing: Donut"),
        (["--threads", "0"], "--threads: must be at least 1"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(folder, capsys, arguments, message):
    before = sorted(folder.iterdir())

    assert run(*arguments) == 2

    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_missing_model_or_source_is_named(folder, capsys):
    assert search.predict.main(["other.pt", "wafers.parquet"]) == 2
    assert "no study there" in capsys.readouterr().err
    assert search.predict.main(["model.pt", "missing.parquet", "--out", "x.csv"]) == 2
    assert "missing.parquet" in capsys.readouterr().err
    assert not (folder / "x.csv").exists()


def test_a_source_of_which_nothing_can_be_called_is_refused(folder, wafers, capsys):
    cells = np.zeros_like(wafers.cells)
    write_parquet(replace(wafers, cells=cells), folder / "wafers.parquet")

    assert run("--out", "calls.csv") == 2

    assert "no wafer can be called" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["model.pt", "wafers.parquet"]
