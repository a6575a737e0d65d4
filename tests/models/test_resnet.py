import pytest

from models import build_model


def test_the_new_stem_starts_like_the_convolutions_around_it():
    model = build_model("resnet18", n_classes=3, options={}, seed=0)

    # He et al. 2015, arXiv:1502.01852: a standard deviation of sqrt(2 / fan), the fan being 64 channels of 3x3.
    expected = (2 / (64 * 9)) ** 0.5
    assert model.conv1.weight.std().item() == pytest.approx(expected, rel=0.1)
    assert model.layer1[0].conv1.weight.std().item() == pytest.approx(expected, rel=0.1)
