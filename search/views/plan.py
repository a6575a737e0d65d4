"""The plan of a search, as people read it: its space, its rungs, and what it takes of time, memory and disk."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from search.space.config import ConfirmConfig, StudyConfig
from search.space.space import Branch, Choice, Constant, Node, Range, Space
from search.study.outlook import Forbidden, Outlook
from search.study.probe import Probe
from search.trial.memory import byte_size
from search.views.words import count, duration, number

# Of longer lists so many lines are shown.
_MOST_LINES = 8


def parameter_table(space: Space) -> Table:
    """Lay out what is searched: full name, values, and how many there are."""
    table = _make_table("parameter", "values", "how many")
    for name, node in space.parameters().items():
        n = _count(node)
        table.add_row(Text(name), Text(_values(node)), Text("endless" if n is None else f"{n:,}"))
    return table


def constants(space: Space) -> str:
    """Write in one line what the space fixes; what it does not mention has its default."""
    fixed = {name: node for name, node in space.walk() if name not in space.parameters()}
    parts = [f"{name} {_values(node)}" for name, node in fixed.items()]
    return f"constant: {', '.join(parts) or 'nothing'}; all else as docs/configuration.md says"


def size_lines(config: StudyConfig, forbidden: Forbidden) -> Iterator[str]:
    """Write how many configurations there are, and how many the rules leave."""
    size = config.space.size()
    count = "endless, because a range has no steps" if size is None else f"{size:,} configurations"
    if forbidden.is_exact:
        left = (
            f"{forbidden.n_forbidden:,} are forbidden ({_percent(forbidden.share)}), {forbidden.n_allowed:,} are left"
        )
    else:
        low, high = forbidden.interval
        left = (
            f"{_percent(forbidden.share)} forbidden (of {forbidden.n:,} draws; 95 % sure: "
            f"{_percent(low)} to {_percent(high)})"
        )
    if not config.forbid and not forbidden.n_forbidden:
        left = "nothing is forbidden"
    yield f"size: {count}; {left}"
    whys = {rule.condition.text: rule.why for rule in config.forbid}
    rules = dict.fromkeys(whys, 0) | dict(forbidden.by_rule)
    for rule, n in sorted(rules.items(), key=lambda item: -item[1]):
        why = f" ({whys[rule]})" if rule in whys else ""
        yield f"  {_percent(n / forbidden.n)} by {rule}{why}"
    if forbidden.n_allowed is not None and forbidden.n_allowed < config.search.trials:
        yield f"  fewer than {config.search.trials:,} trials: the search ends when all have been tried"


def rung_table(outlook: Outlook) -> Table:
    """Lay out how many trials of each length are expected to get how far."""
    table = _make_table(
        "schedule", "trials", "as far as each rung", "to their end", left=("schedule", "as far as each rung")
    )
    for schedule in outlook.schedules[:_MOST_LINES]:
        rungs = zip(schedule.rungs, schedule.reaching, strict=True)
        reaching = ", ".join(f"{n:.1f} to epoch {rung}" for rung, n in rungs) or "no rung: never stopped"
        table.add_row(count(schedule.length, "epoch"), f"{schedule.trials:.1f}", reaching, f"{schedule.finishing:.1f}")
    more = len(outlook.schedules) - _MOST_LINES
    if more > 0:
        table.add_row(f"and {more} longer", "", "", "")
    return table


def epochs_line(config: StudyConfig, outlook: Outlook) -> str:
    """Write how much will be trained, and on which assumption that rests."""
    drawn = f"{outlook.epochs * config.data.epoch_samples:,.0f} wafers drawn"
    if config.search.stop is None:
        return f"epochs: about {outlook.epochs:,.0f} nominal epochs in {outlook.trials:,} trials, none stopped; {drawn}"
    whole = sum(schedule.trials * schedule.length for schedule in outlook.schedules)
    low, high = outlook.epochs_range
    return (
        f"epochs: about {outlook.epochs:,.0f} nominal epochs, {_percent(outlook.epochs / whole)} of what "
        f"{outlook.trials:,} trials have; {drawn} ({low:,.0f} to {high:,.0f} epochs in nine of ten of "
        f"{outlook.n_searches} simulated searches, in which trials come in random order of merit and keep it)"
    )


def time_lines(
    config: StudyConfig, outlook: Outlook, probes: Sequence[Probe | Exception], *, slots: int, gpus: float
) -> Iterator[str]:
    """Write how long an epoch takes, how long the search, and how much of it fits into its limits.

    Args:
        config: Of the study.
        outlook: What is to be trained.
        probes: What was measured, and what kept others from being measured.
        slots: Trials side by side.
        gpus: Of each trial.
    """
    for error in (probed for probed in probes if isinstance(probed, Exception)):
        yield f"WARNING: a configuration could not be probed ({type(error).__name__}: {error})"
    good = [probed for probed in probes if isinstance(probed, Probe)]
    if not good:
        yield "time: unknown, because no configuration could be probed"
        return
    seconds = [probed.seconds for probed in good]
    mean, low, high = sum(seconds) / len(seconds), min(seconds), max(seconds)
    span, several = _seconds(mean), ""
    if len(good) > 1:
        span = f"{_seconds(low)} to {_seconds(high)}, mean {_seconds(mean)}"
        extremes = " to ".join(duration(outlook.makespan * end) for end in (low, high))
        several = f" ({extremes} if all were like the fastest or the slowest)"
    names = ", ".join(dict.fromkeys(probed.params.model.name for probed in good))
    how = "" if all(probed.is_whole for probed in good) else ", scaled up from parts of it"
    yield (
        f"probe: a nominal epoch takes {span} ({len(good)} of the configurations: {names}; one at a time{how}, "
        "validation included); others differ, and side by side they slow each other down"
    )
    missing = [str(name) for name in config.space.values_of("model") if name not in names.split(", ")]
    if missing:
        yield f"  not probed, for want of time or for what is said above: {', '.join(missing)}"
    total = outlook.makespan * mean
    yield f"time: about {duration(total)} for {outlook.trials:,} trials, {slots} side by side{several}"
    if config.confirm:
        yield _confirm_line(config.confirm, outlook, mean, slots=slots)
    limits = {"search.time": config.search.time}
    if config.search.gpu_hours is not None and gpus:
        limits["search.gpu_hours"] = config.search.gpu_hours * 3600 / (gpus * slots)
    for name, limit in limits.items():
        if limit is not None and total > limit:
            fitting = outlook.judged_within(limit / mean)
            yield f"  about {fitting:,.0f} of {outlook.trials:,} trials fit into {name} ({duration(limit)})"
        elif limit is not None:
            yield f"  they fit into {name} ({duration(limit)})"


def _confirm_line(confirm: ConfirmConfig, outlook: Outlook, seconds: float, *, slots: int) -> str:
    """Write how long confirming takes, if the best have schedules of mean length."""
    finishing = [(schedule.length, schedule.finishing) for schedule in outlook.schedules]
    length = sum(length * n for length, n in finishing) / max(1e-9, sum(n for _, n in finishing))
    runs = confirm.top * (confirm.seeds + confirm.folds)
    total = -(-runs // slots) * length * seconds
    what = f"{count(confirm.top, 'configuration')}, {count(confirm.seeds, 'seed')}, {count(confirm.folds, 'fold')}"
    return (
        f"then confirming: {runs} trainings to their end ({what}), about {duration(total)} more if they are of mean "
        f"length ({length:.0f} epochs)"
    )


def disk_lines(
    *, checkpoint: int, slots: int, row: int, epochs: float, trials: int, config_bytes: int, free: int
) -> Iterator[str]:
    """Write what the study's folder will hold, and a warning where the disk does not.

    Args:
        checkpoint: Bytes of the largest one.
        slots: Trials side by side; the best one's checkpoint is kept besides.
        row: Bytes of an epoch in trials.jsonl.
        epochs: Expected, of all trials together.
        trials: That are judged.
        config_bytes: Of one configuration as JSON.
        free: Bytes that the disk has left.
    """
    kept, rows = (slots + 1) * checkpoint, round(row * epochs)
    # As measured on studies of 5 to 16 parameters: the journal holds each configuration in several forms.
    journal = round(142 * epochs + (10 * config_bytes + 500) * trials)
    needed = kept + rows + journal
    yield (
        f"disk: about {_size(needed)} ({slots + 1} checkpoints of up to {_size(checkpoint)}, trials.jsonl "
        f"{_size(rows)}, journal {_size(journal)}); {_size(free)} free"
    )
    if needed > free:
        yield f"WARNING: the disk lacks {_size(needed - free)}; make room, or give another folder by --results"


def _make_table(*columns: str, left: Sequence[str] = ("parameter", "values")) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if column in left else "right", no_wrap=i == 0, overflow="fold")
    return table


def _values(node: Node) -> str:
    match node:
        case Constant(value):
            return number(value)
        case Choice(values):
            return ", ".join(map(number, values))
        case Branch(options):
            return ", ".join(options)
        case Range(low, high, log, step):
            return f"{number(low)} to {number(high)}{', log' * log}{f', in steps of {number(step)}' if step else ''}"


def _count(node: Node) -> int | None:
    match node:
        case Range():
            return node.n_values
        case Choice(values):
            return len(values)
        case Branch(options):
            return len(options)
    return 1


def _percent(share: float) -> str:
    """Write a share with enough digits.

    Example:
        >>> _percent(0.25), _percent(0.0004), _percent(0.0)
        ('25 %', '0.04 %', '0 %')
    """
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _size(size: int) -> str:
    return byte_size(size) if size >= 2**20 / 10 else f"{size / 2**10:.0f} KiB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
