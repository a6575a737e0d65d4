"""Train the best configuration for good: python -m search.retrain STUDY. Interrupted, the same command goes on."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import ConfigError, exit_code
from search.study.records import RESULTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m search.retrain", description=__doc__)
    parser.add_argument("study", nargs="?", help="a study's folder, or its name below --results")
    parser.add_argument("--config", type=Path, help="a best.yaml to use instead of a study's; needs --out")
    parser.add_argument(
        "--on", choices=("train", "train+val"), default="train", help="wafers to learn from (default: train)"
    )
    parser.add_argument("--teacher", type=Path, metavar="MODEL.pt", help="a model to learn from beside the labels")
    parser.add_argument(
        "--teacher-weight", type=float, default=0.7, metavar="W", help="of it in the loss (default: %(default)s)"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="values other than those of best.yaml; needs --out"
    )
    parser.add_argument("--data", help="where the study's wafers lie now")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[], help="instead of the trial's; several are trained and averaged"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="average N models, from the trial's seed and the next")
    parser.add_argument(
        "--epoch", choices=("last", "best"), default="last", help="whose weights are taken; best: on validation"
    )
    parser.add_argument(
        "--test-time", choices=("single", "symmetries"), help="average eight views of each wafer, or look at one"
    )
    parser.add_argument("--threads", type=int, help="CPU threads; other than the trial's, the last digits may differ")
    parser.add_argument("--out", type=Path, help="folder for the model (default: final/ in the study)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of all studies (default: %(default)s)")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    _check(given)
    # Torch takes seconds to import: neither --help nor Ctrl-C should wait for it.
    from search.final.retraining import RetrainRequest, retrain
    from search.study.finding import find_study
    from search.views.terminal import open_console

    folder = find_study(given.study, results=given.results) if given.study else None
    best = folder.best if folder else given.config
    if not best.is_file():
        raise ConfigError(f"{best}: no such file; a search writes it once a trial has run to its end")
    request = RetrainRequest(
        best=best,
        out=given.out or folder.final,  # type: ignore[union-attr]
        results=given.results,
        on=given.on,
        data=given.data,
        seeds=tuple(given.seed),
        n_seeds=given.seeds,
        epoch=given.epoch,
        test_time=given.test_time,
        threads=given.threads,
        teacher=given.teacher,
        teacher_weight=given.teacher_weight,
        changes=dict(map(_read_change, given.set)),
    )
    return retrain(request, open_console())


def _check(given: argparse.Namespace) -> None:
    if (given.study is None) == (given.config is None) or (given.config and not given.out):
        raise ConfigError("give either a study, or --config best.yaml with --out FOLDER")
    if given.threads is not None and given.threads < 1:
        raise ConfigError(f"--threads: must be at least 1; got {given.threads}")
    if given.seeds is not None and (given.seed or given.seeds < 1):
        raise ConfigError(f"--seeds: must be at least 1, and stand without --seed; got {given.seeds}")
    for seed in given.seed:
        if not 0 <= seed < 2**31:
            raise ConfigError(f"--seed: must be in [0, 2147483648); got {seed}")
    if len(set(given.seed)) < len(given.seed):
        raise ConfigError(f"--seed: must be different ones; got {' '.join(map(str, given.seed))}")
    if not 0 < given.teacher_weight <= 1:
        raise ConfigError(f"--teacher-weight: must be in (0, 1]; got {given.teacher_weight:g}")
    if given.set and not given.out:
        raise ConfigError("--set: is another configuration than the study's best; give it a folder by --out")


def _read_change(text: str) -> tuple[str, bool | int | float | str]:
    from search.space.strict_yaml import read_scalar

    key, sign, value = text.partition("=")
    found = read_scalar(value)
    if not sign or found is None:
        raise ConfigError(f"--set {text}: must be KEY=VALUE, as in model.wafer_cnn.width=16")
    return key, found


if __name__ == "__main__":
    sys.exit(main())
