"""Score a study's final model on the locked test part: python -m search.evaluate STUDY. Every look is written down."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from search.errors import exit_code
from search.final.locked_test import EvaluateRequest, score_locked_test
from search.study.records import RESULTS, find_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and evaluate."""
    parser = argparse.ArgumentParser(prog="python -m search.evaluate", description=__doc__)
    parser.add_argument("study", help="a study's folder, or its name below --results")
    parser.add_argument("--data", help="where the study's wafers lie now")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    given = parser.parse_args(arguments)

    def run() -> int:
        folder = find_study(given.study, results=given.results)
        return score_locked_test(EvaluateRequest(study=folder, results=given.results, data=given.data), Console())

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
