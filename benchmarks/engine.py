"""Training speed: our engine, the pipeline that people usually write, and the bare training step, in one run.

    python benchmarks/engine.py [--data FILE] [--image-sizes 40 64] [--width 32] [--batch-size 128] [--augment deck]

All train the same `wafer_cnn` on the same wafers. Prints medians of several rounds and their spread; the rounds of the
sides alternate, so that a machine whose speed drifts does not favour one of them. "bare step / usual" is the most that
a faster pipeline alone could bring.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, train_batches
from models import build_model
from search.study.config import DataConfig
from search.study.data import open_data
from search.trial.evaluation import autocast, choose_dtype

_ROUNDS = 5
_USUAL, _OURS, _BARE = "usual pipeline (PIL, DataLoader with 2 workers, float32)", "ours", "bare step, one fixed batch"
Batches = Iterator[tuple[Tensor, Tensor]]


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


def make_sides(
    given: argparse.Namespace, image_size: int, device: torch.device
) -> dict[str, tuple[Callable[[], Batches], torch.dtype]]:
    """Return, by name, what makes an epoch's batches and the type to compute in."""
    config = DataConfig(wafers=given.data, image_size=image_size)
    host = open_data(config, results=Path("results")).encode("train")
    states = open_data(config.model_copy(update={"encoding": "states"}), results=Path("results")).encode("train")
    wafers = host.to(device)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(host), (given.images,), generator=generator)
    stock = StockWafers(states.select(drawn), image_size)
    loader = DataLoader(stock, given.batch_size, num_workers=2, drop_last=True)

    def ours() -> Batches:
        choices = AUGMENTS[given.augment](len(drawn), generator)
        return train_batches(wafers, drawn, choices, batch_size=given.batch_size)

    fixed = next(ours())
    native = choose_dtype("auto", device)
    return {
        _USUAL: (lambda: iter(loader), torch.float32),
        _OURS: (ours, native),
        _BARE: (lambda: iter([fixed] * (given.images // given.batch_size)), native),
    }


def measure(given: argparse.Namespace, image_size: int, device: torch.device) -> None:
    """Time all sides at one size and print both sides of each ratio."""
    sides = make_sides(given, image_size, device)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_ROUNDS + 1):
        for name, (batches, dtype) in sides.items():
            model = build_model("wafer_cnn", n_classes=9, options={"width": given.width}, seed=0).to(device)
            speeds[name].append(train(model, batches(), dtype))
    print(
        f"\nwafer_cnn width {given.width}, {image_size} px, batch {given.batch_size}, {sides[_OURS][1]}, "
        f"augment {given.augment}"
    )
    medians = {}
    for name, values in speeds.items():
        counted = values[1:]  # the first round warms up
        medians[name] = statistics.median(counted)
        print(f"  {medians[name]:>9,.0f} images/s ({min(counted):,.0f} to {max(counted):,.0f}, n={_ROUNDS})  {name}")
    usual, mine, bare = medians[_USUAL], medians[_OURS], medians[_BARE]
    print(f"  ours / usual {mine / usual:.2f}, bare step / usual {bare / usual:.2f} (the ceiling)")
    print(f"  gathering, augmenting and making channels cost {100 * (bare / mine - 1):.1f} % of the bare step")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[40, 64])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--augment", choices=list(AUGMENTS), default="deck")
    parser.add_argument("--images", type=int, default=3000, help="per round")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}")
    for image_size in given.image_sizes:
        measure(given, image_size, device)


if __name__ == "__main__":
    main()
