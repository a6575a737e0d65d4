"""Search: python -m search.run --space balanced_cnn.yaml. The same command again goes on, more trials extend it.

With --plan it says what it would try and what that takes; with --check, only whether all is good. Neither searches.
"""

import argparse
import sys
from collections.abc import Sequence

from search.errors import exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and search."""
    parser = argparse.ArgumentParser(prog="python -m search.run", description=__doc__)
    parser.add_argument("--space", required=True, help="a YAML file, or the name of one in configs/")
    parser.add_argument("--data", help="wafers: .npz or .parquet (default: what the space says)")
    parser.add_argument("--trials", type=int, help="trials to judge in all")
    parser.add_argument("--time", help="time over all attempts: 90s, 20m, 2h, 1h30m")
    parser.add_argument("--study", help="name of the study (default: the space's)")
    parser.add_argument(
        "--results",
        default=str(RESULTS),
        help="folder of all studies (default: %(default)s); or a store, such as s3://bucket/results, that gets a copy",
    )
    parser.add_argument(
        "--warm-start", nargs="+", default=[], metavar="STUDY", help="earlier studies to learn from, at the beginning"
    )
    parser.add_argument("--address", help="a running Ray cluster: auto or HOST:PORT (default: start Ray here)")
    parser.add_argument("--no-dashboard", action="store_true", help="start Ray without its dashboard")
    parser.add_argument("--tensorboard", action="store_true", help="write event files to tensorboard/ in its folder")
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument(
        "--quiet", action="store_const", const="quiet", dest="detail", help="say only what goes wrong, and the end"
    )
    talk.add_argument(
        "--verbose",
        action="store_const",
        const="verbose",
        dest="detail",
        help="say every report, a line each, and where it trains",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--check", action="store_true", help="check the space and the wafers, write nothing; exit code 0 or 2"
    )
    instead.add_argument(
        "--plan", action="store_true", help="say what it will try and take, after a probe of ten seconds; do not search"
    )
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    # Torch and Ray take seconds to import: neither --help nor Ctrl-C should wait for them.
    from search.execution.rehearsal import check, plan
    from search.execution.search import Request, search
    from search.views.terminal import open_console

    overrides = {"data.wafers": given.data, "search.trials": given.trials, "search.time": given.time}
    request = Request(
        space=given.space,
        overrides={key: value for key, value in overrides.items() if value is not None},
        study=given.study,
        results=given.results,
        warm_start=tuple(given.warm_start),
        address=given.address,
        dashboard=not given.no_dashboard,
        tensorboard=given.tensorboard,
        detail=given.detail or "normal",
    )
    command = check if given.check else plan if given.plan else search
    return command(request, open_console())


if __name__ == "__main__":
    sys.exit(main())
