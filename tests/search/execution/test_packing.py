"""How trials share the cores and GPUs of one or several nodes."""

import pytest

from search.errors import ConfigError
from search.execution.packing import Node, Slice, share_out
from search.space.config import ResourcesConfig

BIG = Node("a", 16, 4)
MODELS = ("wafer_cnn", "efficientnet_b0")


def packing(resources, *nodes, models=("wafer_cnn",)):
    return share_out(ResourcesConfig(**resources), models, nodes)


@pytest.mark.parametrize(
    ("each", "node", "n"),
    [
        (Slice(1, 0), Node("a", 16, 0), 16),
        (Slice(3, 0), Node("a", 16, 0), 5),
        (Slice(1, 0.25), BIG, 16),
        (Slice(2, 0.25), BIG, 8),
        (Slice(1, 0.3), BIG, 12),
        (Slice(1, 0.1), Node("a", 100, 1), 10),
        (Slice(1, 0.3333), Node("a", 100, 1), 3),
        (Slice(1, 0.75), BIG, 4),
        (Slice(1, 2), BIG, 2),
        (Slice(1, 3), BIG, 1),
        (Slice(1, 5), BIG, 0),
        (Slice(1, 0.5), Node("a", 16, 0), 0),
    ],
)
def test_a_share_of_a_gpu_spans_no_two_gpus_and_a_trial_no_two_nodes(each, node, n):
    assert each.count_on(node) == n


def test_slots_are_counted_node_by_node():
    found = packing({"cpus": 2}, Node("a", 3, 0), Node("b", 3, 0))

    assert found.slots == 2
    assert found.describe() == "2 trials side by side on 2 nodes, 6 CPU cores, 2 CPU and 0 GPU each"


def test_a_model_may_have_resources_of_its_own():
    found = packing({"gpus": 0.25, "models": {"efficientnet_b0": {"gpus": 1, "cpus": 4}}}, BIG, models=MODELS)

    assert found.slices == {"wafer_cnn": Slice(1, 0.25), "efficientnet_b0": Slice(4, 1)}
    assert found.slots == 16
    assert "wafer_cnn 1 CPU and 0.25 GPU, efficientnet_b0 4 CPU and 1 GPU" in found.describe()


def test_there_is_room_as_long_as_the_smallest_trial_fits():
    found = packing({"gpus": 0.5, "models": {"efficientnet_b0": {"gpus": 1}}}, Node("a", 8, 2), models=MODELS)

    assert found.has_room([])
    assert found.has_room(["efficientnet_b0", "wafer_cnn"])
    assert not found.has_room(["efficientnet_b0", "efficientnet_b0"])
    assert not found.has_room(["wafer_cnn"] * 4)


@pytest.mark.parametrize("gpus", ["auto", "none", 0, 0.25, 1, 4])
def test_without_gpus_every_space_runs_on_the_cpu(gpus):
    assert packing({"gpus": gpus}, Node("a", 4, 0)).slices == {"wafer_cnn": Slice(1, 0)}


def test_gpus_stay_idle_only_if_that_is_said():
    assert packing({"gpus": "none"}, BIG).slices == {"wafer_cnn": Slice(1, 0)}
    with pytest.raises(
        ConfigError, match=r"resources.gpus: is 0 for wafer_cnn, but there are 4 GPUs; say auto .* none"
    ):
        packing({"gpus": 0}, BIG)
    with pytest.raises(ConfigError, match="is 0 for efficientnet_b0"):
        packing({"models": {"efficientnet_b0": {"gpus": 0}}}, BIG, models=MODELS)


@pytest.mark.parametrize(
    ("resources", "nodes", "said"),
    [
        (
            {"cpus": 4},
            [Node("a", 2, 0)],
            "a trial of wafer_cnn asks for 4 CPUs and 0 GPUs; there are 2 CPUs and 0 GPUs",
        ),
        ({"cpus": 4}, [Node("a", 2, 0), Node("b", 2, 0)], "no node has that (2 CPUs and 0 GPUs, 2 CPUs and 0 GPUs)"),
        ({"gpus": 2}, [Node("a", 2, 1), Node("b", 2, 1)], "asks for 1 CPUs and 2 GPUs; no node has that"),
    ],
)
def test_what_fits_on_no_node_is_refused_with_the_numbers(resources, nodes, said):
    with pytest.raises(ConfigError) as raised:
        packing(resources, *nodes)

    assert said in str(raised.value)
    assert str(raised.value).endswith("; ask for less")
