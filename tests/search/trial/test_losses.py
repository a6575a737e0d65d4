import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from data_pipeline.sampling import effective_number
from search.trial.losses import LOSSES, PRIOR_CORRECTING, class_balanced, cross_entropy, focal, logit_adjusted

COUNTS = torch.tensor([500, 3, 40, 1000, 2, 75, 1, 10, 200])
# Each option with its range, and values just outside.
RANGES = [
    (cross_entropy, "label_smoothing", r"\[0, 0\.5\]", [-0.01, 0.51]),
    (focal, "gamma", r"\[0, 5\]", [-0.01, 5.01]),
    (logit_adjusted, "tau", r"\[0, 2\]", [-0.01, 2.01]),
    (class_balanced, "beta", r"\[0, 1\)", [-0.01, 1, 1.0]),
]

every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def logits():
    return torch.randn(7, 9, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def labels():
    return torch.tensor([0, 8, 3, 3, 1, 5, 2])


def plain(logits, labels):
    return functional.cross_entropy(logits, labels)


# Every loss


@every_loss
def test_every_loss_of_the_table_is_one_number_with_a_gradient_everywhere(name, logits, labels):
    loss = LOSSES[name](COUNTS)(logits, labels)
    loss.backward()

    assert loss.shape == ()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad != 0).all()


@every_loss
def test_every_loss_of_the_table_is_smaller_where_the_right_class_is_called(name, labels):
    loss = LOSSES[name](COUNTS)
    right = 3 * functional.one_hot(labels, 9).float()

    assert loss(right, labels) < loss(-right, labels)


@every_loss
def test_classes_without_wafers_make_nothing_infinite(name, logits, labels):
    loss = LOSSES[name](torch.tensor([0, 0, 40, 1000, 2, 75, 1, 0, 200]))

    value = loss(logits, labels)
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(loss.prior_tilt).all()
    assert (loss.prior_tilt > 0).all()


@every_loss
def test_a_class_without_wafers_counts_as_one_wafer(name, logits, labels):
    none, one = (LOSSES[name](torch.tensor([n, 3, 40, 1000, 2, 75, 1, 10, 200])) for n in (0, 1))

    assert torch.equal(none(logits, labels), one(logits, labels))
    assert torch.equal(none.prior_tilt, one.prior_tilt)


@every_loss
def test_only_a_loss_that_corrects_the_prior_tilts_it(name):
    tilt = LOSSES[name](COUNTS).prior_tilt

    assert tilt.shape == (9,)
    assert (len(tilt.unique()) > 1) == (name in PRIOR_CORRECTING)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (cross_entropy, {}),
        *((logit_adjusted, {"tau": tau}) for tau in (0.0, 0.5, 1.0, 2.0)),
        *((class_balanced, {"beta": beta}) for beta in (0.0, 0.9, 0.999)),
    ],
)
def test_what_a_loss_teaches_without_features_is_the_drawn_shares_times_its_tilt(loss, options):
    counts = torch.tensor([60, 25, 10, 4, 1])
    compute, labels = loss(counts, **options), torch.arange(5).repeat_interleave(counts)
    logits = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def evaluate():
        optimizer.zero_grad()
        value = compute(logits.expand(100, 5), labels)
        value.backward()
        return value

    optimizer.step(evaluate)

    spoken = counts * compute.prior_tilt
    torch.testing.assert_close(logits.softmax(0), spoken / spoken.sum(), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(
    ("loss", "option", "rule", "value"),
    [
        (loss, option, rule, value)
        for loss, option, rule, values in RANGES
        for value in [*values, float("nan"), float("inf")]
    ],
)
def test_an_option_outside_its_range_is_refused(loss, option, rule, value):
    with pytest.raises(ValueError, match=rf"^{option} must be in {rule}; got {value}$"):
        loss(COUNTS, **{option: value})


# Cross-entropy


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_smoothing_spreads_its_share_of_the_target_evenly_over_all_classes(logits, labels, label_smoothing):
    logs = logits.log_softmax(1)
    right, mean = logs[torch.arange(7), labels], logs.mean(1)

    loss = cross_entropy(COUNTS, label_smoothing=label_smoothing)(logits, labels)

    torch.testing.assert_close(loss, -((1 - label_smoothing) * right + label_smoothing * mean).mean())


def test_nothing_is_smoothed_by_default(logits, labels):
    assert torch.equal(cross_entropy(COUNTS)(logits, labels), plain(logits, labels))


# Focal


@pytest.mark.parametrize("gamma", [0, 0.0])
def test_focal_loss_with_gamma_zero_is_the_cross_entropy(logits, labels, gamma):
    torch.testing.assert_close(focal(COUNTS, gamma=gamma)(logits, labels), plain(logits, labels))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_is_the_papers(logits, labels, gamma):
    right = logits.softmax(1)[torch.arange(7), labels]

    loss = focal(COUNTS, gamma=gamma)(logits, labels)

    torch.testing.assert_close(loss, (-((1 - right) ** gamma) * right.log()).mean())


def test_a_wafer_counts_less_the_better_it_is_classified(labels):
    called = functional.one_hot(labels, 9).float()

    shares = [focal(COUNTS, gamma=2.0)(by * called, labels) / plain(by * called, labels) for by in (-2, 0, 2, 8)]

    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-3


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 5.0])
def test_focal_loss_has_a_slope_where_a_wafer_is_classified_perfectly(labels, gamma):
    logits = (200 * functional.one_hot(labels, 9).float()).requires_grad_()

    loss = focal(COUNTS, gamma=gamma)(logits, labels)
    loss.backward()

    assert loss == 0
    assert torch.isfinite(logits.grad).all()


# Logit adjustment


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.0])
def test_logit_adjustment_is_the_papers(logits, labels, tau):
    shares = COUNTS / COUNTS.sum()
    terms = [
        1 + sum((shares[k] / shares[y]) ** tau * (row[k] - row[y]).exp() for k in range(9) if k != y)
        for row, y in zip(logits.detach(), labels, strict=True)
    ]

    loss = logit_adjusted(COUNTS, tau=tau)(logits, labels)

    torch.testing.assert_close(loss.detach(), torch.stack(terms).log().mean())


@pytest.mark.parametrize("tau", [0, 0.0])
def test_logit_adjustment_with_tau_zero_is_the_cross_entropy(logits, labels, tau):
    loss = logit_adjusted(COUNTS, tau=tau)

    assert torch.equal(loss(logits, labels), plain(logits, labels))
    torch.testing.assert_close(loss.prior_tilt, torch.ones(9))


def test_logit_adjustment_is_one_by_default_and_then_speaks_of_equally_frequent_classes():
    spoken = COUNTS * logit_adjusted(COUNTS).prior_tilt

    torch.testing.assert_close(spoken / spoken.sum(), torch.full((9,), 1 / 9))


# Class balance


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999])
def test_class_balance_is_the_inverse_of_the_papers_effective_number(logits, labels, beta):
    effective = np.array([(1 - beta**n) / (1 - beta) for n in COUNTS.tolist()])
    weights = torch.from_numpy(1 / effective / (COUNTS.numpy() / effective).sum() * COUNTS.sum().item()).float()
    losses = functional.cross_entropy(logits, labels, reduction="none")

    loss = class_balanced(COUNTS, beta=beta)

    torch.testing.assert_close(loss.prior_tilt, weights)
    torch.testing.assert_close(loss(logits, labels), (weights[labels] * losses).mean())


@given(st.lists(st.integers(1, 30_000), min_size=2, max_size=9), st.floats(0, 0.9999))
def test_class_balance_makes_of_the_natural_shares_what_drawing_by_effective_number_draws(counts, beta):
    drawn = effective_number(np.array(counts), beta=beta).start

    spoken = np.array(counts) * class_balanced(torch.tensor(counts), beta=beta).prior_tilt.double().numpy()

    np.testing.assert_allclose(spoken / spoken.sum(), drawn, rtol=1e-5)


def test_class_balance_with_beta_zero_is_the_cross_entropy(logits, labels):
    loss = class_balanced(COUNTS, beta=0.0)

    torch.testing.assert_close(loss(logits, labels), plain(logits, labels))
    torch.testing.assert_close(loss.prior_tilt, torch.ones(9))
