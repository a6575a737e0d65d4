import pytest
import torch
from torch.nn import functional

from search.trial.losses import LOSSES, cross_entropy


@pytest.fixture
def logits():
    return torch.randn(7, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def labels():
    return torch.tensor([0, 8, 3, 3, 1, 5, 2])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_torchs(logits, labels, label_smoothing):
    loss = cross_entropy(label_smoothing=label_smoothing)(logits, labels)

    assert torch.equal(loss, functional.cross_entropy(logits, labels, label_smoothing=label_smoothing))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_smoothing_spreads_its_share_of_the_target_evenly_over_all_classes(logits, labels, label_smoothing):
    logs = logits.log_softmax(1)
    right, mean = logs[torch.arange(7), labels], logs.mean(1)

    loss = cross_entropy(label_smoothing=label_smoothing)(logits, labels)

    torch.testing.assert_close(loss, -((1 - label_smoothing) * right + label_smoothing * mean).mean())


def test_nothing_is_smoothed_by_default(logits, labels):
    assert torch.equal(cross_entropy()(logits, labels), functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("label_smoothing", [-0.01, 0.51, float("nan"), float("inf")])
def test_a_smoothing_outside_its_range_is_refused(label_smoothing):
    with pytest.raises(ValueError, match=rf"^label_smoothing must be in \[0, 0\.5\]; got {label_smoothing}$"):
        cross_entropy(label_smoothing=label_smoothing)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_is_one_number_with_a_gradient_everywhere(name, logits, labels):
    loss = LOSSES[name]()(logits, labels)
    loss.backward()

    assert loss.shape == ()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_table_is_smaller_where_the_right_class_is_called(name, labels):
    right = 3 * functional.one_hot(labels, 9).float()

    assert LOSSES[name]()(right, labels) < LOSSES[name]()(-right, labels)
