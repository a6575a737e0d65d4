"""How fast maps of real sizes are encoded, from a data set repeated until it has enough of them.

    python -m benchmarks.encode --data FILE [--maps 250000] [--sizes 40 64] [--aspect stretched] [--encoding states]

Prints the median of three rounds in seconds and in maps per second; the rounds of the sizes alternate.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import get_args

import numpy as np

from data_pipeline.encode import Aspect, Encoding, Picture, encode_maps
from data_pipeline.wafer_files import load_wafers

_ROUNDS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="wafers, .npz or .parquet")
    parser.add_argument("--maps", type=int, default=250_000, help="how many (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 64], help="pixels per side (default: 40 64)")
    parser.add_argument("--aspect", choices=get_args(Aspect), default="stretched")
    parser.add_argument("--encoding", choices=get_args(Encoding), default="coverage")
    given = parser.parse_args()
    wafers = load_wafers(given.data)
    indices = np.arange(given.maps) % len(wafers)
    sides = np.maximum(wafers.heights, wafers.widths)
    print(
        f"{given.maps:,} maps, {len(wafers):,} different ones, longer side {sides.min()} to {sides.max()} dies, "
        f"median {np.median(sides):g}; {given.aspect}, {given.encoding}, numpy {np.__version__}"
    )

    seconds: dict[int, list[float]] = {size: [] for size in given.sizes}
    for _ in range(_ROUNDS):
        for size in given.sizes:
            picture = Picture(image_size=size, aspect=given.aspect, encoding=given.encoding)
            start = time.perf_counter()
            encode_maps(wafers, indices, picture=picture)
            seconds[size].append(time.perf_counter() - start)
    for size, values in seconds.items():
        median = statistics.median(values)
        print(
            f"  {size:>3} px  {median:>6.2f} s ({min(values):.2f} to {max(values):.2f}, n={_ROUNDS})  "
            f"{given.maps / median:>9,.0f} maps/s"
        )


if __name__ == "__main__":
    main()
