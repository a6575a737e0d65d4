from collections.abc import Callable

import pytest
import torch

from data_pipeline.encode import Picture
from data_pipeline.wafer_set import WM811K_CLASSES
from models import build_model
from search.final.model_file import TrainedModel
from search.trial.params import from_flat
from search.trial.prediction import Ensemble, Predictor


@pytest.fixture(scope="session")
def make_trained() -> Callable[..., TrainedModel]:
    """Make a final model of small networks that nobody has trained, on maps of 16 pixels."""

    def make(*, model="wafer_cnn", classes=WM811K_CLASSES, shift=None, test_time="single", members=1, **more):
        """Make one.

        Args:
            model: The architecture.
            classes: Names of the classes.
            shift: Added to the logits; None: nothing.
            test_time: From how many views it decides.
            members: How many networks, from the seeds 1, 2 and so on.
            more: Fields of TrainedModel.
        """
        flat = {"model": model, f"model.{model}.width": 4, "precision": "fp32", "test_time": test_time}
        params = from_flat(flat, where="test", image_size=16)
        seeds, k = tuple(range(1, members + 1)), len(classes)
        networks = [build_model(model, n_classes=k, options=params.model.options, seed=seed) for seed in seeds]
        shift = torch.zeros(k) if shift is None else shift
        fields = {
            "picture": Picture(image_size=16),
            "on": "train",
            "data_fingerprint": "aaa",
            "split_fingerprint": "bbb",
            "is_synthetic": True,
        }
        return TrainedModel(
            model=Ensemble([Predictor(network, shift=shift, test_time=test_time) for network in networks]).eval(),
            config=params.to_flat(),
            seeds=seeds,
            classes=classes,
            **fields | more,
        )

    return make
