"""What makes the wafers of a class: the random parameters of its pattern, and the pattern itself.

Lengths are in radii of the wafer, so that they hold for any product; u runs to the right and v down, both from -1 to 1.

Source:
    Distributions fitted to quantiles of fail rate, largest cluster, rim, core, densest spot and clumping, measured per
    class on labelled maps of WM-811K (Wu, Jang, Chen 2015, doi:10.1109/TSM.2014.2364237); the last adjustments on maps
    of 36 to 47 dies a side, because larger products fail less.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

Field = NDArray[np.floating]
Dies = NDArray[np.bool_]
Generator = np.random.Generator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """What the wafers of a lot share: the dies, each array of shape (h, w), and where they lie."""

    u: Field
    v: Field
    r: Field
    angle: Field
    tested: Dies
    rim: Dies  # the outermost dies
    second_rim: Dies  # the next ones inwards
    side: int  # the longer side in dies


class Draws:
    """Parameters of the n wafers of one class in one lot, each of shape (n, 1, 1).

    The wafers of a lot are alike: each parameter is one value for the lot and one per wafer, so mixed that over many
    lots the asked distribution results. `own` is the wafer's part, 1 where a pattern strikes at random.
    """

    def __init__(self, rng: Generator, n: int, *, own: float) -> None:
        self.rng = rng
        self.n = n
        self._own = own

    def normal(self, mean: float, sd: float) -> Field:
        """Draw from the normal distribution."""
        z: Field = self._own * self.rng.standard_normal((self.n, 1, 1), dtype=np.float32)
        return mean + sd * (z + math.sqrt(1 - self._own**2) * self.rng.standard_normal())

    def log_normal(self, median: float, sigma: float) -> Field:
        """Draw values whose logarithm has the standard deviation sigma."""
        factor: Field = np.exp(self.normal(0, sigma))
        return median * factor

    def uniform(self, low: float, high: float) -> Field:
        """Draw from low to high, all equally likely."""
        share: Field = ndtr(self.normal(0, 1))
        return low + (high - low) * share

    def beta(self, a: float, b: float) -> Field:
        """Draw from the beta distribution."""
        quantile: Field = betaincinv(a, b, self.uniform(0, 1))
        return quantile

    def direction(self) -> Field:
        """Draw an angle in radians."""
        return self.uniform(-np.pi, np.pi)

    def happens(self, share: float) -> Dies:
        """Draw whether something happens that does in this share of the wafers."""
        return self.uniform(0, 1) < share


def drift(product: Product, draws: Draws, strength: Field) -> Field:
    """Draw a smooth factor around 1 across each wafer, shape (n, h, w): three waves of about the wafer's size.

    Args:
        product: The dies.
        draws: Of the n wafers.
        strength: How uneven, shape (n, 1, 1): of the factor's logarithm, 0.8 times this is the standard deviation.
    """
    waves = np.zeros((draws.n, *product.r.shape), dtype=np.float32)
    for _ in range(3):
        height, phase, direction, frequency = draws.rng.random((4, draws.n, 1, 1), dtype=np.float32)
        turn = 2 * np.pi * direction
        along = np.cos(turn) * product.u + np.sin(turn) * product.v
        waves += 2 * height * np.cos(2 * np.pi * phase + np.pi * (0.3 + 0.8 * frequency) * along)
    factor: Field = np.exp(strength * waves / 1.7)
    return factor


def _center(product: Product, draws: Draws) -> Field:
    length = draws.log_normal(0.30, 0.42).clip(0.08, 0.7)
    offset, direction = np.abs(draws.normal(0, 0.05)), draws.direction()
    distance = _distance(product, draws, offset, direction, length, length * draws.uniform(0.75, 1))
    return draws.uniform(0.85, 1) * _fade(distance, 3)


def _donut(product: Product, draws: Draws) -> Field:
    offset, direction = np.abs(draws.normal(0.15, 0.12)), draws.direction()
    u, v = product.u - offset * np.cos(direction), product.v - offset * np.sin(direction)
    radius, half_width = draws.normal(0.38, 0.08), draws.uniform(0.07, 0.22)
    gap = draws.happens(0.45) * draws.uniform(30, 130)
    ring = draws.uniform(0.75, 1) * _fade(np.abs(np.hypot(u, v) - radius) / half_width, 3)
    return ring * (_degrees_between(np.arctan2(v, u), draws.direction()) > gap / 2)


def _edge_loc(product: Product, draws: Draws) -> Field:
    half_arc = draws.log_normal(35, 0.6).clip(10, 120)
    depth = draws.log_normal(0.24, 0.55).clip(3 / product.side, 0.9)  # at least a die and a half
    along = _fade(_degrees_between(product.angle, draws.direction()) / half_arc, 4)
    return draws.uniform(0.75, 1) * along * _fade((1 - product.r).clip(0) / depth, 2.5)


def _edge_ring(product: Product, draws: Draws) -> Field:
    rim = draws.beta(14, 1.2)
    second_rim = np.where(draws.happens(0.05), draws.beta(4, 3), draws.beta(1.2, 6))
    gap = draws.happens(0.15) * draws.uniform(20, 140)
    ring: Field = rim * product.rim + second_rim * product.second_rim
    return ring * (_degrees_between(product.angle, draws.direction()) > gap / 2)


def _loc(product: Product, draws: Draws) -> Field:
    offset, direction = 0.8 * np.sqrt(draws.uniform(0.03, 1)), draws.direction()
    length = draws.log_normal(0.27, 0.5).clip(0.07, 0.8)
    distance = _distance(product, draws, offset, direction, length, length * draws.uniform(0.35, 1))
    return draws.uniform(0.6, 1) * _fade(distance, 3)


def _near_full(product: Product, draws: Draws) -> Field:
    passes = np.where(draws.happens(0.09), 0, draws.uniform(0.02, 0.33))
    outwards = (0.1 + 2 * product.r**2).clip(max=1.2)
    return 1 - passes * _relative(outwards * drift(product, draws, draws.uniform(0.4, 1.2)), product)


def _none(product: Product, draws: Draws) -> Field:
    return np.zeros((draws.n, *product.r.shape), dtype=np.float32)


def _random(product: Product, draws: Draws) -> Field:
    fails = draws.normal(0.40, 0.13).clip(0.16, 0.65)
    inwards = 1 + 0.4 * (1 - 2 * product.r).clip(0)
    uneven = _relative(inwards * drift(product, draws, draws.uniform(0.2, 0.6)), product)
    return fails * uneven + draws.uniform(0, 0.35) * product.rim


def _scratch(product: Product, draws: Draws) -> Field:
    """Walk along the scratch in steps of half a die; the arrays are of shape (n, 1, steps)."""
    height, width = product.r.shape
    length = draws.log_normal(0.65 * product.side, 0.5).clip(5, 1.5 * product.side)
    n_steps = (2 * length).astype(np.int64)
    steps = np.arange(n_steps.max())
    bends = draws.normal(0, 1.1) / length + draws.rng.normal(0, 0.035, (draws.n, 1, len(steps)))
    heading = draws.direction() + 0.5 * bends.cumsum(axis=2)
    offset, direction = 0.9 * np.sqrt(draws.uniform(0, 1)), draws.direction()
    y, x = (0.5 * np.sin(heading)).cumsum(axis=2), (0.5 * np.cos(heading)).cumsum(axis=2)
    middle = n_steps // 2
    y += height / 2 * (1 + offset * np.sin(direction)) - np.take_along_axis(y, middle, axis=2)
    x += width / 2 * (1 + offset * np.cos(direction)) - np.take_along_axis(x, middle, axis=2)
    gaps = (draws.rng.random(y.shape) < 0.015).cumsum(axis=2)
    gaps[..., 6:] -= gaps[..., :-6].copy()  # each is three dies long
    hit = (steps < n_steps) & (gaps == 0) & (draws.rng.random(y.shape) < draws.uniform(0.85, 1))
    beside = hit & draws.happens(0.28)  # two dies wide
    level = np.abs(np.cos(heading)) > 0.7
    fails = np.zeros((draws.n, height, width), dtype=np.float32)
    for where, down, right in ((hit, 0, 0), (beside, level, ~level)):
        row, column = np.floor(y + down).astype(np.int64), np.floor(x + right).astype(np.int64)
        inside = where & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        fails[np.nonzero(inside)[0], row[inside], column[inside]] = 1
    return fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One class.

    Attributes:
        pattern: Chance that the pattern makes each die fail, of shape (n, h, w); added to the background.
        wafers: How many WM-811K has.
        per_lot: Mean wafers of the class in a lot that has any.
        own: How much the wafers of one lot differ, see `Draws`.
        large: Exponent of the side by which larger products are preferred.
        background: Rate of background fails, relative to `none`.
    """

    pattern: Callable[[Product, Draws], Field]
    wafers: int
    per_lot: float
    own: float = 1.0
    large: float = 0.0
    background: float = 1.0


RECIPES: Mapping[str, Recipe] = {
    "Center": Recipe(pattern=_center, wafers=4294, per_lot=2.6, own=0.3, large=-0.8, background=1.3),
    "Donut": Recipe(pattern=_donut, wafers=555, per_lot=2.4, own=0.3, large=0.8, background=1.3),
    "Edge-Loc": Recipe(pattern=_edge_loc, wafers=5189, per_lot=1.6, large=0.5, background=1.4),
    "Edge-Ring": Recipe(pattern=_edge_ring, wafers=9680, per_lot=9.0, own=0.2, large=1.4),
    "Loc": Recipe(pattern=_loc, wafers=3593, per_lot=1.5, large=0.6),
    "Near-full": Recipe(pattern=_near_full, wafers=149, per_lot=1.1, large=0.2),
    "none": Recipe(pattern=_none, wafers=147431, per_lot=25),
    "Random": Recipe(pattern=_random, wafers=866, per_lot=1.9, own=0.3, large=0.4),
    "Scratch": Recipe(pattern=_scratch, wafers=1193, per_lot=1.1, large=1.0, background=0.9),
}


def _distance(product: Product, draws: Draws, offset: Field, direction: Field, length: Field, width: Field) -> Field:
    """Distance from a point, in units of an ellipse of random orientation around it."""
    du, dv = product.u - offset * np.cos(direction), product.v - offset * np.sin(direction)
    tilt = draws.direction()
    cos, sin = np.cos(tilt), np.sin(tilt)
    distance: Field = np.hypot((cos * du + sin * dv) / length, (cos * dv - sin * du) / width)
    return distance


def _relative(profile: Field, product: Product) -> Field:
    """Scale a factor so that its mean over the dies is 1."""
    mean = (profile * product.tested).mean((1, 2), keepdims=True) / product.tested.mean()
    scaled: Field = profile / mean
    return scaled


def _fade(distance: Field, steepness: float) -> Field:
    """Fall from 1 at distance 0 over 1/e at distance 1 to 0."""
    remaining: Field = np.exp(-(distance**steepness))
    return remaining


def _degrees_between(angle: Field, other: Field) -> Field:
    turned: Field = np.degrees(np.abs((angle - other + np.pi) % (2 * np.pi) - np.pi))
    return turned
