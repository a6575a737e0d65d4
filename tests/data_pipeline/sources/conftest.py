from collections.abc import Callable, Iterator

import numpy as np
import pytest


@pytest.fixture(scope="session")
def mutations() -> Callable[[bytes], Iterator[bytes]]:
    """Damage a file 300 times: cut off, and with one to three bytes changed."""

    def mutate(valid: bytes) -> Iterator[bytes]:
        generator = np.random.default_rng(0)
        for _ in range(300):
            mutated = bytearray(valid[: generator.integers(len(valid) // 2, len(valid) * 2)])
            for position in generator.integers(len(mutated), size=generator.integers(1, 4)):
                mutated[position] = generator.integers(256)
            yield bytes(mutated)

    return mutate
