"""Write a synthetic data set: `python -m data_pipeline.synthesize --wafers 6000 --out data/synthetic.parquet`."""

import argparse
import sys
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.wafer_files import write_parquet
from data_pipeline.synthetic import make_wafers


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 2 the user can fix it."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.synthesize",
        description="Write a Parquet file of synthetic wafer maps like WM-811K's.",
    )
    parser.add_argument("--wafers", type=int, required=True, metavar="N", help="how many, at least 100")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to, a .parquet file")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, other wafers; default 0")
    options = parser.parse_args(arguments)
    try:
        _synthesize(options.wafers, options.out, seed=options.seed)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _synthesize(n: int, out: Path, *, seed: int) -> None:
    if out.suffix.lower() != ".parquet":
        raise DataError(f"{out}: must end in .parquet; got {out.suffix!r}")
    wafers = make_wafers(n, seed=seed)
    write_parquet(wafers, out)
    for name, count in zip(wafers.classes, wafers.counts().tolist(), strict=True):
        print(f"{name:<10} {count:>9,}")
    print(f"{out}: {len(wafers):,} synthetic wafers in {len(wafers.lot_names):,} lots")


if __name__ == "__main__":
    sys.exit(main())
