import numpy as np
import pytest

from search.final.epoch_log import epoch_line
from search.testing import report_judgement
from search.trial.evaluation import Judgement
from search.trial.metrics import score_confusion


def report(epoch, *confusion):
    scores = score_confusion(np.array(confusion))
    return report_judgement(
        epoch, Judgement(loss=0.5, confusion=confusion, scores=scores), train_seconds=1, val_seconds=1
    )


@pytest.mark.parametrize(("metric", "mark"), [("balanced_macro_f1", "+"), ("accuracy", "-")])
def test_an_epoch_is_marked_where_it_is_the_best_at_what_is_wanted(metric, mark):
    lazy, keen = report(1, (970, 0), (29, 1)), report(2, (900, 70), (0, 30))

    line = epoch_line([lazy, keen], epochs=9, elapsed=2, timed=2, value=lambda scores: getattr(scores, metric))

    assert line.startswith(f"epoch   2/9 {mark}  ")


def test_of_equal_epochs_the_first_is_marked_as_it_is_the_one_that_is_kept():
    same = [report(number, (970, 0), (29, 1)) for number in (1, 2)]

    line = epoch_line(same, epochs=9, elapsed=2, timed=2, value=lambda scores: scores.accuracy)

    assert line.startswith("epoch   2/9 -  ")
