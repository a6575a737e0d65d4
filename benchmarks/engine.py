"""Training speed: our engine, the pipeline that people usually write, and the bare training step, in one run.

    python -m benchmarks.engine [--data FILE] [--image-sizes 40 64] [--width 32] [--batch-size 128] [--augment deck]

All train the same `wafer_cnn` on the same wafers, each in a process of its own. Prints medians of several rounds and
their spread; the rounds of the sides alternate, so that a machine whose speed drifts does not favour one of them. "bare
step / usual" is the most that a faster pipeline alone could bring.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, train_batches
from models import build_model
from search.space.config import DataConfig
from search.study.data import open_data
from search.trial.evaluation import autocast, choose_dtype
from search.trial.memory import keep_freed_memory

_ROUNDS = 5
_USUAL, _OURS, _BARE = "usual pipeline (PIL, DataLoader with 2 workers, float32)", "ours", "bare step, one fixed batch"
Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Given:
    """The command line."""

    data: str
    image_sizes: tuple[int, ...]
    width: int
    batch_size: int
    augment: str
    images: int
    threads: int


class StockWafers(Dataset[tuple[Tensor, int]]):
    """One PIL picture at a time through torchvision's transforms, as in the project deck."""

    def __init__(self, wafers: EncodedWafers, image_size: int) -> None:
        self._maps = wafers.maps.numpy()
        self._labels = wafers.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.Resize(image_size),
                transforms.RandomRotation(45, fill=1),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomResizedCrop(image_size, scale=(0.9, 1.0), ratio=(0.8, 1.25)),
                transforms.RandomAffine(0, scale=(0.8, 1.2), shear=5, fill=1),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        grey: Tensor = self._transform(Image.fromarray(self._maps[index])) * 255
        return torch.cat([1 - (grey - 1).abs().clamp(0, 1), (grey - 1).clamp(0, 1)]), self._labels[index]


def train(model: nn.Module, batches: Batches, dtype: torch.dtype) -> float:
    """Train on all batches; return images per second."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    device = next(model.parameters()).device
    model.train()
    n_images, start = 0, time.perf_counter()
    for host_channels, host_labels in batches:
        channels, labels = host_channels.to(device), host_labels.to(device)
        with autocast(device, dtype):
            logits = model(channels)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        n_images += len(labels)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return n_images / (time.perf_counter() - start)


@cache
def make_side(side: str, given: _Given, image_size: int) -> tuple[Callable[[], Batches], torch.dtype]:
    """Return what makes an epoch's batches, and the type to compute in."""
    device = _device()
    config = DataConfig(wafers=given.data, image_size=image_size, encoding="states" if side == _USUAL else "coverage")
    host = open_data(config, results=Path("results")).encode("train")
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(host), (given.images,), generator=generator)
    if side == _USUAL:
        loader = DataLoader(
            StockWafers(host.select(drawn), image_size), given.batch_size, num_workers=2, drop_last=True
        )
        return lambda: iter(loader), torch.float32
    keep_freed_memory()
    wafers = host.to(device)

    def ours() -> Batches:
        choices = AUGMENTS[given.augment](len(drawn), generator)
        return train_batches(wafers, drawn, choices, batch_size=given.batch_size)

    fixed = next(ours())
    epochs = ours if side == _OURS else lambda: iter([fixed] * (given.images // given.batch_size))
    return epochs, choose_dtype("auto", device)


def run_round(side: str, given: _Given, image_size: int) -> float:
    """Train for one round; return images per second."""
    torch.set_num_threads(given.threads)
    batches, dtype = make_side(side, given, image_size)
    model = build_model("wafer_cnn", n_classes=9, options={"width": given.width}, seed=0).to(_device())
    return train(model, batches(), dtype)


def measure(given: _Given, image_size: int) -> None:
    """Time all sides at one size, each in a process of its own, and print both sides of each ratio."""
    context = multiprocessing.get_context("spawn")
    processes = {side: ProcessPoolExecutor(1, mp_context=context) for side in (_USUAL, _OURS, _BARE)}
    speeds: dict[str, list[float]] = {side: [] for side in processes}
    for _ in range(_ROUNDS + 1):
        for side, process in processes.items():
            speeds[side].append(process.submit(run_round, side, given, image_size).result())
    for process in processes.values():
        process.shutdown()
    print(f"\nwafer_cnn width {given.width}, {image_size} px, batch {given.batch_size}, augment {given.augment}")
    medians = {}
    for side, values in speeds.items():
        counted = values[1:]  # the first round warms up
        medians[side] = statistics.median(counted)
        print(f"  {medians[side]:>9,.0f} images/s ({min(counted):,.0f} to {max(counted):,.0f}, n={_ROUNDS})  {side}")
    usual, mine, bare = medians[_USUAL], medians[_OURS], medians[_BARE]
    print(f"  ours / usual {mine / usual:.2f}, bare step / usual {bare / usual:.2f} (the ceiling)")
    print(f"  gathering, augmenting and making channels cost {100 * (bare / mine - 1):.1f} % of the bare step")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[40, 64])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--augment", choices=list(AUGMENTS), default="deck")
    parser.add_argument("--images", type=int, default=3000, help="per round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = vars(parser.parse_args())
    given = _Given(**asked | {"image_sizes": tuple(asked["image_sizes"])})
    where = torch.cuda.get_device_name() if _device().type == "cuda" else f"CPU, {given.threads} threads"
    print(f"{where}, torch {torch.__version__}, ours in {choose_dtype('auto', _device())}")
    for image_size in given.image_sizes:
        measure(given, image_size)


if __name__ == "__main__":
    main()
