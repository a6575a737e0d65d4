"""The counts of all runs, as a table for the terminal and for a page, and the log that keeps them."""

import json
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from benchmarks.chaos.checks import KINDS
from benchmarks.chaos.play import Result

_COLUMNS = (
    "fault",
    "runs",
    "hit",
    "attempts",
    "exit codes",
    "trials lost",
    "duplicates",
    "zombies",
    "wrong winners",
    "other",
    "retrained",
)


def read_log(path: Path | None) -> list[Result]:
    """Read the results of earlier sessions; a torn last line is left out."""
    if path is None or not path.exists():
        return []
    *whole, _ = path.read_text("utf-8").split("\n")
    return [Result(**json.loads(line)) for line in whole]


def append_log(path: Path | None, result: Result) -> None:
    """Keep a result."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def count(results: list[Result]) -> list[list[str]]:
    """Count by fault, and all together in the last row; of violations, the runs that show them."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.fault].append(result)
    return [_row(name, group) for name, group in groups.items()] + [_row("all", results)]


def _row(name: str, results: list[Result]) -> list[str]:
    codes = Counter("hang" if code is None else str(code) for result in results for code in result.codes)
    kinds = Counter(kind for result in results for kind in {line.split(":")[0] for line in result.violations})
    mean = sum(len(result.codes) for result in results) / max(1, len(results))
    said = ", ".join(f"{code} ({n})" for code, n in sorted(codes.items(), key=lambda item: -item[1]))
    hit, retrained = sum(result.has_hit for result in results), sum(result.retrained for result in results)
    counts = [str(kinds[kind]) for kind in KINDS]
    return [name, str(len(results)), str(hit), f"{mean:.2f}", said, *counts, str(retrained)]


def to_rich(results: list[Result]) -> Table:
    """Make the table for a terminal."""
    table = Table(title="chaos", show_lines=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("fault", "exit codes") else "right")
    rows = count(results)
    for row in rows:
        table.add_row(*row, end_section=row is rows[-2] if len(rows) > 1 else False)
    return table


def to_markdown(results: list[Result]) -> str:
    """Make the page: the table, and every violation with how to repeat it."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(row)} |" for row in count(results)]
    hurt = [result for result in results if result.violations]
    lines += ["", f"{len(hurt)} of {len(results)} runs show violations.", ""]
    lines += [f"- {describe(result)}: {'; '.join(result.violations)}" for result in hurt]
    return "\n".join(lines) + "\n"


def describe(result: Result) -> str:
    """Say what a run was, so that it can be repeated."""
    return f"`--only {result.fault} --only-run {result.seed}` ({result.what}, {result.moment})"
