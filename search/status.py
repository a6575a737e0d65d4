"""Say what is going on in a study: python -m search.status STUDY. From any terminal or host that sees its folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import DONE, exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and look."""
    parser = argparse.ArgumentParser(prog="python -m search.status", description=__doc__)
    parser.add_argument("study", help="a study's folder, or its name below --results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    parser.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object, with --watch one per look")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    # Torch takes seconds to import: neither --help nor Ctrl-C should wait for it.
    from search.study.finding import find_study
    from search.views.status import StudyReader, show_status, watch_study
    from search.views.terminal import open_console

    reader = StudyReader(find_study(given.study, results=given.results))
    if given.watch:
        return watch_study(reader, open_console(), as_json=given.json)
    show_status(reader.read(), open_console(), as_json=given.json)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
