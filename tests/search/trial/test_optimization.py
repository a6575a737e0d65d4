import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from search.trial.optimization import OPTIMIZERS, SCHEDULES, constant, cosine, one_cycle, sgd, warmup_stable_decay

# Factors at the start of the warm-up and at the end of the training.
ENDS = {
    "cosine": (0.0, 0.0),
    "one_cycle": (1 / 25, 1 / 250_000),
    "warmup_stable_decay": (0.0, 0.0),
    "constant": (0.0, 1.0),
}
# The others stay at their peak for a while.
ALWAYS_FALLING = ["cosine", "one_cycle"]

every_schedule = pytest.mark.parametrize("name", SCHEDULES)
every_warmup = pytest.mark.parametrize("warmup", [0.05, 0.3, 0.9])
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def step_without_gradient(model, optimizer):
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def sample(name, **options):
    """Factors at 1001 points from the start of the training to its end."""
    return np.array([SCHEDULES[name](progress, **options) for progress in np.linspace(0, 1, 1001)])


def test_the_table_of_ends_covers_every_schedule():
    assert ENDS.keys() == SCHEDULES.keys()


@given(st.sampled_from(sorted(SCHEDULES)), st.floats(0, 1), st.floats(0, 0.9))
def test_a_factor_lies_between_zero_and_one(name, progress, warmup):
    assert 0 <= SCHEDULES[name](progress, warmup=warmup) <= 1


@every_schedule
@every_warmup
def test_a_schedule_rises_through_the_warm_up_and_never_again(name, warmup):
    factors = sample(name, warmup=warmup)
    peak = round(1000 * warmup)

    assert factors[peak] == factors.max()
    assert (np.diff(factors[: peak + 1]) > 0).all()
    assert (np.diff(factors[peak:]) <= 0).all()


@pytest.mark.parametrize("name", ALWAYS_FALLING)
@every_warmup
def test_without_a_plateau_a_schedule_falls_in_every_step_after_the_warm_up(name, warmup):
    factors = sample(name, warmup=warmup)

    assert (np.diff(factors[round(1000 * warmup) :]) < 0).all()


@every_schedule
@every_warmup
def test_a_schedule_starts_peaks_and_ends_where_it_says(name, warmup):
    start, end = ENDS[name]

    assert SCHEDULES[name](0.0, warmup=warmup) == pytest.approx(start)
    assert SCHEDULES[name](warmup, warmup=warmup) == 1
    assert SCHEDULES[name](1.0, warmup=warmup) == pytest.approx(end, abs=1e-12)


@every_schedule
def test_without_warm_up_a_schedule_starts_at_its_peak(name):
    assert SCHEDULES[name](0.0, warmup=0.0) == 1
    assert SCHEDULES[name](1.0, warmup=0.0) == pytest.approx(ENDS[name][1], abs=1e-12)


@pytest.mark.parametrize("schedule", [cosine, warmup_stable_decay, constant])
def test_the_warm_up_is_linear(schedule):
    assert [schedule(progress, warmup=0.4) for progress in (0.1, 0.2, 0.3)] == pytest.approx([0.25, 0.5, 0.75])


def test_cosine_is_at_half_its_peak_halfway_down():
    assert cosine(0.6, warmup=0.2) == pytest.approx(0.5)


def test_constant_stays_at_its_peak_and_by_default_has_no_warm_up():
    assert {constant(progress) for progress in (0.0, 0.001, 0.5, 1.0)} == {1}
    assert {constant(progress, warmup=0.3) for progress in (0.3, 0.5, 1.0)} == {1}


@given(warmup=st.floats(0, 0.9), decay=st.floats(0.01, 1), share=st.floats(0, 1))
def test_the_fall_after_a_plateau_is_one_minus_a_square_root(warmup, decay, share):
    length = decay * (1 - warmup)

    fallen = warmup_stable_decay(1 - length * (1 - share), warmup=warmup, decay=decay)

    assert fallen == pytest.approx(1 - share**0.5, abs=1e-6)


@given(warmup=st.floats(0, 0.9), decay=st.floats(0.01, 0.99), share=st.floats(0, 0.999))
def test_between_warm_up_and_fall_the_rate_stays_at_its_peak(warmup, decay, share):
    plateau = (1 - decay) * (1 - warmup)

    assert warmup_stable_decay(warmup + share * plateau, warmup=warmup, decay=decay) == 1


def test_until_the_fall_begins_the_rate_of_each_step_does_not_depend_on_the_length_of_the_training():
    warmup_steps, lengths = 50, (1000, 3000)

    short, long = (
        [warmup_stable_decay((step + 0.5) / n, warmup=warmup_steps / n, decay=0.2) for step in range(n)]
        for n in lengths
    )

    begin = round(0.8 * (lengths[0] - warmup_steps)) + warmup_steps
    assert short[:begin] == pytest.approx(long[:begin])
    assert short[begin] < 1
    assert long[begin] == 1


@pytest.mark.parametrize("decay", [0, 0.0, -0.1, 1.01, float("nan")])
def test_a_fall_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=rf"^decay must be in \(0, 1\]; got {decay}$"):
        warmup_stable_decay(0.5, decay=decay)


@every_warmup
def test_one_cycle_is_torchs(warmup):
    n_steps = 2000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=n_steps, pct_start=warmup, cycle_momentum=False)
    rates = []
    for _ in range(n_steps - 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    factors = [one_cycle((step + 0.5) / n_steps, warmup=warmup) for step in range(n_steps - 1)]

    # Torch counts from the first to the last step, we from the start to the end: half a step apart.
    half_a_step = np.pi / 2 / min(warmup, 1 - warmup) * 0.5 / n_steps
    np.testing.assert_allclose(factors, rates, rtol=0, atol=1.1 * half_a_step)


@every_schedule
@pytest.mark.parametrize("warmup", [-0.01, 0.91, float("nan")])
def test_a_warm_up_outside_its_range_is_refused(name, warmup):
    with pytest.raises(ValueError, match=rf"^warmup must be in \[0, 0\.9\]; got {warmup}$"):
        SCHEDULES[name](0.5, warmup=warmup)


@every_optimizer
def test_every_optimizer_lowers_a_quadratic(name):
    model = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[name](model, lr=0.05, weight_decay=0.0)

    def distance():
        return ((model.weight - 1) ** 2).sum() + ((model.bias + 1) ** 2).sum()

    before = distance().item()
    for _ in range(100):
        optimizer.zero_grad()
        distance().backward()
        optimizer.step()

    assert distance().item() < 0.05 * before


@every_optimizer
def test_weight_decay_shrinks_matrices_and_spares_biases_and_scales(name, model):
    optimizer = OPTIMIZERS[name](model, lr=0.1, weight_decay=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    step_without_gradient(model, optimizer)

    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new) == (new.ndim == 1)
    assert model[0].weight.norm() < before[0].norm()


@every_optimizer
def test_without_weight_decay_a_step_without_gradient_changes_nothing(name, model):
    optimizer = OPTIMIZERS[name](model, lr=0.1, weight_decay=0.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    step_without_gradient(model, optimizer)

    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@every_optimizer
def test_frozen_parameters_are_left_out(name, model):
    model[0].requires_grad_(False)

    optimizer = OPTIMIZERS[name](model, lr=0.1, weight_decay=0.1)

    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for layer in (model[1], model[2]) for parameter in layer.parameters()}


@every_optimizer
def test_the_learning_rate_arrives_in_every_group(name, model):
    optimizer = OPTIMIZERS[name](model, lr=0.123, weight_decay=0.0)

    assert {group["lr"] for group in optimizer.param_groups} == {0.123}


def test_decoupled_weight_decay_shrinks_by_rate_times_decay_and_a_penalty_does_not(model):
    before = model[0].weight.detach().clone()
    steps = {}
    for name in ("adamw", "adam"):
        model[0].weight.data.copy_(before)
        step_without_gradient(model, OPTIMIZERS[name](model, lr=0.1, weight_decay=0.1))
        steps[name] = model[0].weight.detach().clone()

    torch.testing.assert_close(steps["adamw"], 0.99 * before)
    torch.testing.assert_close(steps["adam"], before - 0.1 * before.sign(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("momentum", [0, 0.0, 0.5, 0.999])
def test_a_momentum_within_its_range_arrives(model, momentum):
    optimizer = sgd(model, lr=0.1, weight_decay=0.0, momentum=momentum)

    assert {group["momentum"] for group in optimizer.param_groups} == {momentum}


@pytest.mark.parametrize("momentum", [-0.1, 1, 1.0, float("nan")])
def test_a_momentum_outside_its_range_is_refused(model, momentum):
    with pytest.raises(ValueError, match=rf"^momentum must be in \[0, 1\); got {momentum}$"):
        sgd(model, lr=0.1, weight_decay=0.0, momentum=momentum)


def test_momentum_carries_on_where_the_gradient_ends():
    model = nn.Linear(1, 1)
    optimizer = sgd(model, lr=0.1, weight_decay=0.0, momentum=0.9)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    after_one = model.weight.item()

    step_without_gradient(model, optimizer)

    assert model.weight.item() < after_one
