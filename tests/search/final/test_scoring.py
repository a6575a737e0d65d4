import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from search.final.scoring import score_logits, scored_table, scored_to_row, sentences, tell_other_shares
from search.trial.decision import DecisionRule

CLASSES = ("Center", "none", "Scratch")
SHARES = np.array([0.3, 0.68, 0.02])


@pytest.fixture
def drawn():
    random = np.random.default_rng(0)
    labels = random.choice(3, size=1000, p=(0.3, 0.68, 0.02))
    logits = 3 * np.eye(3)[labels] + random.normal(0, 1.5, (1000, 3))
    return torch.from_numpy(logits).float(), torch.from_numpy(labels), np.arange(1000) // 25


def score(drawn, *, lots=None, **rule):
    logits, labels, groups = drawn
    groups = groups if lots is None else lots
    return score_logits(logits, labels, rule=DecisionRule(**rule), classes=CLASSES, lots=groups, shares=SHARES)


def test_without_a_rule_the_largest_logit_is_called(drawn):
    found = score(drawn)

    assert np.array_equal(found.called, drawn[0].argmax(1).numpy())
    assert found.judgement == found.plain
    assert (found.defects, found.sure) == (None, None)


def test_a_rule_is_followed(drawn):
    found = score(drawn, shifts=(0.0, 0.0, 2.0), n_fitted=10)

    assert (found.called == 2).sum() > (drawn[0].argmax(1) == 2).sum()
    expected = f1_score(drawn[1], found.called, average="macro")
    assert found.judgement.scores.macro_f1 == pytest.approx(expected)
    assert any(
        sentence.startswith("Class thresholds: macro-F1")
        for sentence in sentences(found, DecisionRule(shifts=(1.0,) * 3))
    )


def test_recall_and_precision_have_wilsons_intervals(drawn):
    found = score(drawn)

    hits = ((found.called == 0) & (found.labels == 0)).sum()
    for share, n in ((found.recall[0], (found.labels == 0).sum()), (found.precision[0], (found.called == 0).sum())):
        expected = binomtest(int(hits), int(n)).proportion_ci(method="wilson")
        assert (share.low, share.high) == pytest.approx((expected.low, expected.high))


def test_means_have_intervals_over_lots_where_there_are_enough(drawn):
    by_lot, by_wafer = score(drawn), score(drawn, lots=np.arange(1000) // 200)

    assert (by_lot.over, by_wafer.over) == ("lots", "wafers")
    for found in (by_lot, by_wafer):
        assert found.headlines["macro_f1"].low < found.headlines["macro_f1"].value < found.headlines["macro_f1"].high
        assert found.headlines["macro_f1"].value == pytest.approx(found.judgement.scores.macro_f1)


def test_escapes_and_false_alarms_are_counted_at_the_operating_point(drawn):
    found = score(drawn, defect_from=0.3)

    chance = 1 - drawn[0].softmax(1)[:, 1].numpy()
    is_defective = drawn[1].numpy() != 1
    assert found.defects.n_escaped == (chance < 0.3)[is_defective].sum()
    assert found.defects.n_alarms == (chance >= 0.3)[~is_defective].sum()
    assert found.defects.n_defective + found.defects.n_fine == 1000


def test_those_who_are_sure_are_counted(drawn):
    found = score(drawn, sure_from=0.9)

    certain = drawn[0].softmax(1).max(1).values.numpy() >= 0.9
    assert found.sure == (certain.sum(), (found.called == found.labels)[certain].sum())


def test_the_temperature_changes_probabilities_and_no_call(drawn):
    hot, cold = score(drawn, temperature=3.0), score(drawn)

    assert np.array_equal(hot.called, cold.called)
    assert hot.probabilities.max() < cold.probabilities.max()
    assert hot.calibration[0] == cold.calibration[0] != hot.calibration[1]


def test_a_class_without_wafers_is_written_as_nothing():
    logits = torch.eye(3)[torch.tensor([0, 1] * 60)] * 4
    found = score_logits(
        logits, torch.tensor([0, 1] * 60), rule=DecisionRule(), classes=CLASSES, lots=np.arange(120) // 6, shares=SHARES
    )

    row = scored_to_row(found, CLASSES, split="test")

    assert math.isnan(found.f1[2].value)
    assert row["test_f1_interval"]["Scratch"] == [None, None]
    assert row["test_recall"]["Scratch"] is None


def test_of_few_wafers_the_table_counts_instead_of_dividing(drawn):
    found = score(drawn)

    recalls = list(scored_table(found, CLASSES, title="x").columns[2].cells)

    n, right = int((found.labels == 2).sum()), int(((found.labels == 2) & (found.called == 2)).sum())
    assert n < 30
    assert f"{right} of {n}" in recalls
    assert any("[" in cell for cell in recalls)


def test_probabilities_can_be_read_for_other_shares(drawn):
    found = score(drawn)

    same = tell_other_shares(found, assumed=SHARES, wanted=SHARES, whose="here")
    other = tell_other_shares(found, assumed=SHARES, wanted=np.full(3, 1 / 3), whose="here")

    assert f"macro-F1 {100 * found.plain.scores.macro_f1:.2f}" in same
    assert same != other
    assert f"accuracy {100 * found.plain.scores.accuracy:.2f}" not in other
