"""A whole prediction: from a model and a source to a file of calls, a file of lots, and pictures if asked for."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from data_pipeline.files import write_atomically
from search.errors import DONE, ConfigError
from search.final.explaining import Explained
from search.final.model_file import load_model
from search.final.predicting import call_wafers, read_shares
from search.final.prediction_files import PredictionFile, Summary, check_out, lots_beside
from search.trial.memory import keep_freed_memory
from search.views.progress import show_progress
from search.views.terminal import say

_SHOWN_LOTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """What the user asks for.

    Attributes:
        model: A model file.
        source: Whatever `prepare` reads.
        out: `.csv` or `.parquet`.
        shares: "CLASS=SHARE" of each class among the wafers; () if they are as in training.
        explain: Folder for pictures of what a call comes from; None draws none.
        n_explained: How many, see `Explained`.
        threads: CPU threads; None takes all cores.
    """

    model: Path
    source: Path
    out: Path
    shares: tuple[str, ...] = ()
    explain: Path | None = None
    n_explained: int = 20
    threads: int | None = None


def predict(request: PredictRequest, console: Console) -> int:
    """Call every wafer of the source.

    Raises:
        ConfigError: If the model or an option cannot be used, or no wafer of the source can be called.
        DataError: If the source cannot be read, or the output not be written.
    """
    check_out(request.out, inputs=[request.model, request.source])
    if request.explain and request.explain.exists() and not request.explain.is_dir():
        raise ConfigError(f"--explain {request.explain}: is no folder; give another name")
    trained = load_model(request.model)
    shares = read_shares(request.shares, trained.classes)
    torch.set_num_threads(request.threads or _count_cores())
    keep_freed_memory()  # or a forward pass of 512 wafers takes 1.7 times as long on the CPU
    marks = ["SYNTHETIC: trained on made-up wafers"] if trained.is_synthetic else []
    marks += [trained.leaky] if trained.leaky else []
    for mark in marks:
        say(console, f"WARNING: {mark}")
    summary, explained = Summary(classes=trained.classes), Explained(n=request.n_explained if request.explain else 0)
    # Encoding multiplies small matrices: BLAS with a thread for each core takes up to five times the processor time.
    one_thread = threadpool_limits(limits=1, user_api="blas")
    with one_thread, PredictionFile(request.out) as file, show_progress(console, "calling wafers") as step:
        for called in call_wafers(trained, request.source, shares=shares):
            file.add(called.rows)
            summary.add(called.rows)
            summary.left_out.update(called.piece.left_out)
            explained.add(called)
            step(len(called.rows), called.piece.n_all)
        if not summary.counts:
            raise ConfigError("\n".join([f"{request.source}: no wafer can be called", *summary.lines()]))
    lots = summary.by_lot()
    lots_path = lots_beside(request.out)
    write_atomically(lots_path, lots.to_csv(index=False, float_format="%.6g").encode())
    for line in summary.lines():
        say(console, line)
    _show_lots(lots.head(_SHOWN_LOTS).to_dict("records"), len(lots), console)
    say(console, f"predictions  {request.out}")
    say(console, f"lots         {lots_path}")
    if request.explain:
        n_drawn = explained.draw(trained, request.explain)
        say(console, f"pictures     {request.explain} ({n_drawn})")
    return DONE


def _count_cores() -> int:
    """Count the cores that this process may use; only Linux tells, so that elsewhere it is all of them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _show_lots(rows: Iterable[Mapping[Any, Any]], n_lots: int, console: Console) -> None:
    """Show the first lots of the table: those with the largest share of defects."""
    shown = list(rows)
    if not shown:
        return
    names = [name for name in shown[0] if name in ("lot", "wafers", "defect_share", "unsure")]
    table = Table(*names, title=f"lots, the first {len(shown)} of {n_lots:,}", title_justify="left")
    for row in shown:
        cells = [f"{row[name]:.1%}" if isinstance(row[name], float) else str(row[name]) for name in names]
        table.add_row(*cells)
    console.print(table)
