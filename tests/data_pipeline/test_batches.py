import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.augment import Choices, apply_symmetry, to_channels
from data_pipeline.batches import EncodedWafers, count_batches, plain_batches, train_batches, wrap_arrays

CPU = torch.device("cpu")
# Epochs and batches that fit into them.
sizes = st.integers(2, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n)))


def numbered(n):
    """Wafers of 3x3 dies that show their number in binary; the label is the number too."""
    bits = torch.arange(n)[:, None] >> torch.arange(9) & 1
    return EncodedWafers(maps=(1 + bits).reshape(n, 3, 3).byte(), labels=torch.arange(n))


@given(sizes)
def test_as_many_batches_are_cut_as_were_counted(sizes):
    epoch_samples, batch_size = sizes

    batches = list(train_batches(numbered(1), torch.zeros(epoch_samples).long(), Choices(), batch_size=batch_size))

    assert len(batches) == count_batches(epoch_samples, batch_size)


@given(sizes, st.randoms(use_true_random=False))
def test_every_drawn_wafer_comes_once_in_the_order_drawn(sizes, random):
    epoch_samples, batch_size = sizes
    drawn = torch.tensor(random.choices(range(50), k=epoch_samples))
    wafers = numbered(50)

    inputs, labels = zip(*train_batches(wafers, drawn, Choices(), batch_size=batch_size), strict=True)

    assert torch.equal(torch.cat(labels), drawn)
    assert torch.equal(torch.cat(inputs), to_channels(wafers.maps[drawn]))


@given(sizes)
def test_no_batch_has_a_single_wafer(sizes):
    epoch_samples, batch_size = sizes

    lengths = [
        len(labels)
        for _, labels in train_batches(numbered(1), torch.zeros(epoch_samples).long(), Choices(), batch_size=batch_size)
    ]

    assert min(lengths) >= 2
    assert set(lengths[:-1]) <= {batch_size}
    assert lengths[-1] <= batch_size + 1


@pytest.mark.parametrize(("epoch_samples", "lengths"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (4, [4]), (5, [5])])
def test_a_single_wafer_left_over_joins_the_batch_before_it(epoch_samples, lengths):
    drawn = torch.arange(epoch_samples)

    batches = train_batches(numbered(epoch_samples), drawn, Choices(), batch_size=4)

    assert [len(labels) for _, labels in batches] == lengths


def test_each_wafer_is_augmented_as_chosen_for_it():
    wafers, drawn, symmetry = numbered(10), torch.tensor([9, 3, 3, 7, 0]), torch.tensor([0, 5, 2, 7, 1])

    batches = train_batches(wafers, drawn, Choices(symmetry=symmetry), batch_size=2)

    expected = to_channels(apply_symmetry(wafers.maps[drawn], symmetry))
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), expected)


@given(st.integers(1, 40), st.integers(1, 50))
def test_plain_batches_show_all_wafers_in_order(n, batch_size):
    wafers = numbered(n)

    inputs, labels = zip(*plain_batches(wafers, batch_size=batch_size), strict=True)

    assert torch.equal(torch.cat(labels), wafers.labels)
    assert torch.equal(torch.cat(inputs), to_channels(wafers.maps))
    assert max(len(batch) for batch in labels) <= batch_size


def test_read_only_arrays_are_viewed_without_a_copy_or_a_warning():
    maps, labels = np.ones((4, 3, 3), np.uint8), np.arange(4)
    maps.setflags(write=False)

    wafers = wrap_arrays(maps, labels)

    assert wafers.maps.data_ptr() == maps.ctypes.data
    assert len(wafers) == 4


def test_selected_wafers_keep_their_labels():
    rows = torch.tensor([4, 0, 4])

    selected = numbered(6).select(rows)

    assert torch.equal(selected.labels, rows)
    assert torch.equal(selected.maps, numbered(6).maps[rows])


def test_moving_to_the_cpu_copies_nothing():
    wafers = numbered(6)

    moved = wafers.to(CPU)

    assert moved.maps.data_ptr() == wafers.maps.data_ptr()
