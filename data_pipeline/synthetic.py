"""A generator of wafers like WM-811K's, for demonstrations and tests; never mixed into reported scores.

What makes the real task hard is kept: a noisy background with a worse rim, patterns that are partial or off centre,
products that favour some classes, lots whose wafers look alike, weak patterns that the labeller called `none`, and, if
asked for, maps that stand there twice.

The class recipes are in `data_pipeline.patterns`; here are products, lots, background and the labeller's mistakes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from data_pipeline.errors import DataError
from data_pipeline.patterns import RECIPES, Dies, Draws, Field, Generator, Product, Recipe, drift
from data_pipeline.wafer_set import FAIL, NO_DIE, PASS, WM811K_CLASSES, WaferSet, make_wafer_set

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


def make_wafers(
    n: int, *, seed: int = 0, duplicates: float = 0.0, progress: Callable[[int, int], None] | None = None
) -> WaferSet:
    """Draw n labelled wafers: 60 % none, the other classes in WM-811K's proportions.

    Rare classes are topped up to n / 75 wafers, 30 at most. From 600 wafers on, each class occurs in at least six
    lots, so that every part of a lot-disjoint split can have it. The shares are those before label noise, which moves
    one or two wafers in a hundred from Edge-Loc, Loc, Center and Scratch to none.

    Args:
        n: Number of wafers, those entered twice included, at least 100.
        seed: Equal n and seed give equal wafers.
        duplicates: Share of the n that are maps of the others entered again, lot by lot, under new lot numbers and
            labelled a second time; in [0, 0.5]. In WM-811K two or three maps in a hundred stand there twice. The
            others are what `n` less these wafers would give without duplicates.
        progress: Called with the wafers drawn so far and all that are drawn.

    Raises:
        DataError: If less than 100 wafers are drawn, the share lies outside its range, or the seed is negative.
    """
    n_again = _check_request(n, seed, duplicates)
    rng = np.random.default_rng(seed)
    shapes, seats_LK = _plan_lots(n - n_again, rng)
    maps: list[NDArray[np.uint8]] = []
    labels, strengths, lots = [], [], []
    for lot, (shape, seats_K) in enumerate(zip(shapes, seats_LK, strict=True)):
        lot_labels = rng.permutation(np.repeat(np.arange(len(seats_K)), seats_K))
        lot_maps, lot_strengths = _draw_lot(shape, lot_labels, rng)
        maps.extend(lot_maps)
        labels.append(lot_labels)
        strengths.append(lot_strengths)
        lots.append(np.full(len(lot_labels), lot))
        if progress:
            progress(len(maps), n - n_again)
    given = _mislabel(np.concatenate(labels), np.concatenate(strengths), rng)
    first_lots = np.concatenate(lots)
    again, new_lots = _choose_again(first_lots, n_again, rng)
    all_labels = np.concatenate([given, _label_again(given[again], rng)])
    return make_wafer_set(
        [*maps, *(maps[i] for i in again)],
        [WM811K_CLASSES[k] for k in all_labels],
        [f"synthetic-{lot + 1}" for lot in np.concatenate([first_lots, new_lots])],
        source=f"synthetic ({n:,} wafers, seed {seed}{f', {n_again:,} entered twice' if n_again else ''})",
        classes=WM811K_CLASSES,
        is_synthetic=True,
    )


def _check_request(n: int, seed: int, duplicates: float) -> int:
    """Check what was asked for; return how many of the wafers are entered again."""
    if n < MIN_WAFERS:
        raise DataError(f"synthetic wafers: must be at least {MIN_WAFERS}, or classes would be missing; got {n}")
    if seed < 0:
        raise DataError(f"synthetic wafers: seed must be >= 0; got {seed}")
    if not 0 <= duplicates <= 0.5:
        raise DataError(f"synthetic wafers: duplicates must be a share in [0, 0.5]; got {duplicates}")
    n_again = round(n * duplicates)
    if n - n_again < MIN_WAFERS:
        raise DataError(
            f"synthetic wafers: must be at least {MIN_WAFERS} besides the duplicates, or classes would be missing; "
            f"got {n - n_again} of {n}; ask for more wafers, or for less duplicates"
        )
    return n_again


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
    recipes = [RECIPES[name] for name in WM811K_CLASSES]
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
    wanted: int, recipe: Recipe, *, preference: Field, free: NDArray[np.int64], rng: Generator
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
        recipe, rows = RECIPES[WM811K_CLASSES[k]], np.flatnonzero(labels == k)
        chance = recipe.pattern(product, Draws(rng, len(rows), own=recipe.own))
        fails[rows] |= rng.random(chance.shape, dtype=np.float32) < chance
    fails &= product.tested
    n_background, n_fails = background.sum((1, 2)), fails.sum((1, 2))
    maps = np.where(product.tested, np.where(fails, FAIL, PASS), NO_DIE).astype(np.uint8)
    return maps, ((n_fails - n_background) / np.sqrt(n_background + 1)).astype(np.float32)


def _lay_out(shape: tuple[int, int], rng: Generator) -> Product:
    height, width = shape
    v, u = (np.mgrid[:height, :width] + 0.5).astype(np.float32) * 2 / np.reshape(shape, (2, 1, 1)) - 1
    r = np.hypot(u, v).astype(np.float32)
    inside = r <= 1
    untested = (r > 0.93) & (rng.random(shape) < rng.uniform(0, 0.06))
    tested = inside & ~untested
    core = binary_erosion(tested, np.ones((3, 3)))
    inner_core = binary_erosion(core, np.ones((3, 3)))
    return Product(
        u=u,
        v=v,
        r=r,
        angle=np.arctan2(v, u),
        tested=tested,
        rim=tested & ~core,
        second_rim=core & ~inner_core,
        side=max(shape),
    )


def _draw_background(product: Product, labels: NDArray[np.int64], rng: Generator) -> Dies:
    """Draw the fails that no pattern explains: more at the rim, fewer on large products, some of them in clumps."""
    draws = Draws(rng, len(labels), own=0.3)
    typical = max(0.03, 0.165 * (27 / product.side) ** 1.9)
    of_class = np.array([RECIPES[name].background for name in WM811K_CLASSES])[labels][:, None, None]
    rate = (typical * of_class * draws.log_normal(1, 0.33)).clip(0.004, 0.30)
    # Measured on `none`: the rim fails 2.3 times as often as the core at 27 dies, 4.3 times at 51, 6 times at 75.
    rim = (draws.log_normal(2.3 * product.side / 27, 0.28) - 1) * product.rim
    outwards = 0.15 * ((product.r - 0.8) / 0.2).clip(0, 1)
    middle = draws.uniform(0, 1.2) * (product.r < 0.1)  # process-control sites
    waves = drift(product, draws, draws.uniform(0.05, 0.3))
    profile = (1 + rim + outwards + middle) * waves * product.tested
    chance = rate * profile / profile.mean((1, 2), keepdims=True) * product.tested.mean()
    clumped = np.clip(0.08 + 0.005 * (product.side - 27), 0.05, 0.40)
    fails: Dies = rng.random(chance.shape, dtype=np.float32) < chance * (1 - clumped)
    _add_clumps(fails, product, n_dies=chance.sum((1, 2)) * clumped, rng=rng)
    return fails & product.tested


def _add_clumps(fails: Dies, product: Product, *, n_dies: Field, rng: Generator) -> None:
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


def _choose_again(lots: NDArray[np.int64], n_again: int, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose wafers to enter again, whole lots but for the last one, and number their new lots."""
    n_lots = int(lots.max()) + 1
    turn = np.empty(n_lots, dtype=np.int64)
    turn[rng.permutation(n_lots)] = np.arange(n_lots)
    chosen = np.argsort(turn[lots], kind="stable")[:n_again]
    return chosen, n_lots + turn[lots[chosen]]


def _label_again(labels: NDArray[np.int64], rng: Generator) -> NDArray[np.int64]:
    """Label wafers a second time.

    Two labels of one map differ about twice as often as one of them is wrong: 88 % of the defects keep theirs.
    """
    second = labels.copy()
    left = rng.random(len(labels))
    for first_name, second_name, share in _MISLABELLED:
        members = labels == WM811K_CLASSES.index(first_name)
        second[members & (left >= 0) & (left < 2 * share)] = WM811K_CLASSES.index(second_name)
        left[members] -= 2 * share
    return second
