import json

import pytest

from search.errors import ConfigError
from search.study.provenance import record_attempt
from search.study.records import StudyFolder
from search.study.warm_start import write_warm_start
from search.testing import drive, quality_by_lr

DATA = {"fingerprint": "wafers", "split_fingerprint": "split", "source": "a file", "synthetic": True}


@pytest.fixture
def data(classes):
    return {**DATA, "classes": list(classes)}


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def search(results, make_config, open_study, data):
    """Run a study of the given name to its end, maybe after a warm start; return it, closed."""

    def run(name, *, warm_start=(), **config):
        folder, made = StudyFolder(results / name), make_config(**config)
        with open_study(folder, made) as study:
            if warm_start and write_warm_start(folder, warm_start, made, data, results=results):
                study.learn_from_earlier()
            record_attempt(folder, made, data, space_text="", device="none")
            drive(study, quality_of=quality_by_lr)
        return study

    return run


def searched(record, study):
    return {name: record.config[name] for name in study.config.space.parameters() if name in record.config}


def test_the_best_of_an_earlier_study_are_tried_first(search):
    earlier = search("earlier", trials=12)
    best = sorted(earlier.records.values(), key=lambda record: record.value, reverse=True)[:5]

    later = search("later", trials=6, warm_start=["earlier"])

    first = [searched(later.records[number], later) for number in range(5)]
    assert first == [searched(record, earlier) for record in best]
    assert later.records[0].origin == {"first": f"earlier/{best[0].number}"}
    assert "first" not in later.records[5].origin


def test_what_lies_outside_the_new_space_is_left_out(search):
    search("earlier", trials=8, epochs="[4, 6]")

    later = search("later", trials=8, epochs="[6, 8]", warm_start=["earlier"])

    warm = [record for record in later.records.values() if record.origin]
    assert warm
    assert all(record.config["epochs"] == 6 for record in warm)


def test_results_are_learned_only_where_data_space_and_objective_are_the_same(search, results):
    search("earlier", trials=8)
    search("same", trials=1, warm_start=["earlier"])
    search("other", trials=1, objective="{maximize: macro_f1}", warm_start=["earlier"])

    known = {
        name: json.loads((results / name / "warm_start.json").read_text())[0]["known"] for name in ("same", "other")
    }

    assert len(known["same"]) == 8
    assert known["other"] == []


@pytest.mark.parametrize("sampler", ["tpe", "gp", "tpe_gp"])
def test_a_sampler_learns_from_the_earlier_results(search, sampler):
    search("earlier", trials=40, sampler=sampler, seed=1)

    cold = search("cold", trials=12, sampler=sampler)
    warm = search("warm", trials=12, sampler=sampler, warm_start=["earlier"])

    def later_ones(study):
        return [study.records[number].value for number in range(5, 12)]

    assert sum(later_ones(warm)) > sum(later_ones(cold))


def test_a_warm_start_survives_a_restart(search, results, make_config, open_study):
    search("earlier", trials=8)
    search("later", trials=2, warm_start=["earlier"])

    with open_study(StudyFolder(results / "later"), make_config(trials=5)) as study:
        drive(study, quality_of=quality_by_lr)

    assert len({record.origin["first"] for record in study.records.values()}) == 5


@pytest.mark.parametrize(("asked", "problem"), [("nowhere", "no study there"), ("later", "is this study itself")])
def test_a_warm_start_from_nowhere_or_itself_is_refused(search, asked, problem):
    search("later", trials=1)

    with pytest.raises(ConfigError, match=problem):
        search("later", trials=2, warm_start=[asked])


def test_the_same_warm_start_again_goes_on_and_another_is_refused(search):
    search("earlier", trials=2)
    search("other", trials=1)
    search("later", trials=1, warm_start=["earlier"])

    later = search("later", trials=6, warm_start=["earlier"])

    assert [record.origin.get("first") for record in later.records.values()].count(None) == 4
    assert {"earlier/0", "earlier/1"} <= {record.origin.get("first") for record in later.records.values()}
    for asked in (["other"], ["earlier", "other"]):
        with pytest.raises(ConfigError, match="has learned from earlier already"):
            search("later", trials=3, warm_start=asked)
