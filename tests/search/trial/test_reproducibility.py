import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import pytest
import torch

from search.trial.training import train_and_evaluate

DROPOUT = {"model.wafer_cnn.dropout": 0.3}
# What remembers something from step to step differs between these.
INTERRUPTED = {
    "adam": DROPOUT | {"optimizer": "adam"},
    "adamw": DROPOUT | {"optimizer": "adamw"},
    "sgd without momentum": DROPOUT | {"optimizer": "sgd", "optimizer.sgd.momentum": 0.0},
    "sgd with momentum": DROPOUT | {"optimizer": "sgd", "optimizer.sgd.momentum": 0.9},
    "balanced draws": DROPOUT | {"sampling": "balanced"},
    "one cycle": DROPOUT | {"schedule": "one_cycle"},
    "warm-up, plateau and fall": DROPOUT | {"schedule": "warmup_stable_decay"},
    "moving draws": DROPOUT | {"sampling": "progressive"},
    "averaged weights": DROPOUT | {"ema": 0.5},
    "mixup": DROPOUT | {"mixing": "mixup"},
    "cutmix": DROPOUT | {"mixing": "cutmix"},
    "noise": DROPOUT | {"augment": "symmetries_noise"},
    "focal loss": DROPOUT | {"loss": "focal"},
    "logit adjustment": DROPOUT | {"loss": "logit_adjusted"},
    "class balance": DROPOUT | {"loss": "class_balanced"},
    "eight views for equal shares": DROPOUT | {"test_time": "symmetries", "decide_for": "uniform", "ema": 2.0},
    "subset": DROPOUT | {"subset": 0.5, "augment": "deck"},
    "bfloat16": DROPOUT | {"precision": "bf16"},
    "wafer_resnet": {
        "model": "wafer_resnet",
        "model.wafer_resnet.dropout": 0.3,
        "model.wafer_resnet.drop_path": 0.3,
    },
}

SCRIPT = """
import sys
import numpy as np
import torch
from dataclasses import replace
from data_pipeline.batches import wrap_arrays
from data_pipeline.encode import Picture, encode_maps
from data_pipeline.synthetic import make_wafers
from search.trial.params import from_flat
from search.trial.data import TrialData
from search.trial.training import train_and_evaluate

torch.set_num_threads(1)
drawn = make_wafers(240)
wafers = wrap_arrays(encode_maps(drawn, np.arange(240), picture=Picture(image_size=16)), drawn.labels)
data = TrialData(train=wafers, val=wafers, n_classes=9, epoch_samples=64)
flat = {"epochs": 2, "batch_size": 16, "sampling": "balanced", "augment": "deck", "model.wafer_cnn.width": 4}
for seed in map(int, sys.argv[1:]):
    params = from_flat(flat | {"seed": seed}, where="script", image_size=16)
    generator = torch.Generator().manual_seed(params.seed)
    evaluations = train_and_evaluate(params, data, generator=generator)
    print([replace(evaluation.report, train_seconds=0.0, val_seconds=0.0, peak_memory=0) for evaluation in evaluations])
"""


def start(params, data, *, seed, state=None):
    return train_and_evaluate(params, data, generator=torch.Generator().manual_seed(seed), state=state)


def numbers(reports):
    """All that a report says but for seconds and memory; text, because NaN is not equal to itself."""
    return [repr(replace(report, train_seconds=0.0, val_seconds=0.0, peak_memory=0)) for report in reports]


def through_a_file(state):
    file = BytesIO()
    torch.save(state, file)
    return torch.load(BytesIO(file.getvalue()), weights_only=True)


def drain(training):
    """Reports to the end, and the last state as it would be saved."""
    evaluations = [(evaluation.report, through_a_file(evaluation.state)) for evaluation in training]
    return [report for report, _ in evaluations], evaluations[-1][1]


@pytest.mark.parametrize("done", [1, 2])
@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(name, done, make_data, read):
    params = read(**INTERRUPTED[name], epochs=3)
    whole, last = drain(start(params, make_data(), seed=7))
    training = start(params, make_data(), seed=7)
    for _ in range(done):
        state = next(training).state
    saved = through_a_file(state)

    rest, resumed_last = drain(start(params, make_data(), seed=99, state=saved))

    assert numbers(rest) == numbers(whole[done:])
    torch.testing.assert_close(resumed_last, last, rtol=0, atol=0)


def test_a_finished_training_has_nothing_left_to_do(make_data, read):
    _, last = drain(start(read(), make_data(), seed=7))

    assert list(start(read(), make_data(), seed=7, state=last)) == []


def test_equal_seeds_give_equal_reports_whatever_the_global_random_state(make_data, read, train):
    first = train(read(seed=3, **DROPOUT), make_data())

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = train(read(seed=3, **DROPOUT), make_data())

    assert numbers(first) == numbers(second)


def test_another_seed_gives_other_reports(make_data, read, train):
    assert numbers(train(read(seed=3), make_data())) != numbers(train(read(seed=4), make_data()))


@pytest.mark.slow
def test_equal_seeds_give_equal_reports_in_fresh_processes():
    command = [sys.executable, "-W", "error", "-c", SCRIPT, "0", "1"]

    first, second = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2))

    assert first == second
    seed_0, seed_1 = first.splitlines()
    assert "EpochReport(epoch=2" in seed_0
    assert seed_0 != seed_1
