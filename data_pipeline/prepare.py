"""Any source of wafer maps -> one Parquet file and a quality report: `python -m data_pipeline.prepare LSWMD.pkl`."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from data_pipeline.cleaning import clean_wafers, list_dropped
from data_pipeline.errors import DataError, exit_code
from data_pipeline.files import write_atomically
from data_pipeline.quality import Quality, format_number, measure_quality
from data_pipeline.quality_page import draw_page
from data_pipeline.sources.reading import read_source
from data_pipeline.wafer_files import PREPARED, check_parquet_name, write_parquet
from data_pipeline.wafer_set import WaferSet


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 2 the user can fix it, 130 interrupted."""
    options = _parse(arguments)
    return exit_code(lambda: _prepare(options.source, options.out, options.label, keep_unknown=options.keep_labels))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.prepare",
        description="Read wafer maps in any form, check them, and write one Parquet file and a quality report.",
        epilog="Sources: LSWMD.pkl, WM811K.pkl or its zip, .npz (ours or MixedWM38's), .parquet, .csv with a row per "
        "die, a folder of .png or .npy maps (labelled: in class-named folders). See docs/data.md.",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a file or a folder")
    parser.add_argument("--out", type=Path, default=PREPARED, metavar="FILE", help=f"default {PREPARED}")
    parser.add_argument(
        "--label", action="append", default=[], metavar="AS_WRITTEN=CLASS",
        help="what an unknown label means; an empty CLASS makes its wafers unlabelled; may be repeated",
    )  # fmt: skip
    parser.add_argument("--keep-labels", action="store_true", help="make every unknown label a class of its own")
    return parser.parse_args(arguments)


def _read_renames(given: list[str]) -> Mapping[str, str | None]:
    for text in given:
        if "=" not in text:
            raise DataError(f"--label {text}: must be AS_WRITTEN=CLASS")
    return {text.partition("=")[0]: text.partition("=")[2] or None for text in given}


def _prepare(source: Path, out: Path, renames: list[str], *, keep_unknown: bool) -> None:
    rename = _read_renames(renames)
    check_parquet_name(out)
    console = Console(highlight=False)
    with _Steps(console) as steps:
        raw = read_source(source, progress=steps.begin("reading"))
        steps.begin("checking")
        cleaned = clean_wafers(raw, rename=rename, keep_unknown=keep_unknown)
        del raw  # gigabytes, where wafers were dropped
        steps.begin("measuring")
        quality = measure_quality(cleaned.wafers)
        page = out.with_suffix(".report.html")
        # Drawn before anything is written: Ctrl-C should leave both files as they were.
        drawn = draw_page(cleaned.wafers, quality, cleaned.dropped).encode()
        write_parquet(cleaned.wafers, out, progress=steps.begin("writing"))
        write_atomically(page, drawn)
    _tell(console, cleaned.wafers, quality, cleaned.dropped)
    console.print(f"wafers  {out.resolve()}\nreport  {page.resolve()}", soft_wrap=True)
    console.print(f"next    {_next(cleaned.wafers, out)}", soft_wrap=True)


def _next(wafers: WaferSet, out: Path) -> str:
    if not (wafers.labels >= 0).any():
        return f"python -m search.predict STUDY {out}"
    return "python -m search.run --space balanced_cnn.yaml" + ("" if out == PREPARED else f" --data {out}")


class _Steps:
    """A progress bar on a terminal, nothing elsewhere; a context manager."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def __enter__(self) -> "_Steps":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, name: str) -> "_Step":
        return _Step(self._progress, self._progress.add_task(name, total=None))


class _Step:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


def _tell(console: Console, wafers: WaferSet, quality: Quality, dropped: Mapping[str, int]) -> None:
    low, middle, high = quality.wafers_per_lot
    n_lots, n_sizes = len(wafers.lot_names), len(quality.sizes)
    console.print(
        f"{wafers.source}: {len(wafers):,} wafers in {n_lots:,} lot{'s' * (n_lots != 1)} ({low} to {high} a lot, "
        f"median {middle:g}), {n_sizes:,} size{'s' * (n_sizes != 1)} of map",
        soft_wrap=True,
    )
    if dropped:
        console.print(list_dropped(dropped), soft_wrap=True)
    names = ["class", *map(str, quality.classes.columns)]
    table = Table(*names, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # eighty columns hold a million
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in zip(quality.classes.index, quality.classes.values, strict=True):
        table.add_row(str(name), *(format_number(value) for value in row))
    console.print(table)
    found = quality.duplicates
    across = "" if found.n_across_official is None else f", {found.n_across_official:,} in both official parts"
    console.print(
        f"{found.n_maps:,} maps stand there more than once ({found.n_wafers:,} wafers{across}), "
        f"{found.n_conflicting:,} of them with contradicting labels",
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
