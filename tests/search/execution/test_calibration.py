"""`gpus: auto`: what is tried, what is chosen, what is remembered."""

from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from search.errors import ConfigError
from search.execution import calibration, device
from search.execution.calibration import Tried, choose, count_side_by_side, pack
from search.execution.cluster import Cluster
from search.execution.packing import Node, Slice, share_out
from search.space.config import ResourcesConfig, TrialResources
from search.study.records import StudyFolder


def tried(*rates, model="wafer_cnn"):
    return [Tried(model=model, n=n, each=Slice(1, 1 / n), rate=rate) for n, rate in rates]


@pytest.mark.parametrize(
    ("rates", "n"),
    [
        ([(1, 100.0)], 1),
        ([(1, 100.0), (2, 180.0), (3, 181.0)], 2),
        ([(1, 100.0), (2, 180.0), (3, 200.0)], 3),
        ([(1, 100.0), (2, 0.0)], 1),
        ([(1, 100.0), (2, 60.0)], 1),
    ],
)
def test_the_fewest_that_come_close_to_the_best_are_chosen(rates, n):
    assert choose(tried(*rates)) == Slice(1, 1 / n)


def test_a_gpu_that_trains_nothing_is_said_to():
    with pytest.raises(ConfigError, match=r"resources.gpus: auto: wafer_cnn does not train on a GPU here \(no room\)"):
        choose([Tried(model="wafer_cnn", n=1, each=Slice(1, 1), rate=0.0, reason="no room")])


@pytest.mark.parametrize(
    ("node", "cpus", "n"),
    [
        (Node("a", 16, 1), 1, [1, 2, 3, 4, 6, 8]),
        (Node("a", 16, 4), 1, [1, 2, 3, 4]),
        (Node("a", 16, 4), 2, [1, 2]),
        (Node("a", 1, 4), 1, [1]),
    ],
)
def test_no_more_share_a_gpu_than_there_are_cores_for_on_all_gpus(node, cpus, n):
    found = count_side_by_side(node, cpus)

    assert [each for each, _ in found] == n
    assert all(Slice(cpus, gpus).count_on(Node("a", 1e9, 1)) == each for each, gpus in found)


@pytest.fixture
def measure(monkeypatch):
    """Stand in for GPUs, which no test machine has, and count how often one is asked."""
    asked = []

    def try_gpu(packing, config, needed, data, classes):
        asked.append(list(needed))
        for model in needed.keys() - config.forbidden:
            yield from tried((1, 100.0), (2, 150.0 if model == "wafer_cnn" else 101.0), model=model)

    monkeypatch.setattr(calibration, "try_gpu", try_gpu)
    monkeypatch.setattr(calibration, "make_planner", lambda config, data, auto: None)
    monkeypatch.setattr(calibration, "plan_largest_of", lambda config, planner, model: 2**30)
    return asked


def cluster(resources, n_gpus=2, kind=""):
    nodes = [Node("a", 16, n_gpus, kind)]
    return Cluster(packing=share_out(resources, ["wafer_cnn", "wafer_resnet"], nodes))


def test_no_more_share_a_gpu_than_its_memory_holds(monkeypatch):
    """Of a GPU of 16 GiB, a quarter leaves 3.1 GiB for tensors, and half of it 6.7."""

    class FakeRigs:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, flat, n, each):
            return Tried(model="wafer_cnn", n=n, each=each, rate=100.0 * n)

    monkeypatch.setattr(calibration, "Rigs", FakeRigs)
    monkeypatch.setattr(calibration, "choose_probes", lambda config, n: [{"model": "wafer_cnn"}])
    monkeypatch.setattr(device, "_ask_smallest_gpu", lambda: (16 * 2**30, 9.0))
    packing = share_out(ResourcesConfig(), ["wafer_cnn"], [Node("a", 16, 1)])
    config = SimpleNamespace(space=SimpleNamespace(models=["wafer_cnn"]))

    found = list(calibration.try_gpu(packing, config, {"wafer_cnn": 4 * 2**30}, None, ()))

    assert [(each.n, each.rate) for each in found] == [(1, 100.0), (2, 200.0), (3, 300.0), (4, 0.0)]
    assert found[-1].reason == "the largest trials take 4.00 GiB, a share leaves 3.10 GiB"
    assert choose(found) == found[2].each


@pytest.fixture
def study(tmp_path):
    """All that is asked of a study here."""
    config = SimpleNamespace(resources=ResourcesConfig(), forbidden=set())
    return SimpleNamespace(config=config, folder=StudyFolder(tmp_path), classes=())


def test_what_was_found_out_is_remembered_for_the_same_device(measure, study):
    said = StringIO()

    found = [pack(cluster(ResourcesConfig(), n), study, None, Console(file=said)).packing for n in (2, 2, 4)]

    assert found[0].slices == {"wafer_cnn": Slice(1, 0.5), "wafer_resnet": Slice(1, 1.0)}
    assert found[1] == found[0]
    assert measure == [["wafer_cnn", "wafer_resnet"]] * 2  # once for each device
    assert "wafer_cnn: 2 side by side, 1 CPU and 0.5 GPU each: 150 samples/s" in said.getvalue()


def test_it_is_tried_again_for_other_gpus_and_other_cores(measure, study):
    for kind in ("H100", "H100", "T4"):
        found = pack(cluster(ResourcesConfig(), kind=kind), study, None, Console(quiet=True)).packing
    assert len(measure) == 2
    assert found.device == "2 GPUs (T4), 16 CPU cores"

    study.config.resources = ResourcesConfig(cpus=4)
    pack(cluster(study.config.resources, kind="T4"), study, None, Console(quiet=True))
    assert len(measure) == 3


def test_nothing_is_tried_where_the_space_says_it_or_nothing_is_there(measure, study):
    without = cluster(ResourcesConfig(), n_gpus=0)
    assert pack(without, study, None, Console(quiet=True)) is without

    study.config.resources = ResourcesConfig(gpus=0.25)
    fixed = cluster(study.config.resources)
    assert pack(fixed, study, None, Console(quiet=True)) is fixed
    assert measure == []


def test_what_one_model_is_given_is_not_tried_out(measure, study):
    study.config.resources = ResourcesConfig(models={"wafer_resnet": TrialResources(gpus=0.25)})

    found = pack(cluster(study.config.resources), study, None, Console(quiet=True)).packing

    assert found.slices == {"wafer_cnn": Slice(1, 0.5), "wafer_resnet": Slice(1, 0.25)}
    assert measure == [["wafer_cnn"]]


def test_a_model_that_is_forbidden_altogether_needs_no_trying(measure, study):
    study.config.forbidden.add("wafer_resnet")

    found = [pack(cluster(ResourcesConfig()), study, None, Console(quiet=True)).packing for _ in range(2)]

    assert found[0].slices == found[1].slices == {"wafer_cnn": Slice(1, 0.5), "wafer_resnet": Slice(1, 1.0)}
    assert len(measure) == 1
