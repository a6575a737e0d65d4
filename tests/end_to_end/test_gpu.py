"""Every command on a GPU that is made up: no tensor is forgotten on the other device, the numbers are the CPU's."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
MADE_UP = Path(__file__).resolve().parent.parent / "made_up_gpu"
SPACE = """
name: tiny
data: {wafers: synthetic, synthetic_wafers: 800, image_size: 16, epoch_samples: 1000}
space:
  epochs: [2, 4]
  sampling: {choose: {imbalanced: {}, balanced: {}}}
  model: {choose: {wafer_cnn: {width: [4, 6], batch_size: [64]}, wafer_resnet: {width: [4], batch_size: [64]}}}
search: {trials: 4, stop: {asha: {first_rung: 1 epoch, factor: 2}}}
confirm: {top: 2, seeds: 2, folds: 2}
"""
MIXED = """
import torch
from search.study.data import open_data
for mix in (
    lambda there, here: there + here,
    lambda there, here: torch.cat([there, here]),
    lambda there, here: here[there.long()],
    lambda there, here: there.numpy(),
    lambda there, here: torch.cuda.set_per_process_memory_fraction(0.5, torch.device("cuda")),
):
    try:
        mix(torch.ones(3).to("cuda"), torch.ones(3))
    except (RuntimeError, TypeError, ValueError) as error:
        print(type(error).__name__)
"""
TRAINED = """
import io
from pathlib import Path
import torch
from torchvision.models import efficientnet_b0
from search.space.config import DataConfig
from search.study.data import open_data, trial_data
from search.trial.params import from_flat
from search.trial.training import train_and_evaluate

weights = Path("weights.pt")
torch.manual_seed(0)
torch.save(efficientnet_b0(weights=None).state_dict(), weights)
config = DataConfig(wafers="synthetic", synthetic_wafers=600, image_size=16, epoch_samples=96)
dataset = open_data(config, results=Path("results"))
small = {"epochs": 3, "model.wafer_cnn.width": 4, "precision": "fp32", "batch_size": 32}
frozen = {"model": "efficientnet_b0", "freeze": "backbone", "input_size": 32, "weights": str(weights)}
frozen = {key if key == "model" else f"model.efficientnet_b0.{key}": value for key, value in frozen.items()}
frozen |= {"epochs": 2, "precision": "fp32", "batch_size": 32}

def numbers(params, device):
    data, seen, state = trial_data(dataset, config).to(torch.device(device)), [], None
    for start in (None, "again"):
        training = train_and_evaluate(params, data, generator=torch.Generator().manual_seed(1), state=start and state)
        for evaluation in training:
            report = evaluation.report
            seen.append((start, report.epoch, report.train_loss, report.train_accuracy, report.val))
            if report.epoch == 1:
                file = io.BytesIO()
                torch.save(evaluation.state, file)
                state = torch.load(io.BytesIO(file.getvalue()), map_location="cpu", weights_only=True)
    return seen

for flat in (
    {**small, "mixing": "cutmix", "loss": "logit_adjusted", "ema": 0.5, "decide_for": "natural", "subset": 0.5},
    {**small, "mixing": "mixup", "loss": "class_balanced", "augment": "symmetries_noise", "test_time": "symmetries"},
    {**small, "loss": "focal", "augment": "deck", "optimizer": "sgd", "grad_clip": 1.0, "decide_for": "uniform"},
    {**small, "augment": "symmetries_affine", "model.wafer_cnn.pooling": "gem", "model.wafer_cnn.norm": "group"},
    frozen,
):
    params = from_flat(flat, where="", image_size=16)
    here, there = numbers(params, "cpu"), numbers(params, "cuda")
    print(here == there, len(here))
"""
COMMANDS = """
import importlib
for line in (
    "search.retrain tiny-synthetic --seeds 2 --epoch best --test-time symmetries",
    "search.evaluate tiny-synthetic",
    "search.retrain tiny-synthetic --teacher results/tiny-synthetic/final/model.pt --on train+val --out student",
    "data_pipeline.synthesize --wafers 200 --seed 5 --out new.parquet",
    "search.evaluate tiny-synthetic --data new.parquet",
    "search.predict tiny-synthetic new.parquet --explain pictures",
    "search.report tiny-synthetic",
):
    module, *arguments = line.split()
    assert importlib.import_module(module).main(arguments) == 0, line
"""


@pytest.fixture
def environment():
    python_path = os.pathsep.join(filter(None, [str(MADE_UP), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1", "RAY_AUTH_TOKEN": "0" * 64}


@pytest.fixture
def python(environment, tmp_path):
    """Run Python where there is a GPU, as far as torch knows; what it says must not be about an error."""

    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def head(environment, tmp_path):
    """The address of a Ray cluster with one GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    ray += ["--num-gpus=1", "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    ray += [f"--temp-dir=/tmp/gpu-{os.getpid()}", "--object-store-memory=200000000"]
    with (tmp_path / "ray.log").open("w") as log:
        process = subprocess.Popen(
            ray, env=environment | {"RAY_AUTH_MODE": "token"}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + 240
        while "Ray runtime started" not in (tmp_path / "ray.log").read_text():
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "ray.log").read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def test_the_made_up_gpu_refuses_what_a_real_one_refuses(python):
    assert python("-c", MIXED).split() == ["RuntimeError", "RuntimeError", "RuntimeError", "TypeError", "ValueError"]


def test_a_training_there_is_the_one_on_the_cpu_to_the_last_bit(python):
    assert python("-c", TRAINED).splitlines() == ["True 5"] * 4 + ["True 3"]


def test_every_command_works_there(python, head, tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPACE, "utf-8")

    said = python("-m", "search.run", "--space", "tiny.yaml", "--address", head)
    assert "1 side by side, 1 CPU and 1 GPU each" in said
    assert "2 side by side, 1 CPU and 0.5 GPU each" in said
    assert "confirmed: " in said

    said = python("-c", COMMANDS)
    assert "made-up GPU" in said
    assert len(list((tmp_path / "pictures").iterdir())) > 0
