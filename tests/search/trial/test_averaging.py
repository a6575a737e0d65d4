import copy
import math
from io import BytesIO

import pytest
import torch
from torch import nn

from search.trial.averaging import WeightAverage


@pytest.fixture
def model():
    """A model with float and integer buffers: BatchNorm counts its batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).train()


def take_step(model, step):
    """Move every weight, and let BatchNorm see a batch, as a step of training does."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        model(torch.randn(8, 3, generator=generator))


def follow(average, model, steps):
    for step in steps:
        take_step(model, step)
        average.update()


def through_a_file(state):
    file = BytesIO()
    torch.save(state, file)
    return torch.load(BytesIO(file.getvalue()), weights_only=True)


def floats(model):
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@pytest.mark.parametrize("horizon", [0.5, 4.0, 1000.0])
def test_the_average_is_the_recursion_by_hand(model, horizon):
    average = WeightAverage(model, horizon=horizon)
    expected = {name: tensor.double() for name, tensor in floats(model).items()}

    for step in range(1, 31):
        take_step(model, step)
        average.update()
        kept = min(math.exp(-1 / horizon), step / (step + 9))
        expected = {name: kept * expected[name] + (1 - kept) * tensor for name, tensor in floats(model).items()}

    found = {name: tensor.double() for name, tensor in floats(average.model).items()}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_initial_weights_are_soon_forgotten_whatever_the_horizon(model):
    average = WeightAverage(model, horizon=1e9)
    initial = copy.deepcopy(model[0].weight)
    left = []

    with torch.no_grad():
        model[0].weight.zero_()
    for _ in range(20):
        average.update()
        left.append((average.model[0].weight / initial).mean().item())

    # What is left after n steps is the product of k / (k + 9).
    assert left == pytest.approx([1 / math.comb(n + 9, 9) for n in range(1, 21)], rel=1e-4)


def test_once_it_has_grown_the_average_reaches_back_over_its_horizon(model):
    average = WeightAverage(model, horizon=5.0)
    for _ in range(200):
        average.update()
    before = copy.deepcopy(model[0].weight)

    with torch.no_grad():
        model[0].weight.zero_()
    for _ in range(5):
        average.update()

    torch.testing.assert_close(average.model[0].weight, before.detach() / math.e)


def test_whole_numbers_are_copied_and_not_averaged(model):
    average = WeightAverage(model, horizon=100.0)

    follow(average, model, range(3))

    assert average.model[1].num_batches_tracked == model[1].num_batches_tracked == 3
    assert average.model[1].num_batches_tracked.dtype is torch.int64


def test_frozen_weights_stay_as_they_are_bit_for_bit(model):
    model[0].requires_grad_(False)
    before = copy.deepcopy(model[0].state_dict())
    average = WeightAverage(model, horizon=3.0)

    with torch.no_grad():
        model[3].weight.add_(1.0)
    average.update()

    torch.testing.assert_close(average.model[0].state_dict(), before, rtol=0, atol=0)
    assert not torch.equal(average.model[3].weight, model[3].weight)


def test_the_model_that_is_followed_is_left_as_it_is(model):
    same = copy.deepcopy(model)
    average = WeightAverage(model, horizon=3.0)

    for step in range(5):
        take_step(same, step)
    follow(average, model, range(5))

    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_average_is_ready_to_judge_and_shares_no_memory(model):
    average = WeightAverage(model, horizon=3.0)

    follow(average, model, range(2))

    assert not any(module.training for module in average.model.modules())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    ours, theirs = (
        {tensor.data_ptr() for tensor in followed.state_dict().values()} for followed in (average.model, model)
    )
    assert not ours & theirs


def test_an_update_is_no_part_of_a_gradient(model):
    average = WeightAverage(model, horizon=3.0)

    average.update()

    assert not any(tensor.requires_grad for tensor in average.model.state_dict().values())


@pytest.mark.parametrize("done", [1, 4, 12])
def test_an_average_goes_on_bit_for_bit_from_its_saved_state(model, done):
    whole = WeightAverage(model, horizon=6.0)
    follow(whole, model, range(done))
    resumed = WeightAverage(model, horizon=6.0)

    resumed.load_state_dict(through_a_file(whole.state_dict()))
    for step in range(done, 20):
        take_step(model, step)
        whole.update()
        resumed.update()

    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("horizon", [1e-300, 1e-3])
def test_an_average_over_next_to_no_steps_is_the_last_one(model, horizon):
    average = WeightAverage(model, horizon=horizon)

    follow(average, model, range(3))

    torch.testing.assert_close(average.model.state_dict(), model.state_dict())
