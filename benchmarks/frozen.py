"""Speed of an epoch of a frozen EfficientNet-B0's head: the plain loop against kept features, in one run.

    python -m benchmarks.frozen [--wafers 512] [--input-size 96] [--batch-size 128] [--precision auto]

Weights and wafers are random, which takes as long as any. Rounds of the two sides alternate, so that drift favours
neither; both train from one seed, with BatchNorm in evaluation mode. Opening the store, once per trial, is timed too.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, plain_batches, train_batches
from models import build_model
from search.trial.evaluation import autocast, choose_dtype
from search.trial.frozen import FrozenBackbone

_ROUNDS = 5


def train(head: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], dtype: torch.dtype) -> tuple[float, Tensor]:
    """Train what trains in `head` for one epoch; return the seconds and the loss of each step."""
    optimizer = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], lr=1e-3)
    torch.manual_seed(0)  # of the dropout
    losses, start = [], time.perf_counter()
    for inputs, labels in batches:
        with autocast(labels.device, dtype):
            logits = head(inputs)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    numbers = torch.stack(losses).cpu()  # waits for the device
    return time.perf_counter() - start, numbers


def write_weights(path: Path, wafers: EncodedWafers, input_size: int) -> None:
    """Save random weights whose BatchNorm knows the wafers, or features would vanish."""
    model = build_model("efficientnet_b0", n_classes=9, options={"input_size": input_size}, seed=0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.to(wafers.labels.device)(next(plain_batches(wafers, batch_size=128))[0])
    torch.save({name: tensor for name, tensor in model.state_dict().items() if name.startswith("features.")}, path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wafers", type=int, default=512, help="per epoch")
    parser.add_argument("--input-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype, n, size = choose_dtype(given.precision, device), given.wafers, given.batch_size
    wafers = EncodedWafers(maps=torch.randint(3, (n, 40, 40)).byte(), labels=torch.randint(9, (n,))).to(device)
    drawn, choices = torch.randperm(n), AUGMENTS["symmetries"](n, torch.Generator())
    times: tuple[list[float], list[float]] = ([], [])
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder, "weights.pt"), wafers, given.input_size)
        options = {"weights": f"{folder}/weights.pt", "freeze": "backbone", "input_size": given.input_size}
        for _ in range(_ROUNDS + 1):
            model = build_model("efficientnet_b0", n_classes=9, options=options, seed=0).to(device)
            copy = build_model("efficientnet_b0", n_classes=9, options=options, seed=0).to(device)
            kept = FrozenBackbone(copy, wafers, folder=Path(folder), dtype=dtype)
            plain_s, plain = train(model, train_batches(wafers, drawn, choices, batch_size=size), dtype)
            kept_s, same = train(kept.head, kept.train_batches(drawn, choices.symmetry, batch_size=size), dtype)
            times = (times[0] + [plain_s], times[1] + [kept_s])
            worst = max(worst, (plain - same).abs().max().item())
    print(f"{given.input_size} px, {n} wafers, batch {size}, {dtype}, {device}, {torch.get_num_threads()} threads")
    for name, (first, *rest) in zip(("plain loop", "warm store"), times, strict=True):  # the first fills the store
        spread = f"({min(rest):.4f} to {max(rest):.4f}, n={_ROUNDS}; first epoch {first:.2f} s)"
        print(f"  {statistics.median(rest):8.4f} s/epoch {spread}  {name}")
    ratio = statistics.median(times[0][1:]) / statistics.median(times[1][1:])
    print(f"  plain / warm {ratio:.0f}; losses up to {plain.max():.2f} differ by at most {worst:.1e}")


if __name__ == "__main__":
    main()
