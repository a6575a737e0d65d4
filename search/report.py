"""Write a study's page anew from its records: python -m search.report STUDY."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import DONE, exit_code
from search.study.records import RESULTS, find_study
from search.views.page import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(prog="python -m search.report", description=__doc__)
    parser.add_argument("study", help="a study's folder, or its name below --results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    given = parser.parse_args(arguments)

    def run() -> int:
        folder = find_study(given.study, results=given.results)
        write_report(folder)
        print(folder.report)
        return DONE

    return exit_code(run)


if __name__ == "__main__":
    sys.exit(main())
