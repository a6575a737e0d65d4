"""How the options shape our own networks, and that the defaults fit the models that users have saved."""

import pytest
import torch
from torch import nn
from torchvision.ops import SqueezeExcitation, StochasticDepth

from models import build_model
from models.layers import GlobalPool, MaskChannel
from models.wafer_resnet import ResidualBlock

NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
# Whoever has to change these lists breaks the model files of users.
CNN_NAMES = [
    *["0.0.weight", *(f"0.2.{name}" for name in NORM)],
    *["1.0.weight", *(f"1.2.{name}" for name in NORM)],
    *["2.0.weight", *(f"2.2.{name}" for name in NORM)],
    *["3.0.weight", *(f"3.1.{name}" for name in NORM)],
    *["6.weight", "6.bias"],
]
RESNET_NAMES = [
    *["0.0.weight", *(f"0.1.{name}" for name in NORM)],
    *["1.body.0.0.weight", *(f"1.body.0.1.{name}" for name in NORM)],
    *["1.body.1.weight", *(f"1.body.2.{name}" for name in NORM)],
    *["2.body.0.0.weight", *(f"2.body.0.1.{name}" for name in NORM)],
    *["2.body.1.weight", *(f"2.body.2.{name}" for name in NORM)],
    *["2.shortcut.0.weight", *(f"2.shortcut.1.{name}" for name in NORM)],
    *["3.body.0.0.weight", *(f"3.body.0.1.{name}" for name in NORM)],
    *["3.body.1.weight", *(f"3.body.2.{name}" for name in NORM)],
    *["3.shortcut.0.weight", *(f"3.shortcut.1.{name}" for name in NORM)],
    *["6.weight", "6.bias"],
]
both = pytest.mark.parametrize("name", ["wafer_cnn", "wafer_resnet"])


def build(name, **options):
    return build_model(name, n_classes=3, options={"width": 4} | options, seed=0)


def parts(model, kind):
    return [part for part in model.modules() if isinstance(part, kind)]


def sizes(model, maps):
    """Run the layers one after the other and note the side of each feature map, once per change."""
    seen = [maps.shape[-1]]
    for layer in model:
        maps = layer(maps)
        seen += [maps.shape[-1]] if maps.dim() == 4 and maps.shape[-1] != seen[-1] else []
    return seen


def conv_by_hand(n_in, n_out, *, kernel=3, stride=1):
    return nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(n_out)


def halved(conv, norm):
    return conv, nn.MaxPool2d(2), norm


def cnn_by_hand():
    """Build wafer_cnn of width 4 without any code of ours but the pooling, in the order of its random draws."""
    relu = nn.ReLU()
    return nn.Sequential(
        nn.Sequential(*halved(*conv_by_hand(2, 4)), relu),
        nn.Sequential(*halved(*conv_by_hand(4, 8)), relu),
        nn.Sequential(*halved(*conv_by_hand(8, 16)), relu),
        *[nn.Sequential(*conv_by_hand(16, 16), relu), GlobalPool("avgmax"), nn.Dropout(0.1), nn.Linear(16, 3)],
    )


class BlockByHand(nn.Module):
    def __init__(self, n_in, n_out, *, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(*conv_by_hand(n_in, n_out, stride=stride), nn.ReLU()), *conv_by_hand(n_out, n_out)
        )
        projection = conv_by_hand(n_in, n_out, kernel=1, stride=stride) if n_in != n_out else ()
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x):
        return (self.body(x) + self.shortcut(x)).relu()


def resnet_by_hand():
    return nn.Sequential(
        nn.Sequential(*conv_by_hand(2, 4, kernel=5, stride=2), nn.ReLU()),
        *[BlockByHand(4, 4, stride=1), BlockByHand(4, 8, stride=2), BlockByHand(8, 16, stride=2)],
        *[GlobalPool("avgmax"), nn.Dropout(0.1), nn.Linear(16, 3)],
    )


# What users have saved


@pytest.mark.parametrize(("name", "names"), [("wafer_cnn", CNN_NAMES), ("wafer_resnet", RESNET_NAMES)])
def test_the_default_tensors_have_the_names_of_saved_models(name, names):
    assert list(build(name).state_dict()) == names


@pytest.mark.parametrize(("name", "by_hand"), [("wafer_cnn", cnn_by_hand), ("wafer_resnet", resnet_by_hand)])
def test_the_default_network_starts_and_answers_as_one_built_by_hand(name, by_hand, wafer_maps):
    model = build(name)
    torch.manual_seed(0)
    expected = by_hand()

    assert model.state_dict().keys() == expected.state_dict().keys()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
    torch.testing.assert_close(model.eval()(wafer_maps(size=21)), expected.eval()(wafer_maps(size=21)))


# Norm, squeeze-and-excitation, mask


@both
@pytest.mark.parametrize(("norm", "kinds"), [("batch", {nn.BatchNorm2d}), ("group", {nn.GroupNorm}), ("none", set())])
def test_no_other_norm_than_the_chosen_one_is_built(name, norm, kinds):
    model = build(name, norm=norm)

    found = parts(model, nn.BatchNorm2d | nn.GroupNorm)

    assert {type(part) for part in found} == kinds
    assert all((conv.bias is not None) == (norm == "none") for conv in parts(model, nn.Conv2d))


@both
@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_a_wafer_is_trained_on_as_if_it_were_alone(name, norm, wafer_maps):
    model = build(name, norm=norm, dropout=0.0).train()

    together = model(wafer_maps())
    alone = torch.cat([model(one) for one in wafer_maps().split(1)])

    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stem", ["full", "strided"])
@pytest.mark.parametrize("depth", [1, 3])
def test_squeeze_ends_each_stage_of_wafer_cnn(stem, depth):
    model = build("wafer_cnn", squeeze=True, stem=stem, depth=depth)

    assert [part.fc2.out_channels for part in parts(model, SqueezeExcitation)] == [4, 8, 16, 16]


@pytest.mark.parametrize("depth", [1, 3])
def test_squeeze_ends_the_body_of_each_block_of_wafer_resnet(depth):
    bodies = [list(block.body) for block in parts(build("wafer_resnet", squeeze=True, depth=depth), ResidualBlock)]

    assert len(bodies) == 3 * depth
    assert all(isinstance(body[-2], SqueezeExcitation) for body in bodies)


@both
def test_the_first_convolution_sees_a_third_channel_only_if_asked(name):
    masked, plain = build(name, mask_channel=True), build(name)

    assert isinstance(masked[0], MaskChannel)
    assert parts(masked, nn.Conv2d)[0].in_channels == 3
    assert parts(plain, nn.Conv2d)[0].in_channels == 2


# Stem


@pytest.mark.parametrize("size", [16, 21, 40])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_stems_of_wafer_resnet_differ_in_size_only_before_the_first_block(size, depth, wafer_maps):
    full, strided = (build("wafer_resnet", stem=stem, depth=depth) for stem in ("full", "strided"))
    maps = wafer_maps(n=2, size=size)

    assert full[0](maps).shape == (2, 4, size, size)
    assert sizes(full, maps) == sizes(strided, maps)
    assert full[1](full[0](maps)).shape == strided[1](strided[0](maps)).shape


# Stochastic depth


@pytest.mark.parametrize(("depth", "rates"), [(1, [0.0, 0.2, 0.4]), (2, [0.0, 0.08, 0.16, 0.24, 0.32, 0.4])])
def test_the_rate_of_stochastic_depth_grows_linearly_over_the_blocks(depth, rates):
    model = build("wafer_resnet", drop_path=0.4, depth=depth)

    assert [part.p for part in parts(model, StochasticDepth)] == pytest.approx(rates)


def test_stochastic_depth_acts_in_training_only(wafer_maps):
    whole, thinned = (build("wafer_resnet", drop_path=rate, dropout=0.0) for rate in (0.0, 0.5))
    maps = wafer_maps(n=8)

    torch.manual_seed(0)
    assert not torch.equal(whole.train()(maps), thinned.train()(maps))
    thinned.load_state_dict(whole.state_dict())
    assert torch.equal(whole.eval()(maps), thinned.eval()(maps))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_left_out_for_single_wafers_and_otherwise_strengthened(stride):
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, stride=stride, norm="none", drop_path=0.25)
    x = torch.randn(1, 4, 6, 6)

    with torch.no_grad():
        out = block.train()(x.expand(400, -1, -1, -1))
        without, body = block.shortcut(block.step(x)), block.eval().body(x)

    is_left_out = torch.isclose(out, without.relu(), atol=1e-5).flatten(1).all(1)
    is_kept = torch.isclose(out, (without + body / 0.75).relu(), atol=1e-5).flatten(1).all(1)
    assert (is_left_out ^ is_kept).all()
    assert is_left_out.float().mean().item() == pytest.approx(0.25, abs=0.08)
