"""Numbers, intervals, configurations and colours of scores, as the page writes them."""

import math
from collections.abc import Iterable

from search.space.space import Branch, Choice, Config, Constant, Node, Range, Space
from search.study.rows import TrialRecord
from search.trial.intervals import Interval
from search.trial.params import TrialParams
from search.views.words import number

NOTHING, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
# What a configuration is called by beside its architecture, if it was searched.
_ROLES = {"sampling": "sampling", "loss": "loss", "augment": "augmentation"}


def percent(share: float, digits: int = 2) -> str:
    """Write a share in percent, without the sign.

    Example:
        >>> percent(0.94963)
        '94.96'
    """
    return NOTHING if math.isnan(share) else f"{100 * share:.{digits}f}"


def span(interval: Interval, digits: int = 1) -> str:
    """Write the bounds of an interval in percent.

    Example:
        >>> span(Interval(0.9421, 0.95, 0.9579))
        '94.2 to 95.8'
    """
    return f"{percent(interval.low, digits)} to {percent(interval.high, digits)}"


def points(share: float, digits: int = 2) -> str:
    """Write a difference in percentage points, with its sign.

    Example:
        >>> points(0.0086)
        '+0.86'
    """
    return f"{100 * share:+.{digits}f}".replace("-", _MINUS)


def enumerate_words(words: Iterable[str]) -> str:
    """Join words as a sentence does.

    Example:
        >>> enumerate_words(["a", "b", "c"])
        'a, b and c'
    """
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def title_of(record: TrialRecord, space: Space) -> str:
    """Name a configuration by its architecture and, of what was searched, its strategy, loss and augmentation."""
    searched, config = space.parameters(), record.config
    parts = [config.get("model", TrialParams.model_fields["model"].default.name)]
    parts += [f"{config[axis]} {role}" for axis, role in _ROLES.items() if axis in searched and axis in config]
    return ", ".join(map(str, parts))


def settings_of(config: Config, space: Space) -> list[tuple[str, str]]:
    """Return the other searched values of a configuration: short name and value."""
    searched = space.parameters()
    return [
        (short(name), number(value))
        for name, value in config.items()
        if name in searched and name not in ("model", *_ROLES)
    ]


def differing(one: Config, other: Config, space: Space) -> list[str]:
    """Write what another configuration has instead of this one's searched values, by short name."""
    before, after = (
        {name: number(config[name]) for name in space.parameters() if name in config} for config in (one, other)
    )
    return [f"{short(name)} {value}" for name, value in after.items() if before.get(name) != value]


def short(name: str) -> str:
    """Shorten a parameter's full name to what it is called in its branch.

    Example:
        >>> short("model.wafer_cnn.batch_size")
        'batch size'
    """
    return name.rpartition(".")[2].replace("_", " ")


def values_in_words(node: Node) -> str:
    """Write what a parameter may be.

    Example:
        >>> values_in_words(Range(1e-4, 1e-2, log=True))
        '0.0001 to 0.01, logarithmic'
    """
    match node:
        case Range(low, high, log, step):
            steps = f", in steps of {number(step)}" if step else ""
            return f"{number(low)} to {number(high)}{', logarithmic' * log}{steps}"
        case Choice(values):
            return ", ".join(map(number, values))
        case Branch(options):
            return ", ".join(options)
        case Constant(value):
            return number(value)


def heat(share: float) -> str:
    """Return the background for a score: vermillion below, white around 0.85, blue towards 1; text stays dark."""
    if math.isnan(share):
        return "#f4f6f8"
    low, middle, high = (232, 150, 102), (255, 255, 255), (138, 190, 224)
    at = (share - 0.85) / 0.15 if share >= 0.85 else (0.85 - share) / 0.45
    end = high if share >= 0.85 else low
    mixed = [round(a + (b - a) * min(1.0, at)) for a, b in zip(middle, end, strict=True)]
    return "#" + "".join(f"{each:02x}" for each in mixed)
