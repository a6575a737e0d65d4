"""How many trials side by side train most samples per second: the packing table.

    python -m benchmarks.packing [--space balanced_cnn.yaml] [--data FILE] [--repeats 3]

On GPUs these are the trials per GPU that `resources.gpus: auto` tries, each with its share of the memory; without one,
all cores as one trial with many threads, as many with one thread each, and in between. Every process trains the same
configuration of a model at once, by the code that calibrates a search; printed are medians of the repeats with their
range, and each against the first line of its model.
"""

import argparse
import statistics
from pathlib import Path

from rich.console import Console
from rich.progress import track

from search.execution.calibration import Rigs, Tried, count_side_by_side
from search.execution.cluster import start_ray, stop_ray
from search.execution.packing import Node, Slice
from search.space.config_file import find_space, load_study_config
from search.space.space import Config, model_of
from search.study.data import open_data, trial_data
from search.study.probe import choose_probes


def ways(node: Node, cpus: int) -> list[tuple[int, Slice]]:
    """List the ways to share a GPU, or the cores of a machine without one: trials side by side, and what each gets."""
    if node.gpus:
        return [(n, Slice(cpus, gpus)) for n, gpus in count_side_by_side(node, cpus)]
    threads = [t for t in (1, 2, 4, 8, 16, 32) if t <= node.cpus]
    return [(int(node.cpus // t), Slice(t, 0.0)) for t in reversed(threads)]


def show(tried: list[list[Tried]], console: Console) -> None:
    """Print a line per way."""
    first: dict[str, float] = {}
    for repeats in tried:
        rates = [each.rate for each in repeats]
        middle, each = statistics.median(rates), repeats[0]
        ratio = middle / first.setdefault(each.model, middle) if middle else 0.0
        console.print(
            f"{each.model:16} {each.n:2} x {each.each!s:18} {middle:9,.0f} samples/s "
            f"({min(rates):,.0f}-{max(rates):,.0f}, n = {len(rates)})  {ratio:.2f}  {each.reason}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="balanced_cnn.yaml")
    parser.add_argument("--data")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    overrides = {"data.wafers": given.data} if given.data else {}
    config = load_study_config(find_space(given.space), overrides=overrides)
    dataset = open_data(config.data, results=Path("results"))
    console = Console(highlight=False)
    packing = start_ray(None, config.resources, config.space.models, dashboard=False).packing
    node = packing.nodes[0]
    try:
        with Rigs(node, config, trial_data(dataset, config.data), dataset.wafers.classes) as rigs:
            flats: list[Config] = list(choose_probes(config, n=len(config.space.models)))
            todo = [(flat, *way) for flat in flats for way in ways(node, packing.slices[model_of(flat)].cpus)]
            runs = [[rigs.run(*each) for each in todo] for _ in track(range(given.repeats), "measuring")]
        console.print(f"{packing.device}; {dataset.wafers.source}, {config.data.image_size} px")
        show([list(column) for column in zip(*runs, strict=True)], console)
    finally:
        stop_ray()


if __name__ == "__main__":
    main()
