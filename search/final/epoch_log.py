"""The line that users know from every training: loss and accuracy of an epoch, how long it took and when all ends."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from search.trial.metrics import Scores
from search.trial.training import EpochReport
from search.views.words import duration


def is_best_so_far(reports: Sequence[EpochReport], value: Callable[[Scores], float]) -> bool:
    """Whether the last report is better on validation than all before it; each must have been judged there."""
    *earlier, last = (value(report.val.scores) for report in reports if report.val)
    return all(last > other for other in earlier)


def epoch_line(
    reports: Sequence[EpochReport], *, epochs: int, elapsed: float, timed: int, value: Callable[[Scores], float]
) -> str:
    """Write one line of the epoch log; a + marks the best on validation so far, a - any other.

    Args:
        reports: All so far.
        epochs: How many there will be.
        elapsed: Seconds that the last `timed` epochs took.
        timed: See `elapsed`.
        value: What the best is best at.
    """
    last = reports[-1]
    left = elapsed / timed * (epochs - last.epoch)
    end = datetime.now() + timedelta(seconds=left)
    parts = [
        f"epoch {last.epoch:>3}/{epochs}",
        f"train loss {last.train_loss:.4f} acc {100 * last.train_accuracy:5.2f} %",
    ]
    if last.val:
        parts[0] += " +" if is_best_so_far(reports, value) else " -"
        scores = last.val.scores
        parts.append(
            f"val loss {last.val.loss:.4f} acc {100 * scores.accuracy:5.2f} % macro-F1 {100 * scores.macro_f1:5.2f} "
            f"balanced {100 * scores.balanced_macro_f1:5.2f}"
        )
    parts.append(f"{last.train_seconds + last.val_seconds:.1f} s/epoch")
    parts.append(f"{duration(elapsed)} elapsed, ends {end:%H:%M:%S}")
    return "  ".join(parts)
