"""Write a study's page anew, or put several side by side: python -m search.report STUDY [STUDY ...]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import DONE, exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(prog="python -m search.report", description=__doc__)
    parser.add_argument(
        "study", nargs="+", help="a study's folder, or its name below --results; several are put side by side"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="page of several studies (default: RESULTS/comparison-A-B.html)")
    given = parser.parse_args(arguments)
    if given.out and len(given.study) == 1:
        parser.error("--out: is for several studies; the page of one is its report.html")
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    # Torch takes seconds to import: neither --help nor Ctrl-C should wait for it.
    from search.study.finding import find_study
    from search.views.comparison import default_name, write_comparison
    from search.views.report import write_report
    from search.views.terminal import open_console

    folders = [find_study(asked, results=given.results) for asked in given.study]
    if len(folders) > 1:
        print(write_comparison(folders, open_console(), out=given.out or given.results / default_name(folders)))
    else:
        write_report(folders[0])
        print(folders[0].report)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
