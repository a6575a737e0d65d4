"""Predictions as files: written piece by piece, whole or not at all; and what they say of lots and classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.files import replaced_atomically
from search.errors import ConfigError
from search.trial.decision import NONE

_SUFFIXES = (".csv", ".parquet")
_EXAMPLES = 5


def lots_beside(out: Path) -> Path:
    """Name the file of lots that belongs to a file of predictions."""
    return out.with_name(f"{out.stem}.lots.csv")


def check_out(out: Path, *, inputs: Sequence[Path]) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Args:
        out: Where the predictions are to go; the lots go beside it.
        inputs: Files that must not be written over.

    Raises:
        ConfigError: If its kind is unknown, its folder missing, or it is one of the inputs.
    """
    if out.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--out {out}: must end in {' or '.join(_SUFFIXES)}")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"--out {out}: {out.resolve().parent} is no folder")
    for written in (out, lots_beside(out)):
        if written.resolve() in [path.resolve() for path in inputs]:
            raise ConfigError(f"--out {out}: would write over {written}, which is read; give another name")
        if written.is_dir():
            raise ConfigError(f"--out {out}: {written} is a folder; give another name")


class PredictionFile:
    """Takes rows piece by piece; a context manager. An error leaves the file as it was before.

    Args:
        path: `.csv` or `.parquet`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._replaced = replaced_atomically(path)
        self._writer: Any = None

    def __enter__(self) -> Self:
        self._partial = self._replaced.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as full:  # the footer may be what a disk does not take
            self._replaced.__exit__(type(full), full, full.__traceback__)
        else:
            self._replaced.__exit__(kind, error, trace)

    def add(self, rows: pd.DataFrame) -> None:
        """Append rows; they all have the same columns."""
        if self._path.suffix.lower() == ".csv":
            is_first = not self._partial.exists() or not self._partial.stat().st_size
            rows.to_csv(self._partial, mode="a", header=is_first, index=False, float_format="%.6g")
            return
        table = pa.Table.from_pandas(rows, preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._partial, table.schema, compression="zstd")
        self._writer.write_table(table)


@dataclass(kw_only=True)
class Summary:
    """What all predictions together say.

    Attributes:
        classes: Names of the K classes.
        n: Wafers, those with a problem among them.
        n_unsure: Calls that the model is not sure of.
        n_seen: Wafers that the model has learned from, or was chosen by.
        counts: Wafers called each class.
        problems: Wafers with each problem; what was found instead of what must hold makes no other problem.
        examples: Of each problem, the first wafers that have it.
        left_out: What else of the source was left out, by reason.
        lots: Wafers of each lot, called each class.
        unsure: Of each lot, the calls that the model is not sure of.
    """

    classes: tuple[str, ...]
    n: int = 0
    n_unsure: int = 0
    n_seen: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    lots: dict[str, Counter[str]] = field(default_factory=dict)
    unsure: Counter[str] = field(default_factory=Counter)

    def add(self, rows: pd.DataFrame) -> None:
        """Count some rows."""
        self.n += len(rows)
        self.n_unsure += int(rows["unsure"].fillna(False).sum())
        self.n_seen += int(rows["seen"].fillna(False).sum())
        called = rows[rows["class"].notna()]
        self.counts.update(called["class"].tolist())
        for lot, found in called.groupby("lot")["class"]:
            self.lots.setdefault(str(lot), Counter()).update(found.tolist())
        self.unsure.update(rows.loc[rows["unsure"].fillna(False), "lot"].tolist())
        struck = rows.loc[rows["problem"].notna(), ["wafer", "name", "problem"]]
        for row, name, problem in struck.itertuples(index=False):
            kind = problem.partition("; got ")[0]
            self.problems[kind] += 1
            examples = self.examples.setdefault(kind, [])
            if len(examples) < _EXAMPLES:
                examples.append(str(row) if pd.isna(name) else f"{row} {name}")

    def by_lot(self) -> pd.DataFrame:
        """Tabulate the lots, those with the largest share of defects first."""
        rows = []
        for lot, counts in self.lots.items():
            n = sum(counts.values())
            row: dict[str, Any] = {"lot": lot, "wafers": n}
            if NONE in self.classes:
                row["defect_share"] = 1 - counts[NONE] / n
            row |= {"unsure": self.unsure[lot], **{name: counts[name] for name in self.classes}}
            rows.append(row)
        table = pd.DataFrame(rows)
        by = ["defect_share", "wafers"] if "defect_share" in table else ["wafers"]
        return (
            table.sort_values([*by, "lot"], ascending=[False] * len(by) + [True], ignore_index=True) if rows else table
        )

    def lines(self) -> Sequence[str]:
        """Say it in words."""
        total = sum(self.counts.values())
        listed = ", ".join(f"{name} {self.counts[name]:,}" for name in self.classes if self.counts[name])
        told = [f"{self.n:,} wafers, {total:,} called: {listed or 'none'}"]
        if self.n_unsure:
            told.append(f"unsure of {self.n_unsure:,} ({self.n_unsure / total:.1%}): look at these by eye")
        if self.n_seen:
            told.append(f"{self.n_seen:,} were in the model's training or validation: of these it knows too much")
        for problem, n in self.problems.most_common():
            rows = ", ".join(map(str, self.examples[problem]))
            told.append(f"{n:,} not called: {problem} (wafer {rows}{', …' if n > len(self.examples[problem]) else ''})")
        told += [f"{n:,} left out: {reason}" for reason, n in self.left_out.items()]
        return told
