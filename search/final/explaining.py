"""Which wafers of a source are explained, and the pictures of where their calls come from."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.augment import to_channels
from data_pipeline.encode import encode_maps
from data_pipeline.files import write_atomically
from data_pipeline.wafer_set import make_wafer_set
from search.final.model_file import TrainedModel
from search.final.predicting import Called
from search.final.saliency import attribute, draw_saliency


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Wafer:
    """One that may be explained; `rank` is smaller for those that are looked at first."""

    rank: tuple[int, float, int]
    row: int
    cells: NDArray[np.uint8]
    called: int
    probability: float


@dataclass(kw_only=True)
class Explained:
    """The wafers most worth a look: those that are both unsure and defective, then either, then the least sure.

    Attributes:
        n: How many at most.
    """

    n: int
    _kept: list[_Wafer] = field(default_factory=list)

    def add(self, called: Called) -> None:
        """Consider the wafers of a piece; only the maps of those that are kept stay in memory."""
        wafers, rows = called.piece.wafers, called.rows[called.rows["class"].notna()]
        if not self.n or wafers is None:
            return
        marks = rows[["unsure", "defective"]].fillna(False).astype(int).sum(axis=1).to_numpy()
        chance = called.probabilities[np.arange(len(called.called)), called.called]
        for i in np.lexsort((called.piece.rows, chance, -marks))[: self.n].tolist():
            row = int(called.piece.rows[i])
            self._kept.append(
                _Wafer(
                    rank=(-int(marks[i]), float(chance[i]), row),
                    row=row,
                    cells=wafers.map(i).copy(),  # a view would hold all maps of its piece
                    called=int(called.called[i]),
                    probability=float(chance[i]),
                )
            )
        self._kept = sorted(self._kept, key=lambda wafer: wafer.rank)[: self.n]

    def draw(self, trained: TrainedModel, folder: Path) -> int:
        """Draw them, a picture each, called after the wafer's number and class; return how many."""
        folder.mkdir(parents=True, exist_ok=True)
        device = next(trained.model.parameters()).device
        for wafer in self._kept:
            maps = make_wafer_set([wafer.cells], [None], [""], source="", classes=trained.classes)
            picture = to_channels(torch.from_numpy(encode_maps(maps, np.arange(1), picture=trained.picture)).to(device))
            found = attribute(trained.model.eval(), picture[0], wafer.called)
            name = trained.classes[wafer.called]
            titles = (f"wafer {wafer.row}: {name}, {wafer.probability:.1%}", f"speaks for {name} (blue) or against it")
            png = draw_saliency(wafer.cells, found.cpu().numpy(), titles=titles)
            write_atomically(folder / f"wafer-{wafer.row}-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.png", png)
        return len(self._kept)
