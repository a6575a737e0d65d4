"""Train the best of a search again, to learn which is best and what it is worth: python -m search.confirm STUDY."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and confirm."""
    parser = argparse.ArgumentParser(
        prog="python -m search.confirm",
        description=__doc__,
        epilog="Interrupted, the same command goes on. More seeds or folds add to those that are there. Without "
        "options the `confirm` section of the study's space counts, or 3 candidates with 3 seeds.",
    )
    parser.add_argument("study", help="a study's folder, or its name below --results")
    parser.add_argument("--top", type=int, help="so many of the best that ran to their end")
    parser.add_argument("--seeds", type=int, help="fresh seeds for each, on the search's own validation lots")
    parser.add_argument("--folds", type=int, help="folds of the training and validation lots; these then decide")
    parser.add_argument("--data", help="where the study's wafers lie now")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    parser.add_argument("--address", help="a running Ray cluster: auto or HOST:PORT (default: start Ray here)")
    parser.add_argument("--no-dashboard", action="store_true", help="start Ray without its dashboard")
    parser.add_argument("--quiet", action="store_true", help="say only what goes wrong, and the end")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    # Torch and Ray take seconds to import: neither --help nor Ctrl-C should wait for them.
    from search.execution.confirming import ConfirmRequest, confirm
    from search.study.finding import find_study
    from search.views.terminal import open_console

    request = ConfirmRequest(
        study=find_study(given.study, results=given.results),
        results=given.results,
        overrides={key: getattr(given, key) for key in ("top", "seeds", "folds") if getattr(given, key) is not None},
        data=given.data,
        address=given.address,
        dashboard=not given.no_dashboard,
        detail="quiet" if given.quiet else "normal",
    )
    return confirm(request, open_console())


if __name__ == "__main__":
    sys.exit(main())
