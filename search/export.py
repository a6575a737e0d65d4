"""Ship a final model: python -m search.export STUDY writes ONNX, torch.export, a sidecar and a model card."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import ConfigError, exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(prog="python -m search.export", description=__doc__)
    parser.add_argument("model", help="a study whose final model is to be shipped, or a model.pt")
    parser.add_argument("--out", type=Path, help="folder for the files (default: beside the model)")
    parser.add_argument("--data", type=Path, help="wafers to check on (default: the study's validation part)")
    parser.add_argument(
        "--check", type=int, default=1000, metavar="N", help="wafers to check on (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    if given.check < 1:
        raise ConfigError(f"--check: must be at least 1; got {given.check}")
    # Torch takes seconds to import: neither --help nor Ctrl-C should wait for it.
    from search.final.exporting import ExportRequest, export
    from search.final.model_file import find_model
    from search.views.terminal import open_console

    model, study = find_model(given.model, results=given.results)
    request = ExportRequest(
        model=model,
        out=given.out or model.parent,
        study=study,
        results=given.results,
        data=given.data,
        n_checked=given.check,
    )
    return export(request, open_console())


if __name__ == "__main__":
    sys.exit(main())
