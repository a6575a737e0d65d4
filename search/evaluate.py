"""Score a study's final model on the locked test part: python -m search.evaluate STUDY. Every look is written down.

With --data and other labelled wafers than the study's, it is scored on those instead, and the test part stays closed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(prog="python -m search.evaluate", description=__doc__)
    parser.add_argument("study", help="a study's folder, or its name below --results")
    parser.add_argument(
        "--data", help="other labelled wafers to score on, .npz or .parquet; or where the study's lie now"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    # Torch takes seconds to import: neither --help nor Ctrl-C should wait for it.
    from search.final.locked_test import EvaluateRequest, evaluate
    from search.study.finding import find_study
    from search.views.terminal import open_console

    folder = find_study(given.study, results=given.results)
    return evaluate(EvaluateRequest(study=folder, results=given.results, data=given.data), open_console())


if __name__ == "__main__":
    sys.exit(main())
