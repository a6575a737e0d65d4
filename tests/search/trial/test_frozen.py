"""A head learns from kept features exactly what it learns behind its frozen backbone."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import efficientnet_b0

from data_pipeline.augment import AUGMENTS
from data_pipeline.batches import EncodedWafers, plain_batches, train_batches
from models import build_model
from models.efficientnet import Transfer
from search.trial.evaluation import autocast
from search.trial.frozen import open_frozen, views_of


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def part(wafers):
    """70 wafers: a block of 64 and a rest."""
    return wafers.select(torch.arange(70))


@pytest.fixture
def open_kept(model, part, tmp_path):
    """Open the features of the model's backbone in one folder; whatever is not given is always the same."""

    def open_one(model=model, wafers=part, *, folder=tmp_path, dtype=torch.float32, rows=None):
        return open_frozen(model, wafers, folder=folder, dtype=dtype, rows=rows)

    return open_one


def make_model(*, frozen=True, input_size=20, seed=0, stride=2, dropout=0.5):
    """A transfer model with a backbone of one layer, which keeps its BatchNorm from being an identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=stride), nn.BatchNorm2d(8), nn.SiLU())
        features(torch.randn(16, 3, 8, 8))
        return Transfer(features, n_features=8, n_classes=9, input_size=input_size, dropout=dropout, frozen=frozen).to(
            memory_format=torch.channels_last
        )


def count_calls(model):
    """Remember with how many wafers the backbone is called."""
    sizes = []
    model.features.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


def draw(n_wafers, n, *, augment="symmetries"):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(n_wafers, (n,), generator=generator), AUGMENTS[augment](n, generator)


def learn(module, batches):
    """Take a step per batch; return the losses."""
    optimizer = torch.optim.SGD([tensor for tensor in module.parameters() if tensor.requires_grad], lr=0.1)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for inputs, labels in batches:
            loss = cross_entropy(module(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


# The same as behind the backbone


@pytest.mark.parametrize("augment", ["none", "symmetries"])
def test_the_head_learns_the_same_as_behind_its_backbone(open_kept, model, part, augment):
    drawn, choices = draw(70, 120, augment=augment)
    same = copy.deepcopy(model)
    kept = open_kept()

    losses = learn(model, train_batches(part, drawn, choices, batch_size=16))
    again = learn(same.head, open_kept(same).train_batches(drawn, views_of(choices, n=120), batch_size=16))

    assert kept.head is model.head
    torch.testing.assert_close(again, losses)
    torch.testing.assert_close(same.state_dict(), model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_what_the_backbone_computes_in_that_precision(open_kept, model, part, dtype):
    kept, _ = next(open_kept(dtype=dtype).plain_batches())

    with torch.no_grad(), autocast(torch.device("cpu"), dtype):
        computed = model.embed(next(plain_batches(part))[0])

    assert kept.dtype == computed.dtype == dtype
    torch.testing.assert_close(kept, computed)


@pytest.mark.parametrize(("n", "batch_size"), [(64, 16), (65, 16), (66, 16), (2, 2), (3, 2), (20, 20), (21, 20)])
def test_an_epoch_is_cut_as_without_a_store(open_kept, part, n, batch_size):
    drawn, choices = draw(70, n)

    kept = list(open_kept().train_batches(drawn, views_of(choices, n=n), batch_size=batch_size))
    plain = list(train_batches(part, drawn, choices, batch_size=batch_size))

    assert [labels.tolist() for _, labels in kept] == [labels.tolist() for _, labels in plain]
    assert [len(features) for features, _ in kept] == [len(channels) for channels, _ in plain]


@pytest.mark.parametrize("batch_size", [32, 35, 70, 512])
def test_validation_is_cut_as_without_a_store(open_kept, part, batch_size):
    kept = list(open_kept().plain_batches(batch_size=batch_size))
    plain = list(plain_batches(part, batch_size=batch_size))

    assert [labels.tolist() for _, labels in kept] == [labels.tolist() for _, labels in plain]
    assert [len(features) for features, _ in kept] == [len(channels) for channels, _ in plain]


def test_the_head_learns_after_a_validation_without_gradients(open_kept, model):
    drawn, choices = draw(70, 64)
    kept = open_kept()

    with torch.inference_mode():
        list(kept.plain_batches())

    assert len(learn(model.head, kept.train_batches(drawn, choices.symmetry, batch_size=16))) == 4


def test_a_subset_shares_the_features_of_the_whole_part(open_kept, model, part, tmp_path):
    rows = torch.tensor([69, 3, 17, 5])
    drawn, choices = draw(4, 12)
    list(open_kept().train_batches(rows[drawn], choices.symmetry, batch_size=4))
    sizes = count_calls(model)

    kept = list(open_kept(rows=rows).train_batches(drawn, choices.symmetry, batch_size=4))

    plain = list(train_batches(part.select(rows), drawn, choices, batch_size=4))
    assert sizes == []
    assert len(list(tmp_path.iterdir())) == 1
    for (features, labels), (channels, same_labels) in zip(kept, plain, strict=True):
        assert torch.equal(labels, same_labels)
        torch.testing.assert_close(features, model.embed(channels))


# Computed once


def test_the_backbone_runs_once_for_each_wafer_and_view(open_kept, model):
    sizes = count_calls(model)
    drawn, choices = draw(70, 600)

    for _ in range(3):
        kept = open_kept()
        list(kept.train_batches(drawn, choices.symmetry, batch_size=16))
        list(kept.plain_batches())

    n_pairs = len(set(zip(drawn.tolist(), choices.symmetry.tolist(), strict=True)))
    n_plain = 70 - len(set(drawn[choices.symmetry == 0].tolist()))
    assert sizes == [64] * (-(-n_pairs // 64) + -(-n_plain // 64))


def test_another_trial_needs_no_backbone(open_kept):
    list(open_kept().plain_batches())
    other = make_model(dropout=0.1)
    nn.init.zeros_(other.head[1].weight)
    sizes = count_calls(other)

    list(open_kept(other).plain_batches())

    assert sizes == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_do_not_depend_on_what_is_computed_beside_them(part, tmp_path, dtype):
    torch.save(efficientnet_b0().state_dict(), tmp_path / "weights.pt")
    options = {"weights": str(tmp_path / "weights.pt"), "freeze": "backbone", "input_size": 32}
    model = build_model("efficientnet_b0", n_classes=9, options=options, seed=0)
    together = open_frozen(model, part, folder=tmp_path / "together", dtype=dtype)
    apart = open_frozen(model, part, folder=tmp_path / "apart", dtype=dtype)

    for rows in torch.randperm(70, generator=torch.Generator().manual_seed(0)).split(29):
        list(apart.train_batches(rows, torch.zeros_like(rows), batch_size=29))

    assert torch.equal(next(together.plain_batches())[0], next(apart.plain_batches())[0])


# The key


def test_every_difference_that_matters_has_a_file_of_its_own(open_kept, part, tmp_path):
    turned = EncodedWafers(maps=part.maps.flip(0), labels=part.labels)
    stores = [
        open_kept(),
        open_kept(make_model(seed=1)),
        open_kept(make_model(input_size=24)),
        open_kept(make_model(stride=1)),
        open_kept(dtype=torch.bfloat16),
        open_kept(wafers=turned),
        open_kept(wafers=part.select(torch.arange(69))),
    ]

    for kept in stores:
        next(kept.plain_batches())

    assert len(list(tmp_path.iterdir())) == 7


def test_a_changed_statistic_of_batchnorm_has_a_file_of_its_own(open_kept, model, tmp_path):
    next(open_kept().plain_batches())
    model.features[1].running_mean += 1
    next(open_kept().plain_batches())

    assert len(list(tmp_path.iterdir())) == 2


def test_what_does_not_matter_shares_a_file(open_kept, part, tmp_path):
    relabelled = EncodedWafers(maps=part.maps.clone(), labels=part.labels.flip(0))
    stores = [
        open_kept(),
        open_kept(wafers=relabelled),
        open_kept(make_model(dropout=0.1)),
        open_kept(make_model().eval()),
    ]

    for kept in stores:
        next(kept.plain_batches())

    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_that_gets_its_weights_late_has_the_features_of_those(open_kept, model, part):
    kept = open_kept()
    model.load_state_dict(make_model(seed=1).state_dict())

    features, _ = next(kept.plain_batches())

    torch.testing.assert_close(features, model.embed(next(plain_batches(part))[0]))
    torch.testing.assert_close(next(open_kept(make_model(seed=1)).plain_batches())[0], features, rtol=0, atol=0)


# When it is possible


def test_only_a_frozen_backbone_has_features_to_keep(open_kept, tmp_path):
    assert open_kept(make_model(frozen=False)) is None
    assert open_kept(build_model("wafer_cnn", n_classes=9, options={"width": 4}, seed=0)) is None
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_without_a_folder(open_kept):
    assert open_kept(folder=None) is None


def test_only_augmentations_with_eight_views_at_most_can_be_kept():
    choices = {name: augment(5, torch.Generator()) for name, augment in AUGMENTS.items()}

    assert {name for name, chosen in choices.items() if views_of(chosen, n=5) is not None} == {"none", "symmetries"}


def test_a_wafer_as_it_is_has_view_0():
    assert views_of(AUGMENTS["none"](3, torch.Generator()), n=3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.5, "decide_for": "uniform", "sampling": "balanced"},
        {"subset": 0.5, "augment": "none"},
        {"mixing": "mixup"},
        {"test_time": "symmetries"},
    ],
    ids=["plain", "averaged", "subset", "mixed", "eight views"],
)
@pytest.mark.slow
def test_a_whole_trial_reports_the_same_with_and_without_kept_features(changes, make_data, read, train, tmp_path):
    torch.save(efficientnet_b0(weights=None).state_dict(), tmp_path / "weights.pt")
    frozen = {"weights": str(tmp_path / "weights.pt"), "freeze": "backbone", "input_size": 32}
    chosen = {f"model.efficientnet_b0.{key}": value for key, value in frozen.items()}
    params = read(**{"model": "efficientnet_b0", **chosen, **changes})

    plain = train(params, make_data())
    kept = train(params, replace(make_data(), features=tmp_path / "features"))

    assert [report.train_loss for report in kept] == pytest.approx([report.train_loss for report in plain], rel=1e-5)
    assert [report.val.loss for report in kept] == pytest.approx([report.val.loss for report in plain], rel=1e-5)
    assert any((tmp_path / "features").glob("*.bin"))  # of training, validation or both
