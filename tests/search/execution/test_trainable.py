"""What a slot makes of a trial that does not fit into memory: an infeasible configuration, and nothing worse."""

import json
import subprocess
import sys

import pytest

# An actor without Ray, in a process whose address space ends 1.5 GiB above what it has.
SCRIPT = """
import json, resource, sys
from pathlib import Path
import numpy as np
import ray
import torch
from data_pipeline.batches import wrap_arrays
from search.execution.trainable import WaferTrial, share_arrays
from search.trial.data import TrialData

torch.set_num_threads(1)
dice = np.random.default_rng(0)
wafers = wrap_arrays(dice.integers(0, 3, (240, 32, 32), dtype=np.uint8), np.arange(240) % 3)
data = TrialData(train=wafers, val=wafers, n_classes=3, epoch_samples=2048)
arrays = share_arrays(data, classes=("a", "b", "c"), image_size=32)
ray.get, ray.get_gpu_ids = lambda arrays: arrays, list

def config(number, **flat):
    flat = {"epochs": 1, "precision": "fp32", "model": "wafer_cnn"} | flat
    return {
        "number": number, "params": json.dumps(flat, sort_keys=True), "epochs_done": 0,
        "batch_size": flat["batch_size"], "expected_memory": 5 * 2**30,
        "checkpoint": str(Path(sys.argv[1]) / f"{number}.pt"), "cpus": 1, "gpus": 0, "slot": 1, "arrays": arrays,
    }

def show(result):
    print(json.dumps(result), flush=True)

slot = object.__new__(WaferTrial)
slot.setup(config(0, **{"batch_size": 256, "model.wafer_cnn.width": 4}))
show(slot.step())
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 3 * 2**29, resource.RLIM_INFINITY))
slot.reset_config(config(1, **{"batch_size": 2048, "model.wafer_cnn.width": 128}))
show(slot.step())
slot.reset_config(config(2, **{"batch_size": 256, "model.wafer_cnn.width": 4}))
show(slot.step())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
def test_a_trial_without_enough_memory_is_rejected_and_the_next_one_trains(tmp_path):
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT, str(tmp_path)]

    done = subprocess.run(command, check=True, capture_output=True, text=True)

    first, second, third = map(json.loads, done.stdout.splitlines())
    assert first["outcome"] == third["outcome"] == "ok"
    assert second["outcome"] == "rejected"
    assert second["reason"].startswith("out of memory at batch_size 2048 (expected 5.00 GiB, peak ")
    assert "\n" not in second["reason"]
    assert json.loads(first["row"])["val_loss"] == json.loads(third["row"])["val_loss"]
