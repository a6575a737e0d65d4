"""Write a synthetic data set: `python -m data_pipeline.synthesize --wafers 6000 --out data/synthetic.parquet`."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from data_pipeline.errors import exit_code
from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import check_parquet_name, write_parquet


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 2 the user can fix it, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.synthesize",
        description="Write a Parquet file of synthetic wafer maps like WM-811K's.",
    )
    parser.add_argument("--wafers", type=int, required=True, metavar="N", help="how many, at least 100")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to, a .parquet file")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other wafers; default 0")
    parser.add_argument(
        "--duplicates", type=float, default=0.0, metavar="SHARE",
        help="of the N that are maps entered again under new lots, in [0, 0.5]; WM-811K has 0.02 to 0.03; default 0",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    return exit_code(lambda: _synthesize(options.wafers, options.out, seed=options.seed, duplicates=options.duplicates))


def _synthesize(n: int, out: Path, *, seed: int, duplicates: float) -> None:
    check_parquet_name(out)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        drawing = bar.add_task("drawing", total=n)
        wafers = make_wafers(
            n,
            seed=seed,
            duplicates=duplicates,
            progress=lambda done, total: bar.update(drawing, completed=done, total=total),
        )
        writing = bar.add_task("writing", total=len(wafers))
        write_parquet(wafers, out, progress=lambda done, total: bar.update(writing, completed=done, total=total))
    for name, count in zip(wafers.classes, wafers.counts().tolist(), strict=True):
        print(f"{name:<10} {count:>9,}")
    print(f"{out}: {len(wafers):,} synthetic wafers in {len(wafers.lot_names):,} lots")


if __name__ == "__main__":
    sys.exit(main())
