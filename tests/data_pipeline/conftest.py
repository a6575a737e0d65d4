import numpy as np
import pytest
from hypothesis import settings

from data_pipeline.synthetic import make_wafers
from data_pipeline.wafer_set import WaferSet, make_wafer_set

# A property must hold, not be quick: two shared cores stall now and then.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def synthetic() -> WaferSet:
    """600 synthetic wafers of nine classes in 24 lots."""
    return make_wafers(600)


@pytest.fixture(scope="session")
def few() -> WaferSet:
    """Four small wafers, the last one unlabelled; the first and the third are equal."""
    maps = [[[0, 1], [2, 1]], [[1, 1, 2]], [[0, 1], [2, 1]], [[2], [1], [0]]]
    return make_wafer_set(
        [np.array(one) for one in maps],
        ["arc", "ring", "ring", None],
        ["lot 7", "lot 7", "lot 8", "lot 9"],
        source="a few",
    )
