"""What a trial will hold is known before it starts, and agrees with what real training holds."""

import sys
import time

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, train_batches
from data_pipeline.mixing import MIXINGS
from models import MODELS, build_model
from search.trial.evaluation import autocast
from search.trial.memory import (
    MemoryEstimate,
    byte_size,
    estimate_memory,
    explain_out_of_memory,
    is_out_of_memory,
    peak_memory,
    restart_peak,
)
from search.trial.optimization import OPTIMIZERS
from search.trial.params import TrialParams, choose

CPU = torch.device("cpu")
SIZE, N_WAFERS, N_CLASSES = 24, 1000, 9


def estimate(*, image_size=SIZE, dtype=torch.float32, encoding="states", **fields) -> MemoryEstimate:
    params = TrialParams(**({"batch_size": 16} | fields))
    return estimate_memory(
        params, image_size=image_size, n_wafers=N_WAFERS, n_classes=N_CLASSES, dtype=dtype, encoding=encoding
    )


def bytes_saved_for_real(name, *, batch_size, dtype):
    """Bytes of all storages that a real forward pass keeps for the backward pass, without weights and batch."""
    model = build_model(name, n_classes=N_CLASSES, options={}, seed=0).train()
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (batch_size, SIZE, SIZE), dtype=np.uint8))
    wafers = EncodedWafers(maps=codes, labels=torch.arange(batch_size) % N_CLASSES)
    choices = AUGMENTS["none"](batch_size, torch.Generator())
    channels, labels = next(train_batches(wafers, torch.arange(batch_size), choices, batch_size=batch_size))
    others = {t.untyped_storage().data_ptr() for t in (channels, labels, *model.parameters(), *model.buffers())}
    saved = {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with autocast(CPU, dtype):
            logits = model(channels)
        loss = cross_entropy(logits.float(), labels)
    assert loss.isfinite()
    return sum(size for address, size in saved.items() if address not in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "batch_size"), [("wafer_cnn", 32), ("wafer_resnet", 32), ("resnet18", 4)])
def test_the_activations_agree_with_what_real_training_keeps(name, batch_size, dtype):
    planned = estimate(
        model=choose("model", name), augment=choose("augment", "none"), batch_size=batch_size, dtype=dtype
    )

    measured = bytes_saved_for_real(name, batch_size=batch_size, dtype=dtype)

    assert planned.activations == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("name", ["wafer_cnn", "wafer_resnet", "resnet18"])
def test_weights_and_gradients_are_those_of_the_real_network(name):
    model = build_model(name, n_classes=N_CLASSES, options={}, seed=0)

    planned = estimate(model=choose("model", name))

    assert planned.weights == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert planned.gradients == sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [
        (choose("optimizer", "adam"), 2),
        (choose("optimizer", "adamw"), 2),
        (choose("optimizer", "sgd"), 1),
        (choose("optimizer", "sgd", momentum=0.0), 0),
    ],
    ids=["adam", "adamw", "sgd with momentum", "sgd without"],
)
def test_an_optimizer_remembers_as_much_as_the_real_one(optimizer, copies):
    planned = estimate(optimizer=optimizer)

    assert planned.optimizer == pytest.approx(copies * planned.gradients, rel=0.01)


@pytest.mark.parametrize(("encoding", "bytes_per_wafer"), [("states", 24 * 24 + 8), ("coverage", 2 * 24 * 24 + 8)])
def test_all_wafers_lie_on_the_device_as_they_are_encoded(encoding, bytes_per_wafer):
    assert estimate(encoding=encoding).wafers == N_WAFERS * bytes_per_wafer
    assert estimate(encoding=encoding, subset=0.5).wafers == 1500 * bytes_per_wafer


def test_the_total_is_the_sum_of_the_parts():
    planned = estimate()

    parts = ("wafers", "weights", "gradients", "optimizer", "batch", "activations", "workspace")
    assert planned.total == sum(getattr(planned, part) for part in parts)
    assert min(getattr(planned, part) for part in parts) >= 0


def test_what_grows_with_the_batch_grows_in_proportion():
    small, large = estimate(batch_size=64), estimate(batch_size=256)

    assert large.activations == pytest.approx(4 * small.activations, rel=0.01)
    assert large.batch == 4 * small.batch
    assert large.weights == small.weights


def test_half_the_precision_takes_much_less():
    whole, half = (estimate(batch_size=512, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))

    assert 0.5 < half.activations / whole.activations < 0.7


def test_an_average_of_the_weights_is_one_more_copy_of_them():
    assert estimate(ema=1.0).weights == 2 * estimate().weights


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_mixed_batch_lies_beside_the_drawn_one(name):
    inputs = 16 * 2 * SIZE * SIZE * 4

    assert estimate(mixing=choose("mixing", name)).batch == estimate().batch + inputs


def test_judging_eight_views_counts_where_it_takes_more_than_training():
    assert estimate(test_time="symmetries").total > estimate().total


def test_a_frozen_backbone_keeps_nothing_and_its_weights_need_not_be_there():
    transfer = choose("model", "efficientnet_b0", weights="/nowhere/weights.pth")
    frozen = choose("model", "efficientnet_b0", weights="/nowhere/weights.pth", freeze="backbone")

    trained, kept = estimate(model=transfer, batch_size=512), estimate(model=frozen, batch_size=512)

    assert kept.activations < trained.activations / 100
    assert kept.gradients == kept.activations or kept.gradients < trained.gradients / 100
    assert kept.optimizer < trained.optimizer / 100
    assert kept.weights == trained.weights
    assert 512 * 32 * 64 * 64 * 4 < kept.workspace < trained.total / 2  # its largest layer's output at least


def test_group_norms_are_counted_in_float32_as_gpus_compute_them():
    group = choose("model", "wafer_cnn", norm="group")

    with_norm = estimate(model=group, batch_size=256, dtype=torch.bfloat16)

    assert with_norm.activations > 1.3 * estimate(batch_size=256, dtype=torch.bfloat16).activations


@pytest.mark.parametrize(
    "fields",
    [
        *({"model": choose("model", name)} for name in MODELS),
        *({"optimizer": choose("optimizer", name)} for name in OPTIMIZERS),
        *({"augment": choose("augment", name)} for name in AUGMENTS),
        *({"mixing": choose("mixing", name)} for name in MIXINGS),
    ],
    ids=lambda fields: next(iter(fields.values())).name,
)
def test_every_choice_can_be_planned(fields):
    assert estimate(**fields).total > N_WAFERS * SIZE * SIZE


def test_what_no_machine_holds_can_be_planned_in_a_moment():
    start = time.perf_counter()

    planned = estimate_memory(
        TrialParams(batch_size=65_536, model=choose("model", "resnet18")),
        image_size=512,
        n_wafers=10**9,
        n_classes=N_CLASSES,
    )

    assert planned.total > 10 * 2**40
    assert time.perf_counter() - start < 10


def test_planning_leaves_the_global_random_state_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        before = torch.get_rng_state()

        estimate(model=choose("model", "wafer_cnn", dropout=0.4321))

        assert torch.equal(torch.get_rng_state(), before)


def test_the_peak_of_the_process_rises_with_what_it_holds():
    restart_peak(CPU)
    before = peak_memory(CPU)

    block = torch.ones(2**28, dtype=torch.uint8)

    assert peak_memory(CPU) >= before + 0.9 * len(block)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can begin anew")
def test_a_trial_is_not_charged_with_what_an_earlier_one_held():
    block = torch.ones(2**28, dtype=torch.uint8)
    before = peak_memory(CPU)
    del block

    restart_peak(CPU)

    assert peak_memory(CPU) < before - 2**27


def provoke(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        provoke(lambda: torch.empty(2**60, dtype=torch.uint8)),
        provoke(lambda: np.empty(2**60, dtype=np.uint8)),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=["torch", "numpy", "python", "cuda", "cuda library", "cudnn", "c++"],
)
def test_a_lack_of_memory_is_recognised_whoever_tells_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), OSError(28, "")])
def test_other_errors_are_no_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_the_reason_says_batch_size_expectation_and_peak_in_one_line():
    error = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    reason = explain_out_of_memory(error, batch_size=512, expected=round(9.3 * 2**30), peak=round(7.81 * 2**30))

    assert reason == "out of memory at batch_size 512 (expected 9.30 GiB, peak 7.81 GiB): CUDA out of memory."


@pytest.mark.parametrize(("size", "words"), [(0, "0.0 MiB"), (2**20, "1.0 MiB"), (2**28, "0.25 GiB")])
def test_bytes_read_as_people_say_them(size, words):
    assert byte_size(size) == words
