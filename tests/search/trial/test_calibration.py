import math

import numpy as np
import pytest
import torch

from search.trial.calibration import (
    LEAST,
    calibration_error,
    correct_shares,
    escape_curve,
    estimate_shares,
    fit_rule,
    fit_temperature,
    reliability,
    weigh,
)
from search.trial.decision import DecisionRule
from search.trial.intervals import balanced_macro_f1, macro_f1

CLASSES = ("Center", "none", "Scratch")


def draw(n, *, sharpness=1.0, shares=(0.3, 0.5, 0.2), seed=0, noise=1.2):
    """Wafers whose true probabilities are known: logits are these, sharpened."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, size=n, p=shares)
    seen = np.eye(3)[labels] * 2 + random.normal(0, noise, (n, 3))
    # Bayes: equal variances, so that the log odds are linear in what is seen.
    exact = 2 * seen / noise**2 + np.log(shares)
    return torch.from_numpy(exact * sharpness).float(), torch.from_numpy(labels), exact


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_what_makes_a_model_too_sure(sharpness):
    logits, labels, _ = draw(20_000, sharpness=sharpness)

    assert fit_temperature(logits, labels) == pytest.approx(sharpness, rel=0.05)


def test_a_temperature_makes_probabilities_mean_what_they_say():
    logits, labels, _ = draw(20_000, sharpness=3.0)
    before, after = (
        DecisionRule(temperature=t).probabilities(logits).double().numpy()
        for t in (1.0, fit_temperature(logits, labels))
    )

    assert calibration_error(before, labels.numpy()) > 0.05
    assert calibration_error(after, labels.numpy()) < 0.015


def test_a_model_of_equal_shares_is_calibrated_for_equal_shares():
    """It is right to be unsure of what is rare here: that the wafers are mostly of one class says nothing of it."""
    _, labels, exact = draw(30_000, shares=(0.05, 0.9, 0.05))
    equal = torch.from_numpy(exact - np.log([0.05, 0.9, 0.05])).float() * 2  # twice too sure
    shares = np.full(3, 1 / 3)
    weights = weigh(labels.numpy(), shares)

    rule = fit_rule(equal, labels, classes=CLASSES, groups=np.arange(30_000) // 25, fitted_on="some", shares=shares)

    assert rule.temperature == pytest.approx(2.0, rel=0.07)
    probabilities = rule.probabilities(equal).double().numpy()
    assert calibration_error(probabilities, labels.numpy(), weights=weights) < 0.025


def test_weights_give_classes_their_shares():
    weights = weigh(np.array([0, 0, 0, 1]), np.array([0.5, 0.25, 0.25]))

    assert weights.sum() == pytest.approx(4)
    assert weights[3] / weights[:3].sum() == pytest.approx(0.5)


def test_thresholds_raise_the_score_that_is_asked_for():
    logits, labels, _ = draw(8000, shares=(0.1, 0.8, 0.1))
    options = {"classes": CLASSES, "groups": np.arange(8000) // 25, "fitted_on": "some"}
    equal = logits - torch.tensor([0.1, 0.8, 0.1]).log()  # decides for equal shares

    for_mix, for_equal = (fit_rule(equal, labels, statistic=s, **options) for s in (macro_f1, balanced_macro_f1))

    assert for_mix.shifts[1] > max(for_mix.shifts[0], for_mix.shifts[2])
    assert for_equal.shifts == () or max(map(abs, for_equal.shifts)) < for_mix.shifts[1]


def test_bins_hold_all_wafers_in_order():
    logits, labels, _ = draw(1000)

    bins = reliability(logits.softmax(1).double().numpy(), labels.numpy())

    assert sum(each.n for each in bins) == 1000
    assert [each.sure for each in bins] == sorted(each.sure for each in bins)
    assert len(bins) == 15


def test_wafers_without_weight_are_in_no_bin():
    chance = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.75, 0.25]])

    bins = reliability(chance, np.zeros(5, np.int64), weights=np.array([1.0, 1.0, 1.0, 1.0, 0.0]))

    assert [each.sure for each in bins] == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert sum(each.n for each in bins) == 4


def test_the_model_is_sure_where_99_percent_are_right():
    logits, labels, _ = draw(30_000)

    rule = fit_rule(logits, labels, classes=CLASSES, groups=np.arange(30_000) // 25, fitted_on="some")

    probabilities = rule.probabilities(logits)
    called = rule.call(probabilities)
    sure = probabilities[torch.arange(30_000), called] >= rule.sure_from
    assert (called == labels)[sure].float().mean() >= 0.99
    assert (called == labels)[~sure].float().mean() < 0.99
    assert 0.1 < sure.float().mean() < 1


def test_no_more_defective_wafers_escape_than_allowed():
    logits, labels, _ = draw(30_000)

    rule = fit_rule(logits, labels, classes=CLASSES, groups=np.arange(30_000) // 25, fitted_on="some", escape=0.02)

    chance = 1 - rule.probabilities(logits)[:, 1].numpy().astype(np.float64)
    escapes = (chance < rule.defect_from)[labels.numpy() != 1].mean()
    assert 0.015 < escapes <= 0.0201


def test_thresholds_are_kept_where_they_help_and_only_there():
    logits, labels, _ = draw(8000, shares=(0.3, 0.5, 0.2))
    spoiled = logits + torch.tensor([0.0, 0.0, -3.0])  # as if the third class were much rarer

    fair, unfair = (
        fit_rule(each, labels, classes=CLASSES, groups=np.arange(8000) // 25, fitted_on="some")
        for each in (logits, spoiled)
    )

    assert unfair.shifts[2] - max(unfair.shifts[:2]) > 0.5
    assert fair.shifts == () or max(map(abs, fair.shifts)) < 0.6


def test_without_a_class_none_no_defect_begins_anywhere():
    logits, labels, _ = draw(500)

    rule = fit_rule(logits, labels, classes=("a", "b", "c"), groups=np.arange(500), fitted_on="some")

    assert rule.defect_from is None
    assert rule.sure_from is not None
    assert (rule.fitted_on, rule.n_fitted) == ("some", 500)


def test_of_few_wafers_nothing_is_fitted():
    logits, labels, _ = draw(LEAST - 1)

    rule = fit_rule(logits, labels, classes=CLASSES, groups=np.arange(LEAST - 1), fitted_on="val")

    assert (rule.temperature, rule.shifts, rule.sure_from, rule.n_fitted) == (1.0, (), None, 0)
    assert "fewer than" in rule.fitted_on


def test_a_class_that_does_not_occur_does_no_harm():
    logits, labels, _ = draw(1000)
    kept = labels != 0

    rule = fit_rule(logits[kept], labels[kept], classes=CLASSES, groups=np.arange(int(kept.sum())), fitted_on="some")

    assert math.isfinite(rule.temperature)
    assert rule.defect_from is not None


def test_a_rule_that_was_not_fitted_calls_the_largest_logit():
    logits, _, _ = draw(100)

    assert torch.equal(DecisionRule().call(DecisionRule().probabilities(logits)), logits.argmax(1))


def test_other_class_shares_are_those_of_bayes():
    _, _, exact = draw(2000, shares=(0.3, 0.5, 0.2))
    probabilities = torch.from_numpy(exact).softmax(1).numpy()
    wanted = np.array([0.1, 0.1, 0.8])

    found = correct_shares(probabilities, assumed=np.array([0.3, 0.5, 0.2]), wanted=wanted)

    expected = torch.from_numpy(exact - np.log([0.3, 0.5, 0.2]) + np.log(wanted)).softmax(1).numpy()
    assert found == pytest.approx(expected)


def test_the_shares_of_unlabelled_wafers_are_recovered():
    assumed = (0.3, 0.5, 0.2)
    _, labels, exact = draw(40_000, shares=(0.05, 0.9, 0.05))
    seen_elsewhere = torch.from_numpy(exact - np.log([0.05, 0.9, 0.05]) + np.log(assumed)).softmax(1).numpy()

    found = estimate_shares(seen_elsewhere, assumed=np.array(assumed))

    assert found == pytest.approx(np.bincount(labels.numpy()) / 40_000, abs=0.01)


def test_escapes_rise_and_false_alarms_fall_with_the_threshold():
    random = np.random.default_rng(0)
    chance, is_defective = random.random(500), random.random(500) < 0.3

    curve = escape_curve(chance, is_defective)

    assert (np.diff(curve.escapes) >= 0).all() and (np.diff(curve.alarms) <= 0).all()
    assert (curve.escapes[0], curve.alarms[0]) == (0, 1)
    middle = curve.thresholds[200]
    assert curve.escapes[200] == pytest.approx((chance < middle)[is_defective].mean())
    assert curve.alarms[200] == pytest.approx((chance >= middle)[~is_defective].mean())
