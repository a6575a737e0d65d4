import math
import random
import re
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from operator import attrgetter

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers
from data_pipeline.mixing import MIXINGS, Mix
from data_pipeline.sampling import SAMPLINGS, choose_subset
from search.errors import TrialFailed
from search.trial.evaluation import choose_dtype, judge_model
from search.trial.losses import LOSSES, Loss
from search.trial.optimization import SCHEDULES
from search.trial.prediction import DECIDE_FOR, Predictor
from search.trial.training import train_and_evaluate

# Each step makes the weights nine times as large, with the sign turned.
DIVERGING = {"optimizer": "sgd", "optimizer.sgd.momentum": 0.0, "lr": 10.0, "weight_decay": 1.0, "epochs": 50}


def start(params, data, *, state=None):
    return train_and_evaluate(params, data, generator=torch.Generator().manual_seed(params.seed), state=state)


def drain(training, *, keep=attrgetter("report")):
    """What is to be kept of every evaluation, and the trained model."""
    models = []

    def keep_model():
        models.append((yield from training))

    kept = [keep(evaluation) for evaluation in keep_model()]
    return kept, models[0]


def assert_equal_up_to_a_constant(found, expected):
    torch.testing.assert_close(found - found.mean(), expected - expected.mean(), rtol=1e-4, atol=1e-5)


def train_losses(reports):
    return [report.train_loss for report in reports]


@pytest.fixture
def data(make_data):
    return make_data()


def test_a_small_network_learns_32_wafers_with_arbitrary_labels_by_heart(wafers, make_data, read, train):
    few = EncodedWafers(maps=wafers.maps[:32], labels=torch.arange(32) % 9)
    data = replace(make_data(epoch_samples=320), train=few, val=few)
    params = read(**{"epochs": 8, "augment": "none", "model.wafer_cnn.width": 16, "model.wafer_cnn.dropout": 0.0})

    last = train(params, data)[-1]

    assert last.train_accuracy == 1
    assert last.train_loss < 0.1
    assert last.val.scores.accuracy == 1


@pytest.mark.parametrize("encoding", ["wafers", "coded"])
def test_a_network_learns_from_either_encoding(encoding, make_data, read, train, request):
    few = request.getfixturevalue(encoding).select(torch.arange(32))
    data = replace(make_data(epoch_samples=320), train=few, val=few)
    params = read(**{"epochs": 8, "augment": "symmetries", "model.wafer_cnn.width": 16})

    reports = train(params, data)

    assert reports[-1].train_loss < reports[0].train_loss / 4
    assert reports[-1].val.scores.accuracy > 0.9


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_strategy_reports_after_equal_numbers_of_wafers(sampling, make_data, read, train):
    reports = train(read(sampling=sampling, epochs=3), make_data(epoch_samples=50))

    assert [(report.epoch, report.samples) for report in reports] == [(1, 50), (2, 100), (3, 150)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_without_training_wafers_are_no_obstacle(sampling, wafers, data, read, train):
    two_classes = wafers.select(torch.nonzero((wafers.labels == 2) | (wafers.labels == 6)).flatten())

    reports = train(read(sampling=sampling), replace(data, train=two_classes))

    assert all(np.isfinite(report.train_loss) for report in reports)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_read_back_is_the_schedules_at_the_last_step_of_each_epoch(schedule, data, read, train):
    reports = train(read(schedule=schedule, epochs=3, batch_size=16, lr=0.02), data)

    expected = [0.02 * SCHEDULES[schedule]((4 * epoch - 0.5) / 12) for epoch in (1, 2, 3)]
    assert [report.lr for report in reports] == pytest.approx(expected)


@pytest.mark.parametrize(("precision", "name"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_a_report_names_the_precision_it_was_computed_in(precision, name, data, read, train):
    assert {report.precision for report in train(read(precision=precision), data)} == {name}


def test_auto_is_reported_as_what_it_came_to(data, read, train):
    dtype = choose_dtype("auto", torch.device("cpu"))

    assert {f"torch.{report.precision}" for report in train(read(precision="auto"), data)} == {str(dtype)}


@pytest.mark.parametrize(
    "flat",
    [{}, {"ema": 1.0}, {"decide_for": "uniform"}, {"test_time": "symmetries"}],
    ids=["plain", "averaged", "for equal shares", "from eight views"],
)
def test_the_trained_model_comes_back_as_a_predictor_and_scores_as_last_reported(flat, data, read):
    reports, model = drain(start(read(**flat), data))

    judgement = judge_model(model, data.val, n_classes=9, dtype=torch.float32)

    assert isinstance(model, Predictor)
    assert repr(judgement) == repr(reports[-1].val)
    assert reports[-1].n_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_averaged_weights_are_judged_and_returned_and_the_others_go_on_learning(data, read):
    evaluations, model = drain(start(read(ema=1.0), data), keep=deepcopy)
    plain, _ = drain(start(read(ema=0.0), data), keep=deepcopy)

    for averaged, unaveraged in zip(evaluations, plain, strict=True):
        network = deepcopy(model.network)
        network.load_state_dict(averaged.state["average"]["model"])
        judgement = judge_model(network, data.val, n_classes=9, dtype=torch.float32)
        assert repr(judgement) == repr(averaged.report.val) != repr(unaveraged.report.val)
        assert averaged.report.train_loss == unaveraged.report.train_loss
        torch.testing.assert_close(averaged.state["model"], unaveraged.state["model"], rtol=0, atol=0)
    torch.testing.assert_close(model.network.state_dict(), evaluations[-1].state["average"]["model"], rtol=0, atol=0)


def test_an_average_reaches_back_over_nominal_epochs_and_not_steps(data, read):
    steps = []

    def remember(optimizer, *_):
        steps.append([weight.detach().clone() for weight in optimizer.param_groups[0]["params"]])

    hook = register_optimizer_step_pre_hook(remember)
    (*_, last), model = drain(start(read(ema=0.25, epochs=3), data), keep=deepcopy)
    hook.remove()

    expected, *followed = [*steps, [weight for weight in last.state["model"].values() if weight.ndim > 1]]
    for step, weights in enumerate(followed, start=1):
        kept = min(math.exp(-1 / (0.25 * 4)), step / (step + 9))  # four steps in an epoch
        expected = [kept * old + (1 - kept) * new for old, new in zip(expected, weights, strict=True)]
    found = [weight for weight in model.network.state_dict().values() if weight.ndim > 1]
    torch.testing.assert_close(found, expected)


def test_an_average_that_reaches_back_next_to_no_step_is_the_last_weights(data, read):
    _, averaged = drain(start(read(ema=1e-3), data))
    _, plain = drain(start(read(), data))

    torch.testing.assert_close(averaged.network.state_dict(), plain.network.state_dict())


@pytest.mark.parametrize("subset", [0.4, 1.0])
@pytest.mark.parametrize("sampling", ["imbalanced", "balanced", "progressive"])
def test_decisions_are_shifted_from_the_shares_drawn_at_the_end_to_those_that_are_wanted(sampling, subset, data, read):
    kept = choose_subset(data.train.labels.numpy(), fraction=subset)
    natural = torch.bincount(data.train.labels[kept], minlength=9)
    expected = {"imbalanced": torch.zeros(9), "balanced": natural.log(), "progressive": natural.log()}[sampling]

    shifts = {
        wanted: drain(start(read(sampling=sampling, subset=subset, decide_for=wanted), data))[1].shift
        for wanted in DECIDE_FOR
    }

    assert torch.equal(shifts["drawn"], torch.zeros(9))
    assert_equal_up_to_a_constant(shifts["natural"], expected)
    assert_equal_up_to_a_constant(shifts["uniform"], expected - natural.log())


def test_a_loss_that_has_corrected_the_prior_is_not_corrected_again(data, read):
    _, for_equal = drain(start(read(loss="logit_adjusted", decide_for="uniform"), data))
    _, for_natural = drain(start(read(loss="logit_adjusted", decide_for="natural"), data))

    assert_equal_up_to_a_constant(for_equal.shift, torch.zeros(9))
    assert_equal_up_to_a_constant(for_natural.shift, torch.bincount(data.train.labels, minlength=9).log())


@pytest.mark.parametrize("changes", [{}, {"val": None}], ids=["with validation", "without validation"])
def test_the_trained_model_comes_back_in_evaluation_mode(changes, data, read):
    _, model = drain(start(read(), replace(data, **changes)))

    assert not any(module.training for module in model.modules())


def test_without_validation_wafers_there_is_no_judgement_and_the_training_is_the_same(data, read, train):
    judged = train(read(), data)

    blind = train(read(), replace(data, val=None))

    assert [report.val for report in blind] == [None, None]
    assert train_losses(blind) == train_losses(judged)


def test_a_loss_that_becomes_nan_fails_the_trial_with_its_epoch_and_step(data, read):
    reports = []

    # An epoch's first step has none before it.
    message = r"^loss became nan in epoch \d+ \(step \d+\)(; the last finite one was \d+\.\d+)?$"
    with pytest.raises(TrialFailed, match=message) as caught:
        for evaluation in start(read(**DIVERGING), replace(data, val=None)):
            reports.append(evaluation.report)

    epoch, step = map(int, re.findall(r"\d+", caught.value.reason)[:2])
    assert caught.value.status == "diverged"
    assert epoch == len(reports) + 1
    assert 4 * (epoch - 1) < step <= 4 * epoch
    assert all(np.isfinite(report.train_loss) for report in reports)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["nan"], "loss became nan in epoch 1 (step 1)"),
        (["inf"], "loss became inf in epoch 1 (step 1)"),
        (["3", "2.5", "nan"], "loss became nan in epoch 1 (step 3); the last finite one was 2.5"),
        (["3", "123456", "-inf"], "loss became -inf in epoch 1 (step 3); the last finite one was 1.235e+05"),
        (["4", "3", "2", "1", "nan"], "loss became nan in epoch 2 (step 5)"),
        (["4", "3", "2", "1", "0.56789", "nan"], "loss became nan in epoch 2 (step 6); the last finite one was 0.5679"),
    ],
)
def test_no_step_is_taken_after_the_one_that_broke(losses, message, data, read, monkeypatch):
    left = iter(map(float, [*losses, "0.1", "0.1"]))
    monkeypatch.setitem(
        LOSSES,
        "cross_entropy",
        lambda counts, **options: Loss(lambda logits, labels: 0 * logits.sum() + next(left), torch.ones(len(counts))),
    )

    with pytest.raises(TrialFailed, match=f"^{re.escape(message)}$") as caught:
        drain(start(read(epochs=3), data))

    assert caught.value.status == "diverged"
    assert list(left) == [0.1, 0.1]


def test_a_validation_loss_that_becomes_nan_fails_the_trial_with_its_epoch(data, read):
    state = next(start(read(), data)).state
    broken = {name: tensor * np.nan for name, tensor in state["model"].items() if name.endswith("running_var")}

    training = start(read(), data, state=state | {"model": state["model"] | broken})

    with pytest.raises(TrialFailed, match=r"^validation loss became nan in epoch 2$") as caught:
        next(training)
    assert caught.value.status == "diverged"


def test_a_mixed_wafer_learns_both_labels_by_their_shares(data, read, train, monkeypatch):
    mix = Mix(partner=torch.arange(16).flip(0), keep=0.25)
    called_with = []

    def compute(logits, labels):
        called_with.append(labels)
        return 0 * logits.sum() + (1.0 if len(called_with) % 2 else 3.0)

    monkeypatch.setitem(MIXINGS, "none", lambda n, generator: mix)
    monkeypatch.setitem(LOSSES, "cross_entropy", lambda counts, **options: Loss(compute, torch.ones(len(counts))))

    reports = train(read(epochs=1), data)

    assert reports[0].train_loss == 0.25 * 1 + 0.75 * 3
    assert len(called_with) == 8
    assert all(torch.equal(own.flip(0), partners) for own, partners in zip(*[iter(called_with)] * 2, strict=True))


@pytest.mark.parametrize("keep", [0.0, 1.0])
def test_wafers_that_are_mixed_to_their_partners_alone_or_not_at_all_are_plain_wafers(
    keep, data, read, train, monkeypatch
):
    params = read(**{"model.wafer_cnn.dropout": 0.0})
    plain = train(params, data)
    mix = Mix(partner=torch.arange(16).flip(0), keep=keep)
    monkeypatch.setitem(MIXINGS, "none", lambda n, generator: mix)

    mixed = train(params, data)

    assert train_losses(mixed) == pytest.approx(train_losses(plain), rel=1e-4)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_nothing_is_written_to_the_wafers(augment, data, read, train):
    parts = [tensor for part in (data.train, data.val) for tensor in (part.maps, part.labels)]
    before = [tensor.clone() for tensor in parts]

    train(read(augment=augment), data)

    assert all(torch.equal(old, new) for old, new in zip(before, parts, strict=True))


@pytest.mark.parametrize("flat", [{"optimizer": "sgd"}, {"mixing": "cutmix", "ema": 1.0}])
def test_reading_and_training_leave_the_global_random_states_as_they_were(flat, data, read, train):
    def states():
        return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002

    before = states()

    train(read(**flat), data)

    assert states() == before


def test_a_subset_trains_on_its_share_of_every_class_and_on_nothing_else(data, read, train):
    kept = torch.from_numpy(choose_subset(data.train.labels.numpy(), fraction=0.3))
    maps_without_others, maps_without_one = torch.zeros_like(data.train.maps), data.train.maps.clone()
    maps_without_others[kept] = data.train.maps[kept]
    maps_without_one[kept[0]] = 0
    without_others, without_one = (
        replace(data, train=replace(data.train, maps=maps)) for maps in (maps_without_others, maps_without_one)
    )

    losses = train_losses(train(read(subset=0.3), data))

    assert train_losses(train(read(subset=0.3), without_others)) == losses
    assert train_losses(train(read(subset=0.3), without_one)) != losses
    assert train_losses(train(read(subset=1.0), without_others)) != train_losses(train(read(subset=1.0), data))


def test_a_batch_larger_than_the_epoch_is_the_epoch(make_data, read, train):
    data = make_data(epoch_samples=48)

    assert train_losses(train(read(batch_size=500), data)) == train_losses(train(read(batch_size=48), data))


def test_a_single_wafer_left_over_joins_the_last_step(make_data, read, train):
    reports = train(read(batch_size=16, epochs=2, lr=0.02), make_data(epoch_samples=33))

    assert [report.samples for report in reports] == [33, 66]
    assert [report.lr for report in reports] == pytest.approx(
        [0.02 * SCHEDULES["cosine"]((2 * epoch - 0.5) / 4) for epoch in (1, 2)]
    )


def test_a_gradient_that_is_clipped_to_nearly_nothing_moves_nearly_nothing(data, read, train):
    sgd = {"optimizer": "sgd", "weight_decay": 0.0, "augment": "none", "model.wafer_cnn.dropout": 0.0}
    free, clipped = (train(read(**sgd, grad_clip=clip, lr=0.1, epochs=6), data) for clip in (0.0, 1e-6))

    assert abs(clipped[-1].train_loss - clipped[0].train_loss) < abs(free[-1].train_loss - free[0].train_loss) / 2


def test_moving_the_data_to_the_cpu_copies_nothing(data, tmp_path):
    moved = replace(data, features=tmp_path).to(torch.device("cpu"))

    assert moved.train.maps.data_ptr() == data.train.maps.data_ptr()
    assert moved.val.maps.data_ptr() == data.val.maps.data_ptr()
    assert (moved.n_classes, moved.epoch_samples, moved.features) == (9, 64, tmp_path)


def test_moving_data_without_a_validation_part_keeps_it_without_one(data):
    assert replace(data, val=None).to(torch.device("cpu")).val is None


def test_training_can_be_left_after_any_report(data, read, train):
    reports = [evaluation.report for evaluation in islice(start(read(epochs=3), data), 2)]

    assert train_losses(reports) == train_losses(train(read(epochs=3), data))[:2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_everything_that_lives_on_the_device_trains_there(data, read, train):
    flat = {"mixing": "cutmix", "ema": 0.5, "augment": "symmetries_noise", "loss": "logit_adjusted", "grad_clip": 1.0}
    params = read(**flat, decide_for="natural", test_time="symmetries", epochs=3)

    reports = train(params, data.to(torch.device("cuda")))

    assert all(np.isfinite(report.train_loss) and np.isfinite(report.val.loss) for report in reports)
    assert reports[-1].peak_memory > 0
