import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from data_pipeline.augment import to_channels
from data_pipeline.batches import EncodedWafers, plain_batches
from search.trial.evaluation import autocast, choose_dtype, judge_batches, judge_logits, judge_model, predict_batches
from search.trial.metrics import score_confusion

CPU = torch.device("cpu")
N_CLASSES = 5


@pytest.fixture
def model():
    """A network whose BatchNorm and dropout would give other logits in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, N_CLASSES)
        )


@pytest.fixture(scope="module")
def maps():
    """More wafers than one batch of validation holds; the last class has none."""
    generator = torch.Generator().manual_seed(0)
    return EncodedWafers(
        maps=torch.randint(3, (1100, 8, 8), generator=generator, dtype=torch.uint8),
        labels=torch.randint(N_CLASSES - 1, (1100,), generator=generator),
    )


def test_the_confusion_matrix_counts_each_wafer_once(model, maps):
    judgement = judge_model(model, maps, n_classes=N_CLASSES, dtype=torch.float32)

    expected = np.zeros((N_CLASSES, N_CLASSES), dtype=int)
    for wafer, label in zip(maps.maps, maps.labels, strict=True):
        expected[label, model(to_channels(wafer[None])).argmax()] += 1
    np.testing.assert_array_equal(judgement.confusion, expected)


def test_the_loss_is_the_plain_cross_entropy_of_all_wafers_at_once(model, maps):
    judgement = judge_model(model, maps, n_classes=N_CLASSES, dtype=torch.float32)

    assert judgement.loss == pytest.approx(cross_entropy(model(to_channels(maps.maps)), maps.labels).item())


def test_the_scores_are_those_of_the_confusion_matrix(model, maps):
    judgement = judge_model(model, maps, n_classes=N_CLASSES, dtype=torch.float32)

    assert repr(judgement.scores) == repr(score_confusion(np.array(judgement.confusion)))
    assert judgement.scores.support[-1] == 0


def test_the_mean_of_equal_losses_is_exactly_their_loss():
    labels = torch.zeros(10_000, dtype=torch.int64)

    judgement = judge_logits(torch.zeros(10_000, 2), labels, n_classes=2)

    assert judgement.loss == cross_entropy(torch.zeros(1, 2), labels[:1]).item()  # summed in float32 it is not


@pytest.mark.parametrize("size", [1, 7, 1000, 1100])
def test_batches_of_any_size_are_judged_as_the_whole_is(model, maps, size):
    few = maps.select(torch.arange(20 * size if size < 10 else 1100))
    batches = zip(to_channels(few.maps).split(size), few.labels.split(size), strict=True)

    judgement = judge_batches(model, batches, n_classes=N_CLASSES, dtype=torch.float32)

    whole = judge_model(model, few, n_classes=N_CLASSES, dtype=torch.float32)
    assert judgement.confusion == whole.confusion
    assert judgement.loss == pytest.approx(whole.loss)


def test_a_single_wafer_can_be_judged(model, maps):
    judgement = judge_model(model, maps.select(torch.tensor([3])), n_classes=N_CLASSES, dtype=torch.float32)

    assert np.sum(judgement.confusion) == 1
    assert sum(judgement.scores.support) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_judging_leaves_the_model_in_evaluation_mode_and_otherwise_as_it_was(model, maps, dtype):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    judge_model(model.train(), maps, n_classes=N_CLASSES, dtype=dtype)

    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_judging_twice_gives_the_same(model, maps):
    first, second = (judge_model(model, maps, n_classes=N_CLASSES, dtype=torch.float32) for _ in range(2))

    assert repr(first) == repr(second)


def test_bfloat16_judges_nearly_as_float32(model, maps):
    exact = judge_model(model, maps, n_classes=N_CLASSES, dtype=torch.float32)
    rough = judge_model(model, maps, n_classes=N_CLASSES, dtype=torch.bfloat16)

    assert rough.loss != exact.loss
    assert rough.loss == pytest.approx(exact.loss, rel=0.01)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_precision_that_is_asked_for_is_used(precision, dtype, device):
    assert choose_dtype(precision, torch.device(device)) is dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_cpu_with_instructions_for_it(capabilities, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)

    assert choose_dtype("auto", CPU) is dtype


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

    assert choose_dtype("auto", CPU) is torch.float32


@pytest.mark.parametrize(("is_native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_on_a_gpu_that_does_not_emulate_it(is_native, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or is_native)

    assert choose_dtype("auto", torch.device("cuda")) is dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_computed_in_the_dtype_that_was_chosen(dtype):
    with autocast(CPU, dtype):
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype is dtype


def test_predicting_keeps_nothing_for_gradients(model, maps):
    logits_NK, _ = predict_batches(model, plain_batches(maps), dtype=torch.float32)

    assert not logits_NK.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predictions_are_in_the_order_of_the_wafers_and_judged_as_the_model_is(model, maps, dtype):
    logits_NK, labels = predict_batches(model, plain_batches(maps), dtype=dtype)

    assert (logits_NK.shape, logits_NK.dtype) == ((1100, N_CLASSES), torch.float32)
    assert torch.equal(labels, maps.labels)
    judged = judge_logits(logits_NK, labels, n_classes=N_CLASSES)
    whole = judge_model(model, maps, n_classes=N_CLASSES, dtype=dtype)
    assert (judged.loss, judged.confusion) == (whole.loss, whole.confusion)
