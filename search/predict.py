"""Call the class of every wafer of a file or folder: python -m search.predict STUDY|MODEL.pt WAFERS."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import ConfigError, exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and predict."""
    parser = argparse.ArgumentParser(prog="python -m search.predict", description=__doc__)
    parser.add_argument("model", help="a model.pt, or a study whose final model is to be used")
    parser.add_argument("wafers", type=Path, help="whatever data_pipeline.prepare reads; labels are not needed")
    parser.add_argument("--out", type=Path, help="a .csv or .parquet file (default: WAFERS.predictions.csv, here)")
    parser.add_argument(
        "--shares",
        nargs="+",
        default=[],
        metavar="CLASS=SHARE",
        help="of all classes among these wafers, if not as in training",
    )
    parser.add_argument("--explain", type=Path, metavar="DIR", help="draw where the least sure calls come from")
    parser.add_argument("--explain-max", type=int, default=20, metavar="N", help="so many (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    for name in ("threads", "explain_max"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: must be at least 1; got {getattr(given, name)}")
    # Torch takes seconds to import: neither --help nor Ctrl-C should wait for it.
    from search.final.model_file import find_model
    from search.final.prediction_run import PredictRequest, predict
    from search.views.terminal import open_console

    request = PredictRequest(
        model=find_model(given.model, results=given.results)[0],
        source=given.wafers,
        out=given.out or Path(f"{_bare_name(given.wafers) or 'wafers'}.predictions.csv"),
        shares=tuple(given.shares),
        explain=given.explain,
        n_explained=given.explain_max,
        threads=given.threads,
    )
    return predict(request, open_console())


def _bare_name(wafers: Path) -> str:
    """Name a file without what tells its kind: batch.2026-05 of batch.2026-05.csv.gz; a folder as it is."""
    return wafers.name if wafers.is_dir() else Path(wafers.name.removesuffix(".gz")).stem


if __name__ == "__main__":
    sys.exit(main())
