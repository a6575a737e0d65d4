"""Where EfficientNet's weights come from, what freezing holds still, and how maps reach the backbone."""

import os
import pickle
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models import EfficientNet_B0_Weights, efficientnet_b2
from torchvision.models import resnet18 as torchvision_resnet18

from models import ModelError, build_model, check_model

IMAGENET_FILE = Path(urlparse(EfficientNet_B0_Weights.IMAGENET1K_V1.url).path).name


class Bait:
    """Makes a folder when it is unpickled: what a hostile file would do, without the harm."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def weights_file(weights_folder):
    return str(weights_folder / "backbone.pt")


@pytest.fixture
def frozen(weights_file):
    return build(weights=weights_file, freeze="backbone")


@pytest.fixture
def imagenet_file(tmp_path, monkeypatch):
    """Where torch would keep ImageNet's weights; nothing is there yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / IMAGENET_FILE


@pytest.fixture
def no_network(monkeypatch):
    """Let each download fail as it would offline; returns how to choose the failure."""

    def fail_with(error):
        def download(*args, **kwargs):
            raise error

        monkeypatch.setattr("torch.hub.download_url_to_file", download)

    return fail_with


def build(*, seed=0, **options):
    return build_model("efficientnet_b0", n_classes=3, options={"input_size": 32} | options, seed=seed)


def check(*, image_size=16, **options):
    check_model("efficientnet_b0", options={"input_size": 32} | options, image_size=image_size)


def features_of(model):
    return {f"features.{name}": tensor.clone() for name, tensor in model.features.state_dict().items()}


def only_features(state):
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}


def train_step(model, maps):
    """Take one step with whatever trains."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([tensor for tensor in model.parameters() if tensor.requires_grad], lr=1.0)
    cross_entropy(model(maps), torch.arange(len(maps)) % 3).backward()
    optimizer.step()


def assert_equal_states(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_refused(message, **options):
    """Both the check before any trial and building itself say why."""
    with pytest.raises(ModelError, match=message):
        check(**options)
    with pytest.raises(ModelError, match=message):
        build(**options)


# Weights that load


def test_the_features_of_a_file_are_loaded_exactly(weights_file, backbone_state):
    check(weights=weights_file)
    model = build(weights=weights_file)

    assert_equal_states(features_of(model), only_features(backbone_state))


def test_a_file_without_a_classifier_is_loaded(tmp_path, backbone_state):
    torch.save(only_features(backbone_state), tmp_path / "features.pt")

    check(weights=str(tmp_path / "features.pt"))
    model = build(weights=str(tmp_path / "features.pt"))

    assert_equal_states(features_of(model), only_features(backbone_state))


def test_a_file_with_a_classifier_of_other_classes_is_loaded(tmp_path, backbone_state):
    other = {"classifier.1.weight": torch.zeros(9, 1280), "classifier.1.bias": torch.zeros(9)}
    torch.save(backbone_state | other, tmp_path / "nine.pt")

    check(weights=str(tmp_path / "nine.pt"))
    model = build(weights=str(tmp_path / "nine.pt"))

    assert_equal_states(features_of(model), only_features(backbone_state))


def test_a_file_in_half_precision_gives_a_model_in_single_precision(tmp_path, backbone_state):
    torch.save({name: tensor.half() for name, tensor in backbone_state.items()}, tmp_path / "half.pt")

    model = build(weights=str(tmp_path / "half.pt"))

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_head_depends_on_the_seed_and_not_on_the_file(weights_file):
    first, same, other = (build(weights=weights_file, seed=seed).head.state_dict() for seed in (0, 0, 1))

    assert torch.equal(first["1.weight"], same["1.weight"])
    assert not torch.equal(first["1.weight"], other["1.weight"])
    assert torch.equal(first["1.weight"], build(seed=0).head.state_dict()["1.weight"])


def test_imagenet_weights_that_torch_has_kept_need_no_network(imagenet_file, no_network, backbone_state, weights_file):
    no_network(URLError("offline"))
    imagenet_file.symlink_to(weights_file)

    check(weights="imagenet")
    model = build(weights="imagenet")

    assert_equal_states(features_of(model), only_features(backbone_state))


def test_checking_reads_the_file_once(weights_file, monkeypatch):
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: (reads.append(args), load(*args, **kwargs))[1])

    check(weights=weights_file)

    assert reads == [(Path(weights_file),)]


# Weights that do not


def test_a_missing_file_is_unreachable(tmp_path):
    assert_refused(
        r"weights '.*/absent\.pt' are unreachable \(No such file or directory\); give the path of a file, or none",
        weights=str(tmp_path / "absent.pt"),
    )


def test_a_folder_is_unreachable(tmp_path):
    assert_refused(r"are unreachable \(Is a directory\)", weights=str(tmp_path))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError(OSError("Name or service not known")), "Name or service not known"),
        (HTTPError("https://example.org", 403, "Forbidden", None, None), "Forbidden"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
    ],
)
@pytest.mark.usefixtures("imagenet_file")
def test_imagenet_without_a_network_is_unreachable(no_network, error, reason):
    no_network(error)

    assert_refused(rf"weights 'imagenet' are unreachable \({reason}\); give the path", weights="imagenet")


@pytest.mark.usefixtures("imagenet_file")
def test_a_spoilt_download_of_imagenet_is_refused(no_network):
    no_network(RuntimeError("invalid hash value"))

    assert_refused(r"weights 'imagenet' cannot be read \(RuntimeError\('invalid hash value'\)\)", weights="imagenet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read \(EOFError"),
        (b"PK\x03\x04 and then no archive", r"cannot be read \(RuntimeError"),
        (b"no weights at all", "are not a state dict that loads safely; save one with torch.save"),
    ],
)
def test_a_file_that_torch_has_not_saved_is_refused(tmp_path, content, message):
    (tmp_path / "broken.pt").write_bytes(content)

    assert_refused(rf"weights '.*/broken\.pt' {message}", weights=str(tmp_path / "broken.pt"))


@pytest.mark.parametrize(("saved", "kind"), [([1, 2], "list"), (torch.zeros(2), "Tensor"), (None, "NoneType")])
def test_a_file_with_something_else_than_a_state_dict_is_refused(tmp_path, saved, kind):
    torch.save(saved, tmp_path / "other.pt")

    assert_refused(rf"weights '.*/other\.pt' are not a state dict but a {kind}$", weights=str(tmp_path / "other.pt"))


@pytest.mark.parametrize("saved", [{}, {"model": {}}, {1: torch.zeros(2)}])
def test_a_dict_without_the_backbone_does_not_fit(tmp_path, saved):
    torch.save(saved, tmp_path / "empty.pt")

    assert_refused(
        rf"do not fit EfficientNet-B0 \(\d+ tensors missing, {len(saved)} unknown\)$",
        weights=str(tmp_path / "empty.pt"),
    )


def test_a_state_dict_of_another_architecture_does_not_fit(tmp_path):
    torch.save(torchvision_resnet18().state_dict(), tmp_path / "resnet18.pt")

    assert_refused(
        r"weights '.*/resnet18\.pt' do not fit EfficientNet-B0 \(\d+ tensors missing, \d+ unknown\)$",
        weights=str(tmp_path / "resnet18.pt"),
    )


def test_a_state_dict_of_a_wider_sibling_does_not_fit(tmp_path):
    torch.save(efficientnet_b2().state_dict(), tmp_path / "b2.pt")

    assert_refused(
        r"weights '.*/b2\.pt' do not fit EfficientNet-B0 \(size mismatch for features\.",
        weights=str(tmp_path / "b2.pt"),
    )


def test_a_file_that_lacks_one_tensor_does_not_fit(tmp_path, backbone_state):
    kept = backbone_state.keys() - {"features.0.0.weight"}
    torch.save({name: backbone_state[name] for name in kept}, tmp_path / "holed.pt")

    assert_refused(r"\(1 tensors missing, 0 unknown\)$", weights=str(tmp_path / "holed.pt"))


def test_a_file_with_a_tensor_too_many_does_not_fit(tmp_path, backbone_state):
    torch.save(backbone_state | {"features.9.weight": torch.zeros(2)}, tmp_path / "longer.pt")

    assert_refused(r"\(0 tensors missing, 1 unknown\)$", weights=str(tmp_path / "longer.pt"))


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(torch.save, id="torch.save"),
        pytest.param(lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)), id="pickle"),
    ],
)
def test_a_hostile_file_is_refused_and_never_executed(tmp_path, save):
    trace = tmp_path / "trace"
    save({"features.0.0.weight": Bait(trace)}, tmp_path / "hostile.pt")

    assert_refused(r"are not a state dict that loads safely", weights=str(tmp_path / "hostile.pt"))

    assert not trace.exists()


def test_a_hostile_file_in_the_place_of_imagenet_is_refused_and_never_executed(tmp_path, imagenet_file):
    trace = tmp_path / "trace"
    torch.save({"features.0.0.weight": Bait(trace)}, imagenet_file)

    assert_refused(r"weights 'imagenet' are not a state dict that loads safely", weights="imagenet")

    assert not trace.exists()


def test_the_bait_of_the_two_tests_above_would_leave_a_trace(tmp_path):
    torch.save(Bait(tmp_path / "trace"), tmp_path / "hostile.pt")

    torch.load(tmp_path / "hostile.pt", weights_only=False)

    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "bad", [{"input_size": 31}, {"dropout": 1.0}, {"freeze": "all"}, {"input_size": 32, "image_size": 33}]
)
def test_a_bad_option_is_found_before_the_weights_are_read(tmp_path, bad):
    with pytest.raises(ModelError, match=f"^{next(iter(bad))} must be"):
        check(weights=str(tmp_path / "absent.pt"), **bad)


# Freezing


def test_only_the_head_of_a_frozen_model_trains(frozen, wafer_maps):
    before = features_of(frozen), frozen.head[1].weight.clone()

    train_step(frozen.train(), wafer_maps())

    assert {name for name, tensor in frozen.named_parameters() if tensor.requires_grad} == {
        "head.1.weight",
        "head.1.bias",
    }
    assert_equal_states(features_of(frozen), before[0])
    assert not torch.equal(frozen.head[1].weight, before[1])


def test_the_statistics_of_a_frozen_backbone_stay_even_before_train_is_called(frozen, wafer_maps):
    before = features_of(frozen)

    assert frozen.training
    frozen(wafer_maps())

    assert_equal_states(features_of(frozen), before)


def test_the_statistics_of_a_frozen_backbone_stay_through_evaluation_and_pickling(frozen, wafer_maps):
    before = features_of(frozen)

    copy = pickle.loads(pickle.dumps(frozen.eval())).train()
    copy(wafer_maps())

    assert copy.head.training
    assert_equal_states(features_of(copy), before)


def test_the_whole_of_an_unfrozen_model_trains(weights_file, wafer_maps):
    model = build(weights=weights_file)
    before = features_of(model)

    train_step(model, wafer_maps())

    assert all(tensor.requires_grad for tensor in model.parameters())
    moved = {name for name, tensor in features_of(model).items() if not torch.equal(tensor, before[name])}
    assert moved >= {name for name, tensor in before.items() if tensor.dim() > 1}
    assert moved >= {name for name in before if "running" in name}


def test_a_frozen_backbone_without_weights_is_refused():
    assert_refused("^freeze 'backbone' without weights would train a head on noise; give", freeze="backbone")


# From the map to the backbone


@pytest.mark.parametrize("input_size", [32, 50])
def test_the_backbone_sees_maps_of_its_own_input_size(input_size, wafer_maps):
    model = build(input_size=input_size)
    seen = []
    model.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))

    model(wafer_maps(n=2))

    assert seen == [(2, 3, input_size, input_size)]


def test_the_backbone_sees_no_die_pass_and_fail_as_the_three_colours_of_imagenet(wafer_maps):
    model = build(input_size=32)
    seen = []
    model.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = wafer_maps(size=32)

    model(maps)

    colours = seen[0] * torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    colours += torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    torch.testing.assert_close(colours[:, 1:], maps)
    torch.testing.assert_close(colours.sum(1), torch.ones(4, 32, 32))


def test_maps_that_would_have_to_shrink_are_refused():
    check(input_size=32, image_size=32)

    with pytest.raises(
        ModelError, match=r"^input_size must be at least the image_size of 33, or dies would be lost; got 32$"
    ):
        check(input_size=32, image_size=33)
