"""A generator of wafers like WM-811K's, for demonstrations and tests; never mixed into reported scores.

What makes the real task hard is kept: a noisy background with a worse rim, patterns that are partial or off centre,
products that favour some classes, lots whose wafers look alike, and weak patterns that the labeller called `none`.

Lengths are in radii of the wafer, so that they hold for any product; u runs to the right and v down, both from -1 to 1.

Source:
    Distributions fitted to quantiles of fail rate, largest cluster, rim, core and clumping that were measured per class
    on labelled maps of WM-811K (Wu, Jang, Chen 2015, doi:10.1109/TSM.2014.2364237).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.special import betaincinv, ndtr

from data_pipeline.errors import DataError
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS, WM811K_CLASSES, WaferSet, make_wafer_set

Field = NDArray[np.floating]
Dies = NDArray[np.bool_]
Generator = np.random.Generator

MIN_WAFERS = 100
LOT_SIZE = 25
NONE_SHARE = 0.6  # 0.85 in WM-811K; a demonstration is for the patterns

# Height, width and wafers in a hundred of WM-811K's commonest products, rare large ones included.
_PRODUCTS = (
    ((25, 27), 18.8), ((26, 26), 14.4), ((30, 34), 12.4), ((29, 26), 11.8), ((27, 25), 10.7),
    ((39, 37), 10.2), ((33, 29), 8.1), ((42, 44), 6.7), ((44, 41), 6.1), ((41, 33), 5.1),
    ((35, 31), 4.0), ((38, 36), 4.0), ((33, 37), 4.0), ((45, 43), 3.0), ((48, 48), 3.0),
    ((53, 52), 2.5), ((63, 62), 2.0), ((69, 73), 1.2), ((107, 100), 0.5), ((150, 140), 0.3),
)  # fmt: skip


def make_wafers(n: int, *, seed: int = 0) -> WaferSet:
    """Draw n labelled wafers: 60 % none, the other classes in WM-811K's proportions.

    Rare classes are topped up to n / 75 wafers, 30 at most. From 600 wafers on, each class occurs in at least six
    lots, so that every part of a lot-disjoint split can have it. The shares are those before label noise, which moves
    one or two wafers in a hundred from Edge-Loc, Loc, Center and Scratch to none.

    Args:
        n: Number of wafers, at least 100.
        seed: Equal n and seed give equal wafers.

    Raises:
        DataError: If n is below 100 or the seed negative.
    """
    if n < MIN_WAFERS:
        raise DataError(f"synthetic wafers: must be at least {MIN_WAFERS}, or classes would be missing; got {n}")
    if seed < 0:
        raise DataError(f"synthetic wafers: seed must be >= 0; got {seed}")
    rng = np.random.default_rng(seed)
    shapes, seats_LK = _plan_lots(n, rng)
    maps: list[NDArray[np.uint8]] = []
    labels, strengths, lots = [], [], []
    for lot, (shape, seats_K) in enumerate(zip(shapes, seats_LK, strict=True)):
        lot_labels = rng.permutation(np.repeat(np.arange(len(seats_K)), seats_K))
        lot_maps, lot_strengths = _draw_lot(shape, lot_labels, rng)
        maps.extend(lot_maps)
        labels.append(lot_labels)
        strengths.append(lot_strengths)
        lots += [f"synthetic-{lot + 1}"] * len(lot_labels)
    given = _mislabel(np.concatenate(labels), np.concatenate(strengths), rng)
    return make_wafer_set(
        maps,
        [WM811K_CLASSES[k] for k in given],
        lots,
        source=f"synthetic ({n:,} wafers, seed {seed})",
        classes=WM811K_CLASSES,
        is_synthetic=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Product:
    """What the wafers of a lot share: the dies, each array of shape (h, w), and where they lie."""

    u: Field
    v: Field
    r: Field
    angle: Field
    tested: Dies
    rim: Dies  # the outermost dies
    second_rim: Dies  # the next ones inwards
    side: int  # the longer side in dies


class _Draws:
    """Parameters of the n wafers of one class in one lot, each of shape (n, 1, 1).

    The wafers of a lot are alike: each parameter is one value for the lot and one per wafer, so mixed that over many
    lots the asked distribution results. `own` is the wafer's part, 1 where a pattern strikes at random.
    """

    def __init__(self, rng: Generator, n: int, *, own: float) -> None:
        self.rng = rng
        self.n = n
        self._own = own

    def normal(self, mean: float, sd: float) -> Field:
        z: Field = self._own * self.rng.standard_normal((self.n, 1, 1), dtype=np.float32)
        return mean + sd * (z + math.sqrt(1 - self._own**2) * self.rng.standard_normal())

    def log_normal(self, median: float, sigma: float) -> Field:
        factor: Field = np.exp(self.normal(0, sigma))
        return median * factor

    def uniform(self, low: float, high: float) -> Field:
        share: Field = ndtr(self.normal(0, 1))
        return low + (high - low) * share

    def beta(self, a: float, b: float) -> Field:
        quantile: Field = betaincinv(a, b, self.uniform(0, 1))
        return quantile

    def direction(self) -> Field:
        return self.uniform(-np.pi, np.pi)

    def happens(self, share: float) -> Dies:
        return self.uniform(0, 1) < share


def _center(product: _Product, draws: _Draws) -> Field:
    length = draws.log_normal(0.27, 0.42).clip(0.08, 0.7)
    offset, direction = np.abs(draws.normal(0, 0.05)), draws.direction()
    distance = _distance(product, draws, offset, direction, length, length * draws.uniform(0.75, 1))
    return draws.uniform(0.75, 1) * _fade(distance, 2)


def _donut(product: _Product, draws: _Draws) -> Field:
    offset, direction = np.abs(draws.normal(0, 0.15)), draws.direction()
    u, v = product.u - offset * np.cos(direction), product.v - offset * np.sin(direction)
    radius, half_width = draws.normal(0.42, 0.07), draws.uniform(0.10, 0.24)
    gap = draws.happens(0.45) * draws.uniform(30, 130)
    ring = draws.uniform(0.6, 1) * _fade(np.abs(np.hypot(u, v) - radius) / half_width, 2)
    return ring * (_degrees_between(np.arctan2(v, u), draws.direction()) > gap / 2)


def _edge_loc(product: _Product, draws: _Draws) -> Field:
    half_arc = draws.log_normal(30, 0.6).clip(10, 120)
    depth = draws.log_normal(0.24, 0.55).clip(3 / product.side, 0.9)  # at least a die and a half
    along = _fade(_degrees_between(product.angle, draws.direction()) / half_arc, 4)
    return draws.uniform(0.6, 1) * along * _fade((1 - product.r).clip(0) / depth, 1.5)


def _edge_ring(product: _Product, draws: _Draws) -> Field:
    rim = draws.beta(14, 1)
    second_rim = np.where(draws.happens(0.35), draws.beta(4, 3), draws.beta(1.2, 6))
    gap = draws.happens(0.4) * draws.uniform(20, 140)
    ring: Field = rim * product.rim + second_rim * product.second_rim
    return ring * (_degrees_between(product.angle, draws.direction()) > gap / 2)


def _loc(product: _Product, draws: _Draws) -> Field:
    offset, direction = 0.8 * np.sqrt(draws.uniform(0.03, 1)), draws.direction()
    length = draws.log_normal(0.27, 0.5).clip(0.07, 0.8)
    distance = _distance(product, draws, offset, direction, length, length * draws.uniform(0.35, 1))
    return draws.uniform(0.5, 1) * _fade(distance, 2.5)


def _near_full(product: _Product, draws: _Draws) -> Field:
    passes = np.where(draws.happens(0.09), 0, draws.uniform(0.03, 0.28))
    return 1 - passes * _drift(product, draws, draws.uniform(0.2, 0.9))


def _none(product: _Product, draws: _Draws) -> Field:
    return np.zeros((draws.n, *product.r.shape), dtype=np.float32)


def _random(product: _Product, draws: _Draws) -> Field:
    fails = draws.normal(0.39, 0.11).clip(0.16, 0.7)
    return fails * _drift(product, draws, draws.uniform(0.1, 0.5)) + 0.05 * product.rim


def _scratch(product: _Product, draws: _Draws) -> Field:
    """Walk along the scratch in steps of half a die; the arrays are of shape (n, 1, steps)."""
    height, width = product.r.shape
    length = draws.log_normal(0.55 * product.side, 0.45).clip(5, 1.5 * product.side)
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
class _Recipe:
    """One class.

    Attributes:
        pattern: Chance that the pattern makes each die fail, of shape (n, h, w); added to the background.
        wafers: How many WM-811K has.
        per_lot: Mean wafers of the class in a lot that has any.
        own: How much the wafers of one lot differ, see `_Draws`.
        large: Exponent of the side by which larger products are preferred.
        background: Rate of background fails, relative to `none`.
    """

    pattern: Callable[[_Product, _Draws], Field]
    wafers: int
    per_lot: float
    own: float = 1.0
    large: float = 0.0
    background: float = 1.0


_RECIPES: Mapping[str, _Recipe] = {
    "Center": _Recipe(pattern=_center, wafers=4294, per_lot=2.6, own=0.3, large=-0.8, background=1.05),
    "Donut": _Recipe(pattern=_donut, wafers=555, per_lot=2.4, own=0.3, large=0.8),
    "Edge-Loc": _Recipe(pattern=_edge_loc, wafers=5189, per_lot=1.6, large=0.5, background=0.95),
    "Edge-Ring": _Recipe(pattern=_edge_ring, wafers=9680, per_lot=9.0, own=0.2, large=1.4, background=0.62),
    "Loc": _Recipe(pattern=_loc, wafers=3593, per_lot=1.5, large=0.6),
    "Near-full": _Recipe(pattern=_near_full, wafers=149, per_lot=1.1, large=0.2),
    "none": _Recipe(pattern=_none, wafers=147431, per_lot=25),
    "Random": _Recipe(pattern=_random, wafers=866, per_lot=1.9, own=0.3, large=0.4),
    "Scratch": _Recipe(pattern=_scratch, wafers=1193, per_lot=1.1, large=1.0, background=0.9),
}

# Share of a class that the labeller gave another name, after 102 defect maps that WM-811K holds with two labels.
_MISLABELLED = (
    ("Edge-Loc", "none", 0.08),
    ("Loc", "none", 0.08),
    ("Scratch", "none", 0.05),
    ("Center", "none", 0.03),
    ("Edge-Loc", "Edge-Ring", 0.03),
    ("Edge-Ring", "Edge-Loc", 0.03),
    ("Loc", "Edge-Loc", 0.04),
    ("Loc", "Center", 0.03),
)


def _plan_lots(n: int, rng: Generator) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Choose the product of each of L lots and how many wafers of each class it has, shape (L, K)."""
    free = np.full(-(-n // LOT_SIZE), LOT_SIZE)
    free[-1] = n - LOT_SIZE * (len(free) - 1)
    weights = np.array([weight for _, weight in _PRODUCTS])
    shapes = [_PRODUCTS[i][0] for i in rng.choice(len(weights), size=len(free), p=weights / weights.sum())]
    sides = np.array([max(shape) for shape in shapes])
    recipes = [_RECIPES[name] for name in WM811K_CLASSES]
    none = WM811K_CLASSES.index("none")
    share = (1 - NONE_SHARE) / sum(recipe.wafers for k, recipe in enumerate(recipes) if k != none)
    seats_LK = np.zeros((len(free), len(recipes)), dtype=np.int64)
    for k, recipe in enumerate(recipes):
        if k != none:
            wanted = max(round(n * share * recipe.wafers), min(n // 75, 30))
            seats_LK[:, k] = _seat(wanted, recipe, preference=sides**recipe.large, free=free, rng=rng)
            free -= seats_LK[:, k]
    seats_LK[:, none] = free
    return shapes, seats_LK


def _seat(
    wanted: int, recipe: _Recipe, *, preference: Field, free: NDArray[np.int64], rng: Generator
) -> NDArray[np.int64]:
    """Spread the wanted wafers of a class over the free places of the lots, one group per lot.

    A pass visits a quarter of the lots, or the preference would have no effect on a common class. No group is larger
    than a tenth of the class, so that a class is never in one or two lots only.
    """
    seats = np.zeros_like(free)
    while (left := wanted - seats.sum()) > 0:
        room = free - seats
        # The exponential race: ascending waiting times are a random order that respects the weights.
        waiting = np.where(room > 0, rng.exponential(size=len(free)) / preference, np.inf)
        visited = np.argsort(waiting)[: -(-len(free) // 4)]
        groups = rng.geometric(1 / recipe.per_lot, size=len(visited)).clip(max=max(1, wanted // 10))
        filled = np.minimum(groups, room[visited]).cumsum().clip(max=left)
        seats[visited] += np.diff(filled, prepend=0)
    return seats


def _draw_lot(shape: tuple[int, int], labels: NDArray[np.int64], rng: Generator) -> tuple[NDArray[np.uint8], Field]:
    """Draw a lot's maps, shape (n, h, w), and how much each pattern stands out of its background, shape (n,)."""
    product = _lay_out(shape, rng)
    background = _draw_background(product, labels, rng)
    fails = background.copy()
    for k in np.unique(labels):
        recipe, rows = _RECIPES[WM811K_CLASSES[k]], np.flatnonzero(labels == k)
        chance = recipe.pattern(product, _Draws(rng, len(rows), own=recipe.own))
        fails[rows] |= rng.random(chance.shape, dtype=np.float32) < chance
    fails &= product.tested
    n_background, n_fails = background.sum((1, 2)), fails.sum((1, 2))
    maps = np.where(product.tested, np.where(fails, FAIL, PASS), NO_DIE).astype(np.uint8)
    return maps, ((n_fails - n_background) / np.sqrt(n_background + 1)).astype(np.float32)


def _lay_out(shape: tuple[int, int], rng: Generator) -> _Product:
    height, width = shape
    v, u = (np.mgrid[:height, :width] + 0.5).astype(np.float32) * 2 / np.reshape(shape, (2, 1, 1)) - 1
    r = np.hypot(u, v).astype(np.float32)
    inside = r <= 1
    untested = (r > 0.93) & (rng.random(shape) < rng.uniform(0, 0.06))
    tested = inside & ~untested
    core = binary_erosion(inside, np.ones((3, 3)))
    inner_core = binary_erosion(core, np.ones((3, 3)))
    return _Product(
        u=u,
        v=v,
        r=r,
        angle=np.arctan2(v, u),
        tested=tested,
        rim=inside & ~core,
        second_rim=core & ~inner_core,
        side=max(shape),
    )


def _draw_background(product: _Product, labels: NDArray[np.int64], rng: Generator) -> Dies:
    """Draw the fails that no pattern explains: more at the rim, fewer on large products, some of them in clumps."""
    draws = _Draws(rng, len(labels), own=0.3)
    typical = max(0.03, 0.165 * (27 / product.side) ** 1.9)
    of_class = np.array([_RECIPES[name].background for name in WM811K_CLASSES])[labels][:, None, None]
    rate = (typical * of_class * draws.log_normal(1, 0.33)).clip(0.004, 0.30)
    # Measured on `none`: the rim fails 2.3 times as often as the core at 27 dies, 4.3 times at 51, 6 times at 75.
    rim = (draws.log_normal(2.3 * product.side / 27, 0.28) - 1) * product.rim
    outwards = 0.15 * ((product.r - 0.8) / 0.2).clip(0, 1)
    middle = draws.uniform(0, 1.2) * (product.r < 0.1)  # process-control sites
    drift = _drift(product, draws, draws.uniform(0.05, 0.3))
    profile = (1 + rim + outwards + middle) * drift * product.tested
    chance = rate * profile / profile.mean((1, 2), keepdims=True) * product.tested.mean()
    clumped = np.clip(0.08 + 0.005 * (product.side - 27), 0.05, 0.40)
    fails: Dies = rng.random(chance.shape, dtype=np.float32) < chance * (1 - clumped)
    _add_clumps(fails, product, n_dies=chance.sum((1, 2)) * clumped, rng=rng)
    return fails & product.tested


def _add_clumps(fails: Dies, product: _Product, *, n_dies: Field, rng: Generator) -> None:
    """Add about n_dies fails to each wafer as short walks of a chess king."""
    wafer = np.repeat(np.arange(len(fails)), rng.poisson(n_dies / 2.2))
    if len(wafer) == 0:
        return
    length = 1 + rng.poisson(1.2, size=len(wafer))
    dies = np.argwhere(product.tested)
    moves = rng.integers(-1, 2, size=(length.max(), len(wafer), 2))
    moves[0] = dies[rng.integers(len(dies), size=len(wafer))]
    path = moves.cumsum(axis=0)
    row, column = path[..., 0], path[..., 1]
    kept = (np.arange(length.max())[:, None] < length) & (path >= 0).all(2) & (path < product.r.shape).all(2)
    fails[np.broadcast_to(wafer, kept.shape)[kept], row[kept], column[kept]] = True


def _distance(product: _Product, draws: _Draws, offset: Field, direction: Field, length: Field, width: Field) -> Field:
    """Distance from a point, in units of an ellipse of random orientation around it."""
    du, dv = product.u - offset * np.cos(direction), product.v - offset * np.sin(direction)
    tilt = draws.direction()
    cos, sin = np.cos(tilt), np.sin(tilt)
    distance: Field = np.hypot((cos * du + sin * dv) / length, (cos * dv - sin * du) / width)
    return distance


def _fade(distance: Field, steepness: float) -> Field:
    """Fall from 1 at distance 0 over 1/e at distance 1 to 0."""
    remaining: Field = np.exp(-(distance**steepness))
    return remaining


def _degrees_between(angle: Field, other: Field) -> Field:
    turned: Field = np.degrees(np.abs((angle - other + np.pi) % (2 * np.pi) - np.pi))
    return turned


def _drift(product: _Product, draws: _Draws, strength: Field) -> Field:
    """Smooth factor around 1 across the wafer: three waves of about its size, other ones on each wafer."""
    waves = np.zeros((draws.n, *product.r.shape), dtype=np.float32)
    for _ in range(3):
        height, phase, direction, frequency = draws.rng.random((4, draws.n, 1, 1), dtype=np.float32)
        turn = 2 * np.pi * direction
        along = np.cos(turn) * product.u + np.sin(turn) * product.v
        waves += 2 * height * np.cos(2 * np.pi * phase + np.pi * (0.3 + 0.8 * frequency) * along)
    factor: Field = np.exp(strength * waves / 1.7)
    return factor


def _mislabel(labels: NDArray[np.int64], strengths: Field, rng: Generator) -> NDArray[np.int64]:
    """Give wafers other classes as a labeller would, weak patterns first."""
    given = labels.copy()
    for true_name, given_name, share in _MISLABELLED:
        true, wrong = WM811K_CLASSES.index(true_name), WM811K_CLASSES.index(given_name)
        members = np.flatnonzero(labels == true)
        candidates = members[given[members] == true]
        doubt = strengths[candidates] * rng.lognormal(0, 0.5, size=len(candidates))
        given[candidates[np.argsort(doubt)[: round(share * len(members))]]] = wrong
    return given
