"""Seconds per epoch: ours, Ultralytics and Ludwig, on the same wafers, size, batch and one thread, in one run.

    OMP_NUM_THREADS=1 python -m benchmarks.beside --ultralytics /tmp/beside/bin/python --ludwig /tmp/ludwig/bin/python

The two others live in environments of their own (`pip install ultralytics`, `pip install ludwig`), so each side runs as
a process of its own Python on this very file, which imports nothing of theirs or ours at the top. All see the same
synthetic wafers with the same division by lot; the others get them as pictures. Rounds of the sides alternate, and
processor time is printed beside the clock, because it suffers less from other jobs. Timed is training and judging of
all epochs but the first. ResNet-18 is torchvision's, with its stem of 7x7, untrained.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OURS, _ULTRALYTICS, _LUDWIG = "ours", "ultralytics", "ludwig"
# Side, network, precision. First equal networks, then what each has for small pictures. Ludwig has no equal one: its
# torchvision encoders enlarge every picture to 224 pixels, whatever size is asked for.
_CASES = (
    (_OURS, "resnet18", "fp32"),
    (_ULTRALYTICS, "resnet18", "fp32"),
    (_OURS, "resnet18", "auto"),
    (_OURS, "wafer_cnn", "auto"),
    (_ULTRALYTICS, "yolo26n-cls", "fp32"),
    (_LUDWIG, "stacked_cnn", "fp32"),
)
_BATCH = 64
_RESNET_YAML = (
    "nc: 9\nbackbone:\n  - [-1, 1, TorchVision, [512, resnet18, None, True, 2]]\nhead:\n  - [-1, 1, Classify, [nc]]\n"
)


class Stopwatch:
    """Clock and processor time of each epoch, and what was reported after it."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self, *_: Any, **__: Any) -> None:
        """An epoch, judged, has just ended."""
        usage = os.times()
        self.marks.append((time.perf_counter(), usage.user + usage.system))

    def seconds(self) -> list[list[float]]:
        """Clock and processor seconds of all epochs but the first."""
        return [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(self.marks, self.marks[1:], strict=False)]


def train_ours(folder: Path, network: str, precision: str, epochs: int, image_size: int) -> dict[str, Any]:
    """Train with our engine, on the natural mix."""
    import torch
    import torchvision

    import models.table as table
    from search.space.config import DataConfig
    from search.study.data import open_data, trial_data
    from search.trial.params import from_flat
    from search.trial.training import train_and_evaluate

    torch.set_num_threads(1)
    config = DataConfig(wafers=str(folder / "wafers.parquet"), image_size=image_size, encoding="coverage")
    data = trial_data(open_data(config, results=folder), config)
    data = type(data)(train=data.train, val=data.val, n_classes=data.n_classes, epoch_samples=len(data.train))
    if network == "resnet18":

        def plain(*, n_classes: int, dropout: float = 0.0) -> torch.nn.Module:
            model = torchvision.models.resnet18(weights=None, num_classes=n_classes)
            model.conv1 = torch.nn.Conv2d(2, 64, 7, stride=2, padding=3, bias=False)
            return model

        table.MODELS["resnet18"] = table.Model(build=plain, min_image_size=16)  # type: ignore[index]
    flat = {"epochs": epochs, "model": network, "batch_size": _BATCH, "precision": precision}
    params = from_flat(flat, where="beside", image_size=image_size)
    watch, scores = Stopwatch(), {}
    for evaluation in train_and_evaluate(params, data, generator=torch.Generator().manual_seed(0)):
        watch.mark()
        val = evaluation.report.val
        scores = {"precision": evaluation.report.precision, "parameters": evaluation.report.n_parameters}
        scores["accuracy"] = val.scores.accuracy if val else None
    return {"seconds": watch.seconds(), "train": len(data.train), "val": len(data.val or ()), **scores}


def train_ultralytics(folder: Path, network: str, precision: str, epochs: int, image_size: int) -> dict[str, Any]:
    """Train as `yolo classify train` does, with its default augmentation, from a network's description."""
    from ultralytics import YOLO

    description = f"{network}.yaml"
    if network == "resnet18":
        description = str(folder / "resnet18-cls.yaml")
        Path(description).write_text(_RESNET_YAML)
    model = YOLO(description, task="classify")
    watch = Stopwatch()
    model.add_callback("on_fit_epoch_end", watch.mark)
    counts = {}
    model.add_callback("on_train_end", lambda t: counts.update(
        train=len(t.train_loader.dataset), val=len(t.test_loader.dataset),
        parameters=sum(p.numel() for p in t.model.parameters())))  # fmt: skip
    results = model.train(
        data=str(folder / "pictures"), epochs=epochs, imgsz=image_size, batch=_BATCH, workers=0, device="cpu",
        project=str(folder / "ultralytics"), plots=False, verbose=False, pretrained=False,
    )  # fmt: skip
    # The last call of `on_fit_epoch_end` follows the final validation of the best weights: not an epoch.
    return {"seconds": watch.seconds()[: epochs - 1], "precision": "float32", "accuracy": results.top1, **counts}


def train_ludwig(folder: Path, network: str, precision: str, epochs: int, image_size: int) -> dict[str, Any]:
    """Train as `ludwig train` does, without augmentation, which is its default."""
    import logging

    import pandas
    from ludwig.api import LudwigModel
    from ludwig.callbacks import Callback

    watch = Stopwatch()

    class Watch(Callback):  # type: ignore[misc]
        def on_epoch_end(self, trainer: Any, progress_tracker: Any, save_path: str, **kwargs: Any) -> None:
            watch.mark()

    size = {"height": image_size, "width": image_size}
    config = {
        "input_features": [{"name": "picture", "type": "image", "encoder": {"type": network}, "preprocessing": size}],
        "output_features": [{"name": "label", "type": "category"}],
        "preprocessing": {"split": {"type": "fixed", "column": "split"}},
        "trainer": {"epochs": epochs, "batch_size": _BATCH, "eval_batch_size": _BATCH, "early_stop": -1},
        "backend": {"type": "local"},
    }
    table = pandas.read_csv(folder / "pictures.csv")
    model = LudwigModel(config, logging_level=logging.ERROR, callbacks=[Watch()])
    result = model.train(
        dataset=table, output_directory=str(folder / "ludwig"), skip_save_processed_input=True, skip_save_log=True
    )
    accuracy = result.train_stats.validation["label"]["accuracy"][-1]
    counts = table["split"].value_counts().to_dict()
    n_parameters = sum(p.numel() for p in model.model.parameters())
    return {"seconds": watch.seconds(), "precision": "float32", "mean recall": float(accuracy),
            "train": counts[0], "val": counts[1], "parameters": n_parameters}  # fmt: skip


_TRAIN: dict[str, Callable[..., dict[str, Any]]] = {
    _OURS: train_ours, _ULTRALYTICS: train_ultralytics, _LUDWIG: train_ludwig
}  # fmt: skip


def write_pictures(folder: Path, *, n_wafers: int, image_size: int) -> None:
    """Draw wafers and write them as Parquet, as folders of pictures (part/class/file), and as a table of those."""
    import numpy as np
    from PIL import Image

    from data_pipeline.synthetic import make_wafers
    from data_pipeline.wafer_files import write_parquet
    from search.space.config import DataConfig
    from search.study.data import open_data

    wafers = make_wafers(n_wafers, seed=0)
    write_parquet(wafers, folder / "wafers.parquet")
    config = DataConfig(wafers=str(folder / "wafers.parquet"), image_size=image_size, encoding="coverage")
    dataset = open_data(config, results=folder)
    shades = np.array([0, 127, 255], np.uint8)
    rows = ["picture,label,split"]
    for number, part in enumerate(("train", "val", "test")):
        for index in dataset.splits.part(part).tolist():
            name = dataset.wafers.classes[int(dataset.wafers.labels[index])]
            file = folder / "pictures" / part / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            dies = shades[dataset.wafers.map(index)]
            Image.fromarray(dies).convert("RGB").resize((image_size, image_size), Image.Resampling.NEAREST).save(file)
            rows.append(f"{file},{name},{number}")
    (folder / "pictures.csv").write_text("\n".join(rows) + "\n")


def run_case(python: str, folder: Path, case: tuple[str, str, str], epochs: int, image_size: int) -> dict[str, Any]:
    """Train one case in a process of its own."""
    side, network, precision = case
    command = [python, __file__, "--as", side, "--network", network, "--precision", precision]
    command += ["--folder", str(folder), "--epochs", str(epochs), "--image-size", str(image_size)]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]) if side == _OURS else ""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "YOLO_OFFLINE": "true", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{case}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ultralytics", metavar="PYTHON", help="interpreter that has it; left out without")
    parser.add_argument("--ludwig", metavar="PYTHON", help="interpreter that has it; left out without")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/beside_data"), help="default: %(default)s")
    parser.add_argument("--wafers", type=int, default=2000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as", choices=list(_TRAIN), dest="side", help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        found = _TRAIN[given.side](given.folder, given.network, given.precision, given.epochs, given.image_size)
        print("RESULT " + json.dumps(found), flush=True)
        return

    if not (given.folder / "pictures.csv").exists():
        given.folder.mkdir(parents=True, exist_ok=True)
        write_pictures(given.folder, n_wafers=given.wafers, image_size=given.image_size)
    pythons = {_OURS: sys.executable, _ULTRALYTICS: given.ultralytics, _LUDWIG: given.ludwig}
    cases = [case for case in _CASES if pythons[case[0]]]
    epochs: dict[tuple[str, str, str], list[list[float]]] = {case: [] for case in cases}
    facts: dict[tuple[str, str, str], dict[str, Any]] = {}
    for round_ in range(given.rounds):
        for case in cases:
            start = time.perf_counter()
            facts[case] = run_case(str(pythons[case[0]]), given.folder, case, given.epochs, given.image_size)
            epochs[case] += facts[case].pop("seconds")
            whole = time.perf_counter() - start
            print(f"round {round_ + 1}, {' '.join(case)}: {whole:.0f} s in all, {epochs[case][-1]}", flush=True)
    print(f"\n{given.image_size} px, batch {_BATCH}, one thread, n = {given.rounds} x {given.epochs - 1} epochs")
    base = statistics.median(cpu for _, cpu in epochs[cases[0]])
    for case in cases:
        for name, column in (("clock", 0), ("processor", 1)):
            values = [each[column] for each in epochs[case]]
            spread = f"{min(values):.2f} to {max(values):.2f}"
            print(f"  {' '.join(case):<28} {name:<9} {statistics.median(values):7.2f} s an epoch ({spread})", end="")
            print(f"  {statistics.median(values) / base:.2f} of the first" if column else "")
        print(f"  {'':<28} {facts[case]}")


if __name__ == "__main__":
    main()
