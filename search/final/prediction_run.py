"""A whole prediction: from a model and a source to a file of calls, a file of lots, and pictures if asked for."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from data_pipeline.augment import to_channels
from data_pipeline.encode import encode_maps
from data_pipeline.files import write_atomically
from data_pipeline.wafer_set import make_wafer_set
from search.errors import DONE, ConfigError
from search.final.model_file import TrainedModel, load_model
from search.final.predicting import Called, call_wafers, read_shares
from search.final.prediction_files import PredictionFile, Summary, check_out
from search.final.saliency import attribute, draw_saliency
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
        n_explained: How many, the least sure first.
        threads: CPU threads; None takes all cores.
    """

    model: Path
    source: Path
    out: Path
    shares: tuple[str, ...] = ()
    explain: Path | None = None
    n_explained: int = 20
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kept:
    """A wafer that is to be explained."""

    row: int
    cells: NDArray[np.uint8]
    called: int
    probability: float


def predict(request: PredictRequest, console: Console) -> int:
    """Call every wafer of the source.

    Raises:
        ConfigError: If the model cannot be used, or the output not be written.
        DataError: If the source cannot be read, or no wafer of it be called.
    """
    check_out(request.out)
    trained = load_model(request.model)
    shares = read_shares(request.shares, trained.classes)
    torch.set_num_threads(request.threads or len(os.sched_getaffinity(0)))
    marks = [*(["SYNTHETIC: trained on made-up wafers"] if trained.is_synthetic else [])]
    marks += [trained.leaky] if trained.leaky else []
    for mark in marks:
        say(console, f"WARNING: {mark}")
    summary, kept = Summary(classes=trained.classes), list[_Kept]()
    with PredictionFile(request.out) as file:
        for called in _show_progress(call_wafers(trained, request.source, shares=shares), console):
            file.add(called.rows)
            summary.add(called.rows)
            if request.explain:
                kept = _keep_least_sure([*kept, *_candidates(called)], request.n_explained)
        if not summary.counts:
            raise ConfigError("\n".join([f"{request.source}: no wafer can be called", *summary.lines()]))
    lots = summary.by_lot()
    lots_path = request.out.with_name(f"{request.out.stem}.lots.csv")
    write_atomically(lots_path, lots.to_csv(index=False, float_format="%.6g").encode())
    for line in summary.lines():
        say(console, line)
    _show_lots(lots.head(_SHOWN_LOTS).to_dict("records"), len(lots), console)
    say(console, f"predictions  {request.out}")
    say(console, f"lots         {lots_path}")
    if request.explain:
        _explain(trained, kept, request.explain)
        say(console, f"pictures     {request.explain} ({len(kept)}, the least sure first)")
    return DONE


def _show_progress(pieces: Iterable[Called], console: Console) -> Iterator[Called]:
    """Count wafers on a terminal; nothing elsewhere."""
    columns = (SpinnerColumn(), TextColumn("calling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for piece in pieces:
            yield piece
            progress.advance(task, len(piece.rows))


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


def _candidates(called: Called) -> Iterator[_Kept]:
    wafers = called.piece.wafers
    if wafers is None:
        return
    chance = called.probabilities[np.arange(len(called.called)), called.called]
    for i in range(len(wafers)):
        yield _Kept(
            row=int(called.piece.rows[i]), cells=wafers.map(i), called=int(called.called[i]), probability=chance[i]
        )


def _keep_least_sure(kept: list[_Kept], n: int) -> list[_Kept]:
    least = sorted(kept, key=lambda each: (each.probability, each.row))[:n]
    # Copied, or each would hold all maps of its piece in memory.
    return [_Kept(row=e.row, cells=e.cells.copy(), called=e.called, probability=e.probability) for e in least]


def _explain(trained: TrainedModel, kept: list[_Kept], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    device = next(trained.model.parameters()).device
    for each in kept:
        wafers = make_wafer_set([each.cells], [None], [""], source="", classes=trained.classes)
        maps = torch.from_numpy(encode_maps(wafers, np.arange(1), picture=trained.picture)).to(device)
        found = attribute(trained.model.eval(), to_channels(maps)[0], each.called)
        name = trained.classes[each.called]
        titles = (f"wafer {each.row}: {name}, {each.probability:.1%}", f"speaks for {name} (blue) or against it")
        png = draw_saliency(each.cells, found.cpu().numpy(), titles=titles)
        write_atomically(folder / f"wafer-{each.row}-{name}.png", png)
