"""Search: python -m search.run --space balanced_cnn.yaml. The same command again goes on, more trials extend it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from search.errors import exit_code
from search.execution.search import Request, search
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and search."""
    parser = argparse.ArgumentParser(prog="python -m search.run", description=__doc__)
    parser.add_argument("--space", required=True, help="a YAML file, or the name of one in configs/")
    parser.add_argument("--data", help="wafers: .npz or .parquet (default: what the space says)")
    parser.add_argument("--trials", type=int, help="trials to judge in all")
    parser.add_argument("--time", help="time over all attempts: 90s, 20m, 2h, 1h30m")
    parser.add_argument("--study", help="name of the study (default: the space's)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    parser.add_argument(
        "--warm-start", nargs="+", default=[], metavar="STUDY", help="earlier studies to learn from, at the beginning"
    )
    parser.add_argument("--address", help="a running Ray cluster: auto or HOST:PORT (default: start Ray here)")
    parser.add_argument("--no-dashboard", action="store_true", help="start Ray without its dashboard")
    given = parser.parse_args(arguments)
    overrides = {"data.wafers": given.data, "search.trials": given.trials, "search.time": given.time}
    request = Request(
        space=given.space,
        overrides={key: value for key, value in overrides.items() if value is not None},
        study=given.study,
        results=given.results,
        warm_start=tuple(given.warm_start),
        address=given.address,
        dashboard=not given.no_dashboard,
    )
    return exit_code(lambda: search(request, Console()))


if __name__ == "__main__":
    sys.exit(main())
