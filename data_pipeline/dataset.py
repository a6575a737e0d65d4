"""One call from a wafer file to what a study trains on: wafers, checked splits, encoded parts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from data_pipeline.batches import EncodedWafers, wrap_arrays
from data_pipeline.encode import Picture, load_encoded
from data_pipeline.protocols import PROTOCOLS
from data_pipeline.splits import LeakCheck, Splits, check_leaks
from data_pipeline.wafer_files import are_drawn, find_wafers
from data_pipeline.wafer_set import WaferSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Wafers, divided and checked.

    Attributes:
        wafers: All of them, at native resolution.
        splits: Which wafers are for training, validation and the locked test.
        leak_check: The proof that the parts share nothing, or, of a leaky split, the count of what they share.
        picture: What maps are encoded to.
        cache: Folder of the encoded maps.
        is_drawn: Whether the wafers were drawn and are in no file.
    """

    wafers: WaferSet
    splits: Splits
    leak_check: LeakCheck
    picture: Picture
    cache: Path
    is_drawn: bool = False

    def encode(self, part: str) -> EncodedWafers:
        """Encode the part "train", "val" or "test", or take it from the cache.

        Only `search.evaluate` asks for "test".

        Raises:
            DataError: If the cache cannot be written.
        """
        indices = self.splits.part(part)
        maps = load_encoded(self.wafers, indices, picture=self.picture, cache=self.cache)
        return wrap_arrays(maps, self.wafers.labels[indices])


def open_dataset(
    asked: str,
    *,
    synthetic_wafers: int,
    picture: Picture,
    by: str,
    pool: int,
    val: float,
    test: float,
    seed: int,
    cache: Path,
) -> Dataset:
    """Load wafers, divide them and prove that nothing leaks, or count what does.

    Args:
        asked: A path, "auto" or "synthetic"; see `find_wafers`.
        synthetic_wafers: How many to draw where they are synthetic.
        picture: What maps are encoded to.
        by: How to divide them, a key of PROTOCOLS.
        pool: Wafers per class before the division, for `deck` alone.
        val: Share of the wafers for validation.
        test: Share for the locked test.
        seed: Of the division.
        cache: Folder of the encoded maps.

    Raises:
        DataError: If the file cannot be used, or the wafers cannot be divided.
    """
    is_drawn = are_drawn(asked)
    wafers = find_wafers(asked, synthetic_wafers=synthetic_wafers)
    options = {"pool": pool} if by == "deck" else {}
    splits = PROTOCOLS[by](wafers, val=val, test=test, seed=seed, **options)
    return Dataset(
        wafers=wafers,
        splits=splits,
        leak_check=check_leaks(wafers, splits),
        picture=picture,
        cache=cache,
        is_drawn=is_drawn,
    )


def join_parts(first: EncodedWafers, second: EncodedWafers) -> EncodedWafers:
    """Put two parts into one, in order."""
    return EncodedWafers(maps=torch.cat([first.maps, second.maps]), labels=torch.cat([first.labels, second.labels]))
