from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from data_pipeline.batches import EncodedWafers, wrap_arrays
from data_pipeline.encode import Picture, encode_maps
from data_pipeline.synthetic import make_wafers
from search.trial.data import TrialData
from search.trial.params import TrialParams, from_flat
from search.trial.training import EpochReport, train_and_evaluate


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Compute in one thread: on two shared cores, two that wait for each other once took 425 s instead of 28 s."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def wafers() -> EncodedWafers:
    """240 synthetic wafers of nine classes, 16 pixels wide."""
    drawn = make_wafers(240)
    return wrap_arrays(encode_maps(drawn, np.arange(240), picture=Picture(image_size=16)), drawn.labels)


@pytest.fixture(scope="session")
def coded() -> EncodedWafers:
    """The same wafers as die codes."""
    drawn = make_wafers(240)
    picture = Picture(image_size=16, encoding="states")
    return wrap_arrays(encode_maps(drawn, np.arange(240), picture=picture), drawn.labels)


@pytest.fixture(scope="session")
def make_data(wafers) -> Callable[..., TrialData]:
    """Put 200 of the wafers into training and 40 into validation, in memory of their own."""

    def make(*, epoch_samples: int = 64) -> TrialData:
        return TrialData(
            train=wafers.select(torch.arange(200)),
            val=wafers.select(torch.arange(200, 240)),
            n_classes=9,
            epoch_samples=epoch_samples,
        )

    return make


@pytest.fixture(scope="session")
def read() -> Callable[..., TrialParams]:
    """Read a flat configuration over one that trains in a moment."""

    def read_flat(**flat: bool | int | float | str) -> TrialParams:
        chosen = flat.get("model", "wafer_cnn")
        quick = {"epochs": 2, "batch_size": 16, "lr": 0.01, "precision": "fp32"}
        narrow = {"wafer_cnn": {"model.wafer_cnn.width": 4}, "wafer_resnet": {"model.wafer_resnet.width": 4}}
        return from_flat(quick | narrow.get(chosen, {}) | flat, where="test", image_size=16)

    return read_flat


@pytest.fixture(scope="session")
def train() -> Callable[..., list[EpochReport]]:
    """Train to the end, seeded as search and retraining do it, and return all reports."""

    def train_all(params: TrialParams, data: TrialData) -> list[EpochReport]:
        generator = torch.Generator().manual_seed(params.seed)
        return [evaluation.report for evaluation in train_and_evaluate(params, data, generator=generator)]

    return train_all
