"""What is done to the drawn wafers: random choices first, then pure tensor operations.

A wafer has no preferred orientation in this data, so the eight flips and quarter turns are exact: they move dies and
invent none. Everything else resamples, or swaps states, and is an option.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from data_pipeline.die_noise import apply_noise
from data_pipeline.wafer_set import FAIL, PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What to do with each of N wafers.

    Attributes:
        symmetry: Which of the eight flips and quarter turns, shape (N,), int64 in [0, 8); None for none.
        affine: Where each output pixel looks in the input, shape (N, 2, 3), in coordinates from -1 to 1; None for none.
        outside_passes: Whether what lies beyond the picture is a passing die (the deck's fill=1) instead of no die.
        noise_seed: What decides which dies are swapped between passing and failing, shape (N,), int64; None for none.
        noise: Probability that a die is swapped, in [0, 1]; means nothing without seeds.
    """

    symmetry: Tensor | None = None
    affine: Tensor | None = None
    outside_passes: bool = False
    noise_seed: Tensor | None = None
    noise: float = 0.0

    def __getitem__(self, rows: slice) -> "Choices":
        return Choices(
            symmetry=None if self.symmetry is None else self.symmetry[rows],
            affine=None if self.affine is None else self.affine[rows],
            outside_passes=self.outside_passes,
            noise_seed=None if self.noise_seed is None else self.noise_seed[rows],
            noise=self.noise,
        )

    def to(self, device: torch.device) -> "Choices":
        """Move the choices to a device, without waiting for it."""
        return Choices(
            symmetry=None if self.symmetry is None else self.symmetry.to(device, non_blocking=True),
            affine=None if self.affine is None else self.affine.to(device, non_blocking=True),
            outside_passes=self.outside_passes,
            noise_seed=None if self.noise_seed is None else self.noise_seed.to(device, non_blocking=True),
            noise=self.noise,
        )


def none(n: int, generator: torch.Generator) -> Choices:
    """Leave the wafers as they are."""
    return Choices()


def symmetries(n: int, generator: torch.Generator) -> Choices:
    """Flip and turn by quarters, all eight equally likely."""
    return Choices(symmetry=torch.randint(8, (n,), generator=generator))


def symmetries_noise(n: int, generator: torch.Generator, *, noise: float = 0.02) -> Choices:
    """Flip and turn by quarters, and let dies change between passing and failing, as chance does between wafers.

    Args:
        n: Number of wafers.
        generator: On the CPU.
        noise: Probability that a die is swapped between passing and failing, in [0, 0.2].

    Raises:
        ValueError: If noise is out of range.
    """
    _check_limits(noise=(noise, 0.2))
    symmetry = torch.randint(8, (n,), generator=generator)
    return Choices(symmetry=symmetry, noise_seed=_draw_noise_seed(n, noise, generator), noise=noise)


def symmetries_shift(n: int, generator: torch.Generator, *, shift: float = 0.05, noise: float = 0.0) -> Choices:
    """Flip and turn by quarters, then move a little.

    Args:
        n: Number of wafers.
        generator: On the CPU.
        shift: Largest move either way along each axis, as a share of the picture's side, in [0, 0.5].
        noise: Probability that a die is swapped between passing and failing first, in [0, 0.2].

    Raises:
        ValueError: If an option is outside its range.
    """
    return symmetries_affine(n, generator, angle=0.0, scale=0.0, shift=shift, noise=noise)


def symmetries_affine(
    n: int,
    generator: torch.Generator,
    *,
    angle: float = 15.0,
    scale: float = 0.1,
    shift: float = 0.0,
    noise: float = 0.0,
) -> Choices:
    """Flip and turn by quarters, then rotate, scale and move a little.

    Args:
        n: Number of wafers.
        generator: On the CPU.
        angle: Largest rotation either way, in degrees, in [0, 180].
        scale: Largest change of size either way, in [0, 0.5].
        shift: Largest move either way along each axis, as a share of the picture's side, in [0, 0.5].
        noise: Probability that a die is swapped between passing and failing first, in [0, 0.2].

    Raises:
        ValueError: If an option is outside its range.
    """
    _check_limits(angle=(angle, 180.0), scale=(scale, 0.5), shift=(shift, 0.5), noise=(noise, 0.2))
    turn = torch.deg2rad(_uniform(n, -angle, angle, generator))
    zoom = _uniform(n, 1 - scale, 1 + scale, generator)
    move = _uniform(2 * n, -2 * shift, 2 * shift, generator).reshape(n, 2)
    linear = _rotation(turn) * zoom[:, None, None]
    return Choices(
        symmetry=torch.randint(8, (n,), generator=generator),
        affine=torch.cat([linear, move[:, :, None]], dim=2),
        noise_seed=_draw_noise_seed(n, noise, generator),
        noise=noise,
    )


def deck(n: int, generator: torch.Generator) -> Choices:
    """Do what the project deck did, with its ranges, as one resampling instead of three.

    RandomRotation(45, fill=1), RandomHorizontalFlip, RandomVerticalFlip, RandomResizedCrop(scale=(0.9, 1.0),
    ratio=(0.8, 1.25)), RandomAffine(scale=(0.8, 1.2), shear=5, fill=1): beyond the picture lie passing dies.
    """
    rotation = _rotation(torch.deg2rad(_uniform(n, -45, 45, generator)))
    flip = torch.randint(2, (n, 2), generator=generator) * 2.0 - 1.0
    area, ratio = _uniform(n, 0.9, 1.0, generator), _uniform(n, math.log(0.8), math.log(1.25), generator).exp()
    crop = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1.0)
    corner = (1 - crop) * (torch.rand(n, 2, generator=generator) * 2 - 1)
    zoom, shear = _uniform(n, 0.8, 1.2, generator), torch.deg2rad(_uniform(n, -5, 5, generator)).tan()
    sheared = torch.eye(2).repeat(n, 1, 1)
    sheared[:, 0, 1] = shear
    linear = rotation @ torch.diag_embed(crop * flip) @ sheared / zoom[:, None, None]
    move = rotation @ corner[:, :, None]
    return Choices(affine=torch.cat([linear, move], dim=2), outside_passes=True)


AUGMENTS: Mapping[str, Callable[..., Choices]] = {
    "none": none,
    "symmetries": symmetries,
    "symmetries_noise": symmetries_noise,
    "symmetries_shift": symmetries_shift,
    "symmetries_affine": symmetries_affine,
    "deck": deck,
}


def to_channels(maps: Tensor) -> Tensor:
    """Turn encoded maps into the networks' input: one channel of passing and one of failing dies.

    Args:
        maps: Die codes, shape (N, H, W), or coverage by passing and failing dies in 255ths, shape (N, H, W, 2); uint8,
            never written to.

    Returns:
        Shape (N, 2, H, W), float32 in [0, 1], in channels-last order; no die is 0 in both channels.
    """
    if maps.ndim == 4:
        return maps.contiguous().permute(0, 3, 1, 2) / 255  # after a symmetry, maps lie transposed in memory
    return torch.stack((maps == PASS, maps == FAIL), dim=-1).float().permute(0, 3, 1, 2)


def apply_choices(maps: Tensor, choices: Choices) -> Tensor:
    """Turn square maps into network input as chosen; pure.

    Args:
        maps: Die codes, shape (N, S, S), or coverage, shape (N, S, S, 2); uint8, never written to.
        choices: For the same N wafers, on the same device.

    Returns:
        Shape (N, 2, S, S), float32, in channels-last order. Where an affine map falls between dies, the channels
        hold the share of each state, so that codes are never averaged into other codes.
    """
    if choices.noise_seed is not None:
        maps = apply_noise(maps, choices.noise_seed, noise=choices.noise)
    if choices.symmetry is not None:
        maps = apply_symmetry(maps, choices.symmetry)
    channels = to_channels(maps)
    if choices.affine is None:
        return channels
    grid = affine_grid(choices.affine, list(channels.shape), align_corners=False)
    if choices.outside_passes:
        inside = torch.ones_like(channels[:, :1])
        sampled = grid_sample(torch.cat([channels, inside], dim=1), grid, align_corners=False)
        passing = sampled[:, :1] + (1 - sampled[:, 2:])
        channels = torch.cat([passing, sampled[:, 1:2]], dim=1)
    else:
        channels = grid_sample(channels, grid, align_corners=False)
    return channels.contiguous(memory_format=torch.channels_last)


def apply_symmetry(maps: Tensor, symmetry: Tensor) -> Tensor:
    """Flip and transpose each map: bit 0 flips rows, bit 1 flips columns, bit 2 transposes afterwards.

    Args:
        maps: Shape (N, S, S), or (N, S, S, 2).
        symmetry: Shape (N,), int64 in [0, 8).

    Example:
        >>> apply_symmetry(torch.tensor([[[1, 2], [3, 4]]]), torch.tensor([5])).tolist()
        [[[3, 1], [4, 2]]]
    """
    chosen = symmetry.reshape(-1, *[1] * (maps.ndim - 1))
    maps = torch.where((chosen & 1).bool(), maps.flip(1), maps)
    maps = torch.where((chosen & 2).bool(), maps.flip(2), maps)
    return torch.where((chosen & 4).bool(), maps.transpose(1, 2), maps)


def _draw_noise_seed(n: int, noise: float, generator: torch.Generator) -> Tensor | None:
    """Draw last of all, and nothing without noise: the other choices must not depend on it."""
    return torch.randint(2**63 - 1, (n,), generator=generator) if noise else None


def _check_limits(**options: tuple[float, float]) -> None:
    """Check that each option lies between 0 and its limit."""
    for name, (value, limit) in options.items():
        if not 0 <= value <= limit:
            raise ValueError(f"{name} must be in [0, {limit:g}]; got {value}")


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)
