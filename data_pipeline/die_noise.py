"""Noise of single dies, from a hash instead of a generator: the same on every device and in every batch."""

import math

import torch
from torch import Tensor

from data_pipeline.wafer_set import FAIL, NO_DIE, PASS

# SplitMix64's step and multipliers, as the signed numbers that int64 tensors hold.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def apply_noise(maps: Tensor, seed: Tensor, *, noise: float) -> Tensor:
    """Swap passing and failing at some of the tested dies; pure.

    Whether a die is swapped depends on the seed of its wafer and on its position in the map, on nothing else: not on
    the other wafers of the batch, not on the device.

    Args:
        maps: Die codes, shape (N, S, S), or coverage, shape (N, S, S, 2); uint8, never written to. A cell without a
            die has nothing to swap and stays as it is; one that several dies cover swaps its two shares.
        seed: Shape (N,), int64, any values; on the device of the maps.
        noise: Probability of a swap, in (0, 1], rounded up to a multiple of 1/65536.

    Example:
        >>> apply_noise(torch.tensor([[[0, 1], [2, 1]]]), torch.tensor([7]), noise=1.0).tolist()
        [[[0, 2], [1, 2]]]
    """
    n, cells = len(maps), maps.shape[1] * maps.shape[2]
    # Each hash serves four dies, 16 bits for each: half a millisecond for 128 maps of 40 x 40 on one core, one hash a
    # die takes twice to five times as long. Every machine with torch has the low bits first.
    numbers = hash_counters(seed, -(-cells // 4)).view(torch.int16)[:, :cells]
    swapped = (numbers <= math.ceil(noise * 2**16) - 2**15 - 1).reshape(n, *maps.shape[1:3])
    if maps.ndim == 4:  # exclusive or exchanges two numbers four times faster than a choice between maps and a flip
        passing, failing = maps.unbind(3)
        return maps ^ ((passing ^ failing) * swapped)[:, :, :, None]
    return maps ^ (swapped & (maps != NO_DIE)).to(maps.dtype) * (PASS ^ FAIL)


def hash_counters(seed: Tensor, count: int) -> Tensor:
    """Give each seed its own reproducible stream of random bits, without a generator.

    Args:
        seed: Shape (N,), int64, any values.
        count: Numbers per seed.

    Returns:
        Shape (N, count), int64, all 64 bits random; on the device of the seeds, which is not waited for.

    Source:
        SplitMix64: Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators, OOPSLA; multipliers
        and shifts are David Stafford's Mix13, as in https://prng.di.unimi.it/splitmix64.c.

    Example:
        >>> [n % 2**64 for n in hash_counters(torch.tensor([1234567]), 2)[0].tolist()]
        [6457827717110365317, 3203168211198807973]
    """
    mixed = seed[:, None] + torch.arange(1, count + 1, device=seed.device) * _STEP
    mixed = (mixed ^ _shift_right(mixed, 30)) * _MIX_1
    mixed = (mixed ^ _shift_right(mixed, 27)) * _MIX_2
    return mixed ^ _shift_right(mixed, 31)


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Shift in zeros; torch's own shift of an int64 repeats the sign."""
    return (bits >> by) & ((1 << 64 - by) - 1)
