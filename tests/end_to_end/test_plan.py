"""What can be asked of a search without searching, as a user types it: --check and --plan."""

import pytest

pytestmark = pytest.mark.slow
GOOD = """
name: small
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 600}
space:
  epochs: [2, 6]
  sampling: {choose: {imbalanced: {}, balanced: {}}}
  model: {choose: {wafer_cnn: {width: [4, 6], batch_size: [32, 64]}}}
forbid: [{if: "epochs == 6 and batch_size == 32", why: "takes too long"}]
search: {trials: 5, time: 1h, stop: {asha: {first_rung: 1 epoch, factor: 2}}}
"""


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def planned(tmp_path_factory, run):
    """A folder in which a search was planned, and what was printed."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "good.yaml").write_text(GOOD, "utf-8")
    return folder, run("search.run", "--space", "good.yaml", "--plan", "--no-dashboard", cwd=folder)


def test_a_plan_says_size_rungs_time_memory_and_disk(planned):
    _, plan = planned

    assert plan.returncode == 0, plan.stderr
    said = plan.stdout.splitlines()
    starts = ("size:", "schedule", "epochs:", "probe:", "time:", "memory:", "disk:", "start it:")
    found = [next(i for i, line in enumerate(said) if line.startswith(start + " ")) for start in starts]
    assert found == sorted(found)
    assert "SYNTHETIC" in plan.stdout
    assert any(line.split() == ["model.wafer_cnn.batch_size", "32,", "64", "2"] for line in said)
    assert "size: 16 configurations; 4 are forbidden (25 %), 12 are left" in said
    assert "  25 % by epochs == 6 and batch_size == 32 (takes too long)" in said
    assert any(line.startswith("6 epochs") and "to epoch 4" in line for line in said)
    assert "  they fit into search.time (1:00:00)" in said


def test_a_plan_ends_with_the_command_that_starts_it(planned):
    _, plan = planned

    assert plan.stdout.splitlines()[-1] == "start it: python -m search.run --space good.yaml --no-dashboard"


def test_a_plan_leaves_nothing_but_encoded_maps(planned):
    folder, _ = planned
    made = files_in(folder) - {"good.yaml"}

    assert [path.name for path in (folder / "results").iterdir()] == [".cache"]
    assert all(path.startswith("results/.cache/maps-") for path in made)


def test_a_plan_that_is_no_terminal_has_no_control_codes(planned):
    _, plan = planned

    assert "\x1b" not in plan.stdout + plan.stderr
    assert "\r" not in plan.stdout + plan.stderr


def test_a_plan_warns_where_time_is_short_and_keeps_the_arguments(tmp_path, run):
    (tmp_path / "good.yaml").write_text(GOOD, "utf-8")
    arguments = ["--space", "good.yaml", "--plan", "--trials", 400, "--time", "0.1s", "--study", "mine"]

    plan = run("search.run", *arguments, cwd=tmp_path)

    assert plan.returncode == 0, plan.stderr
    assert "fewer than 400 trials: the search ends when all have been tried" in plan.stdout
    assert "of 12 trials fit into search.time (0 s)" in plan.stdout
    assert "--space good.yaml --trials 400 --time 0.1s --study mine" in plan.stdout.splitlines()[-1]


def test_a_good_space_is_checked_in_one_line_and_nothing_is_left_behind(tmp_path, call):
    (tmp_path / "good.yaml").write_text(GOOD, "utf-8")

    checked = call("search.run", "--space", "good.yaml", "--check", cwd=tmp_path)

    assert checked.returncode == 0, checked.stderr
    [line] = checked.stdout.splitlines()
    assert line.startswith("good.yaml: good; 4 parameters, 5 trials in 1:00:00, maximising ")
    assert line.endswith("small-synthetic will be new")
    assert files_in(tmp_path) == {"good.yaml"}


BAD = {
    "two mistakes": (["--space", "two.yaml", "--check"], "2 problems"),
    "a mistake in a plan": (["--space", "two.yaml", "--plan"], "2 problems"),
    "no such wafers": (["--space", "good.yaml", "--check", "--data", "nowhere.npz"], "no such file"),
    "an unknown class": (["--space", "class.yaml", "--check"], "did you mean 'Scratch'"),
    "a file for a folder": (["--space", "good.yaml", "--check", "--results", "two.yaml/below"], "cannot be written"),
    "no study to learn from": (["--space", "good.yaml", "--check", "--warm-start", "nowhere"], "no study there"),
    "both": (["--space", "good.yaml", "--check", "--plan"], "not allowed with argument"),
    "too small a machine": (["--space", "large.yaml", "--plan"], "a trial of wafer_cnn asks for 1000 CPUs"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_and_nothing_is_left_behind(tmp_path, call, case):
    arguments, message = BAD[case]
    (tmp_path / "good.yaml").write_text(GOOD, "utf-8")
    (tmp_path / "two.yaml").write_text("space: {epochs: 0, modle: x}\n", "utf-8")
    (tmp_path / "class.yaml").write_text(f"{GOOD}\nobjective: {{weights: {{Scrath: 1}}}}\n", "utf-8")
    (tmp_path / "large.yaml").write_text(f"{GOOD}\nresources: {{cpus: 1000}}\n", "utf-8")
    before = files_in(tmp_path)

    refused = call("search.run", *arguments, cwd=tmp_path)

    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert message in refused.stderr
    assert files_in(tmp_path) == before
    assert not (tmp_path / "results").exists()
