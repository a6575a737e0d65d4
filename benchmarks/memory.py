"""Memory that training needs: the four architectures on all labelled wafers of WM-811K, by batch size.

    python -m benchmarks.memory [--image-size 64] [--precision bf16] [--gigabytes 8]

Nothing is trained or allocated: these are the estimates that a search states before its trials.
"""

import argparse
import time

import torch

from models import MODELS
from search.trial.memory_plan import estimate_memory, usable_memory
from search.trial.params import from_flat

_WAFERS = 172_950  # labelled ones of WM-811K
_VAL = _WAFERS // 5
_CLASSES = 9
_BATCH_SIZES = (128, 256, 512)


def main() -> None:
    """Estimate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--gigabytes", type=float, default=8, help="of the GPU; a tenth and half a GiB stay free")
    given = parser.parse_args()
    dtype = torch.bfloat16 if given.precision == "bf16" else torch.float32
    limit = usable_memory(round(given.gigabytes * 1e9), on_gpu=True)

    print(f"{_WAFERS:,} wafers, {given.image_size} px, {given.precision}, adamw, torch {torch.__version__}; GB:")
    parts = ("wafers", "weights", "gradients", "optimizer", "batch", "activations", "workspace", "total")
    print(f"{'model':<16}{'batch':>6}{''.join(f'{part:>12}' for part in parts)}  fits in {given.gigabytes:g} GB")
    start = time.perf_counter()
    for model in MODELS:
        for batch_size in _BATCH_SIZES:
            params = from_flat(
                {"model": model, "batch_size": batch_size}, where="benchmark", image_size=given.image_size
            )
            estimate = estimate_memory(
                params,
                image_size=given.image_size,
                n_train=_WAFERS - _VAL,
                n_val=_VAL,
                n_classes=_CLASSES,
                dtype=dtype,
            )
            sizes = "".join(f"{getattr(estimate, part) / 1e9:>12.3f}" for part in parts)
            print(f"{model:<16}{batch_size:>6}{sizes}  {'yes' if estimate.total <= limit else 'NO'}")
    print(f"{time.perf_counter() - start:.1f} s for {len(MODELS) * len(_BATCH_SIZES)} estimates")


if __name__ == "__main__":
    main()
