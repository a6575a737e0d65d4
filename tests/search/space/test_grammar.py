"""Which spaces are refused, with which words, and which are not."""

from pathlib import Path

import pytest
import torch
from torchvision.models import efficientnet_b0

from search.errors import ConfigError
from search.space.space import Branch, Choice, Constant, Range

KNOWN_MODELS = "(known: efficientnet_b0, resnet18, wafer_cnn, wafer_resnet)"
CNN = "model: {choose: {wafer_cnn: {%s}}}"
IN_CNN = "space.model.choose.wafer_cnn."

# What stands under `space`, on one line, and what is said about it.
BAD_SPACES = [
    # keys
    ("", "space: must hold at least one parameter; known: sampling, augment, mixing, loss, "),
    ("{}", "space: must hold at least one parameter; known: sampling, "),
    ("5", "space: must hold at least one parameter; known: sampling, "),
    ("[lr]", "space: must hold at least one parameter; known: sampling, "),
    ("{epoch: 4}", "space.epoch: unknown key; did you mean 'epochs'? (known: augment, batch_size, decide_for, "),
    ("{dropout: 0.1}", "space.dropout: unknown key; known: augment, "),
    ("{model.wafer_cnn.lr: 1e-3}", "space.model.wafer_cnn.lr: put it under `choose`"),
    # constants
    ("{epochs: null}", "space.epochs: must be a number or a word; got None"),
    ("{epochs: [[2, 4]]}", "space.epochs.0: must be a number or a word; got [2, 4]"),
    ("{epochs: 0}", "space.epochs: must be a whole number in [1, 10000]; got 0"),
    ("{epochs: 10001}", "space.epochs: must be a whole number in [1, 10000]; got 10001"),
    ("{epochs: 2.0}", "space.epochs: must be a whole number in [1, 10000]; got 2.0"),
    ("{epochs: true}", "space.epochs: must be a whole number in [1, 10000]; got True"),
    ("{lr: fast}", "space.lr: must be a number in (0, 10]; got 'fast'"),
    ("{lr: 0}", "space.lr: must be a number in (0, 10]; got 0"),
    ("{lr: .nan}", "space.lr: must be a number in (0, 10]; got nan"),
    ("{seed: 2147483648}", "space.seed: must be a whole number in [0, 2147483648); got 2147483648"),
    ("{precision: fp16}", "space.precision: must be one of auto, fp32, bf16; got 'fp16'"),
    ("{model: wafer_cn}", f"space.model: unknown model 'wafer_cn'; did you mean 'wafer_cnn'? {KNOWN_MODELS}"),
    ("{sampling: 3}", "space.sampling: unknown sampling 3; known: balanced, effective_number, "),
    # choices
    ("{epochs: []}", "space.epochs: must list at least one value"),
    ("{epochs: [4, 8, 4]}", "space.epochs: lists a value twice; got [4, 8, 4]"),
    ("{lr: [1, 1.0]}", "space.lr: lists a value twice; got [1, 1.0]"),
    ("{epochs: [4, [2, 4]]}", "space.epochs.1: must be a number or a word; got [2, 4]"),
    ("{epochs: [4, 0]}", "space.epochs.1: must be a whole number in [1, 10000]; got 0"),
    ("{augment: [none, mirror]}", "space.augment.1: unknown augment 'mirror'; known: deck, none, "),
    # ranges
    ("{lr: {}}", "space.lr: a range needs low as a number; got None"),
    ("{lr: {low: 1e-3}}", "space.lr: a range needs high as a number; got None"),
    ("{lr: {low: small, high: 1}}", "space.lr.low: a range needs low as a number; got 'small'"),
    ("{lr: {low: 0.1, high: true}}", "space.lr.high: a range needs high as a number; got True"),
    ("{lr: {low: 1e-3, hihg: 1e-2}}", "space.lr.hihg: unknown key of a range; did you mean 'high'? (known: high, log,"),
    ("{lr: {low: 1e-2, high: 1e-3}}", "space.lr.low: must be below high (0.001); got 0.01"),
    ("{lr: {low: 1e-2, high: 1e-2}}", "space.lr.low: must be below high (0.01); got 0.01"),
    ("{lr: {low: .nan, high: 1e-2}}", "space.lr.low: must be below high (0.01); got nan"),
    ("{lr: {low: 0.1, high: .inf}}", "space.lr.high: must be a number in (0, 10]; got inf"),
    ("{subset: {low: 0.0, high: 0.1, log: true}}", "space.subset.low: must be > 0 when log is true; got 0.0"),
    ("{lr: {low: 0.1, high: 0.2, log: yes}}", "space.lr.log: must be true or false; got 'yes'"),
    ("{lr: {low: 0.1, high: 0.3, log: true, step: 0.1}}", "space.lr.step: cannot go together with log: true"),
    ("{lr: {low: 0.1, high: 0.3, step: null}}", "space.lr.step: a range needs step as a number; got None"),
    ("{lr: {low: 0.1, high: 0.3, step: 0}}", "space.lr.step: must be in (0, 0.2]; got 0"),
    ("{lr: {low: 0.1, high: 0.3, step: -0.1}}", "space.lr.step: must be in (0, 0.2]; got -0.1"),
    ("{lr: {low: 0.1, high: 0.3, step: 0.3}}", "space.lr.step: must be in (0, 0.2]; got 0.3"),
    ("{lr: {low: 0.1, high: 0.4, step: 0.2}}", "space.lr.step: must divide high - low (0.3) without a rest; got 0.2"),
    ("{epochs: {low: 2, high: 8, step: 1.5}}", "space.epochs.step: must be whole, as low (2) is; got 1.5"),
    ("{epochs: {low: 2, high: 8, step: 4}}", "space.epochs.step: must divide high - low (6) without a rest; got 4"),
    ("{grad_clip: {low: 0, high: 2.5}}", "space.grad_clip.high: must be whole, or not, as low (0) is; got 2.5"),
    ("{grad_clip: {low: 0.5, high: 2}}", "space.grad_clip.high: must be whole, or not, as low (0.5) is; got 2"),
    ("{epochs: {low: 1.0, high: 4.0}}", "space.epochs.low: must be a whole number in [1, 10000]; got 1.0"),
    ("{epochs: {low: 0, high: 4}}", "space.epochs.low: must be a whole number in [1, 10000]; got 0"),
    ("{subset: {low: 0.5, high: 1.5}}", "space.subset.high: must be a number in (0, 1]; got 1.5"),
    ("{precision: {low: 1, high: 2}}", "space.precision.low: must be one of auto, fp32, bf16; got 1"),
    # branches
    ("{lr: {choose: {fast: {}}}}", "space.lr: only sampling, augment, mixing, loss, optimizer, schedule, model can"),
    ("{model: {choose: {}}}", "space.model.choose: must be a mapping from each option to its own sub-space"),
    ("{model: {choose: [wafer_cnn]}}", "space.model.choose: must be a mapping from each option to its own sub-space"),
    ("{model: {choose: {wafer_cnn: 3}}}", "space.model.choose.wafer_cnn: must be a mapping of parameters, {} if there"),
    ("{model: {wafer_cnn: {}}}", "space.model: must be a name, a list of names, or a mapping of names under `choose`"),
    ("{sampling: {}}", "space.sampling: must be a name, a list of names, or a mapping of names under `choose`"),
    ("{model: {choose: {resnet_18: {}}}}", "space.model.choose.resnet_18: unknown model; did you mean 'resnet18'? ("),
    ("{model: {choose: {resnet18: {}}, lr: 1e-3}}", "space.model: nothing may stand beside `choose`; got lr"),
    (f"{{{CNN % 'widht: 8'}}}", f"{IN_CNN}widht: unknown option; did you mean 'width'? (known: batch_size, "),
    (f"{{{CNN % 'choose: {resnet18: {}}'}}}", f"{IN_CNN}choose: unknown option; known: "),
    (f"{{{CNN % 'lr: 11'}}}", f"{IN_CNN}lr: must be a number in (0, 10]; got 11"),
    # options, tried on the real factories: constants, both ends of ranges, every choice
    (f"{{{CNN % 'width: 2'}}}", "space.model.choose.wafer_cnn: width must be a whole number in [4, 256]; got 2"),
    (f"{{{CNN % 'width: [8, 300]'}}}", f"{IN_CNN}width: must be a whole number in [4, 256]; got 300"),
    (f"{{{CNN % 'width: wide'}}}", "space.model.choose.wafer_cnn: width must be a whole number; got 'wide'"),
    (f"{{{CNN % 'width: {low: 2, high: 8}'}}}", f"{IN_CNN}width: must be a whole number in [4, 256]; got 2"),
    (f"{{{CNN % 'width: {low: 8, high: 257}'}}}", f"{IN_CNN}width: must be a whole number in [4, 256]; got 257"),
    (f"{{{CNN % 'width: {low: 8.0, high: 9.0}'}}}", f"{IN_CNN}width: must be a whole number; got 8.0"),
    (f"{{{CNN % 'dropout: {low: -0.1, high: 0.5}'}}}", f"{IN_CNN}dropout: must be a number in [0, 0.9]; got -0.1"),
    (f"{{{CNN % 'dropout: {low: 0.1, high: 1.2}'}}}", f"{IN_CNN}dropout: must be a number in [0, 0.9]; got 1.2"),
    (f"{{{CNN % 'pooling: {low: 1, high: 2}'}}}", f"{IN_CNN}pooling: must be a word; got 1"),
    (f"{{{CNN % 'stem: [full, half]'}}}", f"{IN_CNN}stem: must be one of full, strided; got 'half'"),
    (
        "{sampling: {choose: {power: {alpha: {low: 0.5, high: 1.5}}}}}",
        "space.sampling.choose.power.alpha: must be in [0, 1]; got 1.5",
    ),
    (
        "{loss: {choose: {cross_entropy: {label_smoothing: -0.1}}}}",
        "space.loss.choose.cross_entropy: label_smoothing must be in [0, 0.5]; got -0.1",
    ),
    (
        "{optimizer: {choose: {sgd: {momentum: {low: 0.5, high: 1.0}}}}}",
        "space.optimizer.choose.sgd.momentum: must be in [0, 1); got 1.0",
    ),
    (
        "{schedule: {choose: {cosine: {warmup: [0.1, 0.95]}}}}",
        "space.schedule.choose.cosine.warmup: must be in [0, 0.9]; got 0.95",
    ),
    (
        "{augment: {choose: {symmetries_affine: {angle: {low: -1.0, high: 10.0}}}}}",
        "space.augment.choose.symmetries_affine.angle: must be in [0, ",
    ),
    # a field that would be set twice
    (
        "{lr: 1e-3, model: {choose: {wafer_cnn: {lr: 1e-2}}}}",
        "space.model.choose.wafer_cnn.lr: is set at the top too; which one counts would be unclear",
    ),
    (
        "{optimizer: {choose: {sgd: {lr: 1e-1}}}, model: {choose: {wafer_cnn: {lr: 1e-2}}}}",
        "space.model.choose.wafer_cnn.lr: is set at optimizer too; which one counts would be unclear",
    ),
    # weights
    (
        "{model: {choose: {efficientnet_b0: {freeze: backbone}}}}",
        "space.model.choose.efficientnet_b0: freeze 'backbone' without weights would train a head on noise",
    ),
    (
        "{model: {choose: {efficientnet_b0: {freeze: [none, backbone]}}}}",
        "space.model.choose.efficientnet_b0.freeze: 'backbone' without weights would train a head on noise",
    ),
    (
        "{model: {choose: {efficientnet_b0: {weights: no-such-file.pt}}}}",
        f"space.model.choose.efficientnet_b0: weights '{Path.cwd() / 'no-such-file.pt'}' are unreachable (No such file",
    ),
    (
        "{model: {choose: {efficientnet_b0: {weights: [none, no-such-file.pt]}}}}",
        f"space.model.choose.efficientnet_b0.weights: '{Path.cwd() / 'no-such-file.pt'}' are unreachable (No such file",
    ),
    (
        "{model: {choose: {efficientnet_b0: {input_size: 32}}}}",
        "space.model.choose.efficientnet_b0: input_size must be at least the image_size of 40, or dies would be lost",
    ),
]  # fmt: skip

GOOD_SPACES = {
    "{epochs: 4}": {"epochs": Constant(4)},
    "{epochs: [4]}": {"epochs": Choice((4,))},
    "{lr: [1e-3, 1]}": {"lr": Choice((0.001, 1))},
    "{epochs: {low: 2, high: 8, step: 2}}": {"epochs": Range(2, 8, step=2)},
    "{grad_clip: {low: 0, high: 3}}": {"grad_clip": Range(0, 3)},
    "{subset: {low: 0.1, high: 0.4, step: 0.1}}": {"subset": Range(0.1, 0.4, step=0.1)},
    "{lr: {low: 1e-4, high: 1e-2, log: true}}": {"lr": Range(1e-4, 1e-2, log=True)},
    "{lr: {low: 1e-4, high: 1e-2, log: false}}": {"lr": Range(1e-4, 1e-2)},
    "{model: [wafer_cnn, resnet18]}": {"model": Choice(("wafer_cnn", "resnet18"))},
    "{model: {choose: {wafer_cnn: , resnet18: {}}}}": {"model": Branch({"wafer_cnn": {}, "resnet18": {}})},
    "{model: {choose: {wafer_cnn: {lr: 1e-3}, resnet18: {lr: 1e-2}}}}": {
        "model": Branch({"wafer_cnn": {"lr": Constant(0.001)}, "resnet18": {"lr": Constant(0.01)}})
    },
}


def refusal(load, text):
    """Load a bad file; return what is said, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value).partition("space.yaml")[2]


@pytest.mark.parametrize(("space", "what"), BAD_SPACES)
def test_a_bad_space_is_refused(load, space, what):
    assert f":1 {what}" in refusal(load, f"space: {space}")


@pytest.mark.parametrize(("space", "nodes"), GOOD_SPACES.items())
def test_a_good_space_is_read(load, space, nodes):
    assert load(f"space: {space}").space.nodes == nodes


def test_a_mistake_is_found_on_its_line(load):
    text = """
name: x
space:
  epochs: [2, 4]
  model:
    choose:
      wafer_cnn:
        width: [4, 8]
      wafer_resnett:
        width: [4]
"""

    assert refusal(load, text) == (
        f":9 space.model.choose.wafer_resnett: unknown model; did you mean 'wafer_resnet'? {KNOWN_MODELS}"
    )


def test_three_mistakes_are_reported_together_with_their_lines(load):
    text = """
space:
  epochs: [2, 4]
  weight_decay: {low: 0.0, high: 0.1, log: true}
  model:
    choose:
      efficientnet_bo: {}
      wafer_cnn:
        dropout:
          low: 0.1
          high: 1.2
"""

    assert refusal(load, text).splitlines() == [
        ": 3 problems",
        "  :4 space.weight_decay.low: must be > 0 when log is true; got 0.0",
        f"  :7 space.model.choose.efficientnet_bo: unknown model; did you mean 'efficientnet_b0'? {KNOWN_MODELS}",
        "  :9 space.model.choose.wafer_cnn.dropout: must be a number in [0, 0.9]; got 1.2",
    ]


def test_two_unknown_keys_are_reported_together(load):
    said = refusal(load, "space: {epoch: 4, epochs: 4, lrr: 1e-3}").splitlines()

    assert [line.partition(";")[0] for line in said] == [
        ": 2 problems",
        "  :1 space.epoch: unknown key",
        "  :1 space.lrr: unknown key",
    ]


def test_a_wrong_name_in_a_list_is_reported_once(load):
    said = refusal(load, "space: {model: [wafer_cnn, wafer_cn]}")

    assert said == f":1 space.model.1: unknown model 'wafer_cn'; did you mean 'wafer_cnn'? {KNOWN_MODELS}"


def test_mistakes_in_the_options_of_two_branches_are_reported_together(load):
    said = refusal(load, "space: {model: {choose: {wafer_cnn: {width: 2}, wafer_resnet: {width: 3}}}}")

    assert said.splitlines() == [
        ": 2 problems",
        "  :1 space.model.choose.wafer_cnn: width must be a whole number in [4, 256]; got 2",
        "  :1 space.model.choose.wafer_resnet: width must be a whole number in [4, 256]; got 3",
    ]


@pytest.mark.parametrize(
    ("model", "where", "name", "smallest"),
    [
        ("", "space.model", "wafer_cnn", 16),
        ("model: wafer_resnet", "space.model", "wafer_resnet", 16),
        ("model: [efficientnet_b0, resnet18]", "space.model", "resnet18", 16),
        ("model: {choose: {wafer_cnn: {width: [4, 8]}}}", "space.model.choose.wafer_cnn", "wafer_cnn", 16),
    ],
)
def test_maps_smaller_than_a_model_can_see_are_refused(load, model, where, name, smallest):
    said = refusal(load, f"data: {{image_size: 8}}\nspace: {{epochs: 4, {model}}}")

    assert said == f":2 {where}: {name} needs an image_size of at least {smallest}; got 8"


@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_a_frozen_backbone_with_weights_is_accepted(load, tmp_path, form):
    weights = tmp_path / "weights.pt"
    torch.save(efficientnet_b0(weights=None).state_dict(), weights)
    listed = form.format(weights)

    config = load(f"space: {{model: {{choose: {{efficientnet_b0: {{weights: {listed}, freeze: [none, backbone]}}}}}}}}")

    assert config.space.values_of("model.efficientnet_b0.freeze") == ("none", "backbone")
