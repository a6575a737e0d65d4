"""Shipping a final model: ONNX and torch.export, the preprocessing inside, checked against PyTorch wafer by wafer."""

import importlib.util
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch.export import Dim

from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_files import load_wafers
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS, WaferSet
from search.errors import DONE, ConfigError
from search.final.deployed import Deployed
from search.final.model_card import write_model_card
from search.final.model_file import TrainedModel, load_model
from search.study.best import load_best
from search.study.data import check_same_data, open_data
from search.study.provenance import describe_device
from search.study.records import StudyFolder, fingerprint_file, write_atomically, write_json
from search.views.terminal import say
from search.views.words import count

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4
_BATCHES = (1, 256)
_LARGEST = 4096  # dies per side

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What the user asks for.

    Attributes:
        model: A model file.
        out: Folder for what is shipped.
        study: Whose final model it is; None for a model file alone.
        results: Folder of all studies; encoded maps are kept there.
        data: Wafers to check on; None takes the study's validation part, or synthetic ones.
        n_checked: So many of them, at least 1.
    """

    model: Path
    out: Path
    study: StudyFolder | None
    results: Path
    data: Path | None = None
    n_checked: int = 1000


def export(request: ExportRequest, console: Console) -> int:
    """Write model.onnx, model.pt2, model.json and model_card.md.

    Raises:
        ConfigError: If a package is missing, the model cannot be used, or a file says something else than the model.
        DataError: If the wafers to check on cannot be used.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"needs {', '.join(missing)}: pip install 'wafer-search[export]', or pip install {' '.join(missing)}"
        )
    trained = load_model(request.model)
    deployed = Deployed(trained).eval()
    say(
        console,
        f"exporting {request.model}: {trained.n_parameters:,} parameters, {count(len(trained.seeds), 'member')}",
    )
    with tempfile.TemporaryDirectory(prefix="wafer-export-") as scratch:
        files = {"model.pt2": Path(scratch) / "model.pt2", "model.onnx": Path(scratch) / "model.onnx"}
        _write_graphs(deployed, files)
        predictors = {name: _load(name, path) for name, path in files.items()}
        wafers, rows, what = _choose_wafers(request)
        parity = _compare(deployed, predictors, wafers, rows)
        for name, worst in parity.items():
            say(console, f"{name}: largest difference from PyTorch {worst:.1e} on {len(rows):,} {what}")
            if worst > _TOLERANCE:
                raise ConfigError(
                    f"{name}: differs by {worst:.1e} from PyTorch, more than {_TOLERANCE:g}; it is not kept"
                )
        speeds = _measure(_in_torch(deployed), predictors, wafers, rows)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        for name, path in files.items():
            write_atomically(request.out / name, path.read_bytes())
    sidecar = _describe(trained) | {"parity": {"wafers": what, "n": len(rows), "largest_difference": parity}}
    write_json(request.out / "model.json", sidecar)
    card = write_model_card(trained, request.study, sidecar, speeds, model=fingerprint_file(request.model))
    write_atomically(request.out / "model_card.md", card)
    console.print(_speed_table(speeds, sizes | {"PyTorch": request.model.stat().st_size}))
    for name in (*files, "model.json", "model_card.md"):
        say(console, str(request.out / name))
    return DONE


def _write_graphs(deployed: Deployed, files: Mapping[str, Path]) -> None:
    example = torch.zeros(3, 26, 30, dtype=torch.uint8)
    sides = {i: Dim(name, min=2, max=_LARGEST) for i, name in ((1, "height"), (2, "width"))}
    shapes = ({0: Dim("wafers", min=1, max=65_536), **sides},)
    with _quietly(), torch.no_grad():
        program = torch.export.export(deployed, (example,), dynamic_shapes=shapes)
        torch.export.save(program, files["model.pt2"])
        graph = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["maps"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )
        assert graph is not None
        graph.save(files["model.onnx"])


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep to ourselves what the exporters say of their own inner life."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def _load(name: str, path: Path) -> Predict:
    if name == "model.onnx":
        import onnxruntime  # an optional package

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

        def run(maps: NDArray[np.uint8]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = session.run(None, {"maps": maps})[0]
            return found

        return run
    with _quietly():
        module = torch.export.load(path).module()
    return _in_torch(module)


def _in_torch(module: torch.nn.Module) -> Predict:
    def run(maps: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(maps)).numpy()
        return found

    return run


def _choose_wafers(request: ExportRequest) -> tuple[WaferSet, NDArray[np.int64], str]:
    """Return wafers to check on, never of the locked test: a set, positions in it, and what they are."""
    random = np.random.default_rng(0)
    if request.data is None and request.study is not None:
        best = load_best(request.study.best)
        dataset = open_data(best.data, results=request.results)
        check_same_data(dataset, fingerprint=best.data_fingerprint, split_fingerprint=best.split_fingerprint)
        wafers, rows, what = dataset.wafers, dataset.splits.val, "validation wafers"
    else:
        wafers = load_wafers(request.data) if request.data else make_wafers(max(300, request.n_checked))
        rows, what = np.arange(len(wafers)), "wafers" if request.data else "synthetic wafers"
    what = f"{'SYNTHETIC ' if wafers.is_synthetic and 'synthetic' not in what else ''}{what}"
    return wafers, np.sort(random.permutation(rows)[: request.n_checked]), what


def _by_shape(wafers: WaferSet, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    shapes = np.stack([wafers.heights[rows], wafers.widths[rows]], axis=1)
    for shape in np.unique(shapes, axis=0):
        yield np.stack([wafers.map(i) for i in rows[(shapes == shape).all(1)]])


def _compare(
    deployed: Deployed, predictors: Mapping[str, Predict], wafers: WaferSet, rows: NDArray[np.int64]
) -> dict[str, float]:
    """Return the largest difference of any probability, by file."""
    expect, worst = _in_torch(deployed), dict.fromkeys(predictors, 0.0)
    for maps in _by_shape(wafers, rows):
        expected = expect(maps)
        for name, predict in predictors.items():
            worst[name] = max(worst[name], float(np.abs(predict(maps) - expected).max()))
    return worst


def _measure(
    in_torch: Predict, predictors: Mapping[str, Predict], wafers: WaferSet, rows: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Return milliseconds per call by file and batch: medians of seven, in turn, of the most frequent shape."""
    most = max(_by_shape(wafers, rows), key=len)
    sides = {"PyTorch": in_torch, **predictors}
    times: dict[str, dict[str, float]] = {name: {} for name in sides}
    for batch in _BATCHES:
        maps = np.resize(most, (batch, *most.shape[1:]))
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(8):
            for name, predict in sides.items():
                start = time.perf_counter()
                predict(maps)
                if repeat:  # the first one warms up
                    taken[name].append(1e3 * (time.perf_counter() - start))
        for name in sides:
            times[name][str(batch)] = statistics.median(taken[name])
    return times


def _describe(trained: TrainedModel) -> dict[str, Any]:
    """Say what goes into the model and what comes out, for programs."""
    return {
        "format": 1,
        "input": {
            "name": "maps",
            "type": "uint8",
            "shape": ["wafers", "height", "width"],
            "codes": {str(NO_DIE): "no die", str(PASS): "passing die", str(FAIL): "failing die"},
            "sides": [2, _LARGEST],
        },
        "output": {"name": "probabilities", "type": "float32", "shape": ["wafers", "classes"]},
        "classes": list(trained.classes),
        "shares": dict(zip(trained.classes, trained.shares.tolist(), strict=True)),
        "rule": asdict(trained.rule),
        "picture": asdict(trained.picture),
        "seeds": list(trained.seeds),
        "test_time": trained.config["test_time"],
        "on": trained.on,
        "data_fingerprint": trained.data_fingerprint,
        "split_fingerprint": trained.split_fingerprint,
        "synthetic": trained.is_synthetic,
        "leaky": trained.leaky,
        "config": json.loads(json.dumps(dict(trained.config))),
    }


def _speed_table(speeds: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]) -> Table:
    device = describe_device(torch.device("cpu"))
    title = f"ms per call, medians of 7, {device}"
    table = Table(title=title, title_justify="left", title_style="bold", min_width=len(title))
    for name in ("", *(f"batch {batch}" for batch in _BATCHES), "file"):
        table.add_column(name, justify="right" if name else "left")
    for name, by_batch in speeds.items():
        times = [f"{by_batch[str(batch)]:.2f}" for batch in _BATCHES]
        table.add_row(name, *times, f"{sizes[name] / 2**20:.2f} MiB")
    return table
