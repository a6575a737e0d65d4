"""What a trial will hold is known before it starts, and agrees with what real training holds."""

from dataclasses import replace

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
from search.trial.memory_plan import MemoryEstimate, estimate_memory, usable_memory
from search.trial.optimization import OPTIMIZERS
from search.trial.params import TrialParams, choose

CPU = torch.device("cpu")
SIZE, N_TRAIN, N_VAL, N_CLASSES = 24, 800, 200, 9


def estimate(*, n_val=N_VAL, dtype=torch.float32, encoding="states", **fields) -> MemoryEstimate:
    return estimate_memory(
        TrialParams(**({"batch_size": 16} | fields)),
        image_size=SIZE,
        n_train=N_TRAIN,
        n_val=n_val,
        n_classes=N_CLASSES,
        dtype=dtype,
        encoding=encoding,
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
    assert estimate(encoding=encoding).wafers == (800 + 200) * bytes_per_wafer


def test_only_training_wafers_are_copied_for_a_subset():
    assert estimate(subset=0.5).wafers == (800 + 200 + 400) * (24 * 24 + 8)


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


def test_without_a_validation_part_nothing_is_judged():
    planned = estimate(n_val=0)

    assert planned.wafers == 800 * (24 * 24 + 8)
    assert 0 < planned.workspace < estimate().workspace


@pytest.mark.slow
def test_a_frozen_backbone_keeps_nothing_and_its_weights_need_not_be_there():
    transfer = choose("model", "efficientnet_b0", weights="/nowhere/weights.pth")
    frozen = choose("model", "efficientnet_b0", weights="/nowhere/weights.pth", freeze="backbone")

    trained, kept = estimate(model=transfer, batch_size=512), estimate(model=frozen, batch_size=512)

    assert kept.activations < trained.activations / 100
    assert kept.gradients == 4 * (1280 + 1) * N_CLASSES  # those of the head
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
    assert estimate(**fields).total > (N_TRAIN + N_VAL) * SIZE * SIZE


@pytest.mark.parametrize(
    ("choice", "name", "option", "values"),
    [
        ("model", "wafer_cnn", "dropout", (0.1, 0.2, 0.9)),
        ("augment", "symmetries_affine", "angle", (15.0, 1.5, 180.0)),
        ("augment", "symmetries_noise", "noise", (0.02, 0.001, 0.2)),
        ("mixing", "mixup", "alpha", (0.2, 1, 10.0)),
        ("optimizer", "sgd", "momentum", (0.9, 0.5, 0.99)),
    ],
)
def test_strengths_are_planned_once_for_all_values_above_0(monkeypatch, choice, name, option, values):
    built = []
    # Not with a batch size of another test, whose plan may be at hand.
    fields = {"batch_size": 23} | ({} if choice == "model" else {"model": choose("model", "wafer_cnn", width=5)})
    real = MODELS["wafer_cnn"]
    monkeypatch.setitem(
        MODELS, "wafer_cnn", replace(real, build=lambda **given: built.append(1) or real.build(**given))
    )

    plans = [estimate(**(fields | {choice: choose(choice, name, **{option: value})})) for value in values]

    assert len(built) == 1
    assert plans == plans[:1] * 3


def test_whether_there_is_momentum_or_dropout_is_planned_with():
    with_momentum, without = (estimate(optimizer=choose("optimizer", "sgd", momentum=m)) for m in (0.5, 0.0))
    assert with_momentum.optimizer > without.optimizer

    dropped, kept = (estimate(model=choose("model", "wafer_cnn", dropout=rate)) for rate in (0.5, 0.0))
    assert dropped.activations > kept.activations


def test_what_no_machine_holds_can_be_planned():
    planned = estimate_memory(
        TrialParams(batch_size=65_536, model=choose("model", "resnet18")),
        image_size=512,
        n_train=10**9,
        n_val=10**8,
        n_classes=N_CLASSES,
    )

    assert planned.total > 10 * 2**40


def test_planning_leaves_the_global_random_state_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        before = torch.get_rng_state()

        estimate(batch_size=29)  # that no other test plans

        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("memory", "on_gpu", "usable"),
    [(80 * 2**30, True, 71.5 * 2**30), (100 * 2**30, False, 99.1 * 2**30), (2**28, True, 0), (2**28, False, 0)],
)
def test_what_is_no_tensor_leaves_less_than_the_device_has(memory, on_gpu, usable):
    assert usable_memory(memory, on_gpu=on_gpu) == pytest.approx(usable, abs=1)
