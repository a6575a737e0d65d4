"""How several mistakes become one message."""

from pathlib import Path

import pytest

from search.errors import ConfigError
from search.space.problems import Problems

LINES = {(): 1, ("space",): 4, ("space", "epochs"): 5, ("space", "epochs", 1): 7}


@pytest.fixture
def problems():
    return Problems(Path("space.yaml"), LINES)


def message_of(problems):
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any()
    return str(caught.value)


def test_without_problems_nothing_happens(problems):
    problems.raise_if_any()


def test_one_problem_is_one_line(problems):
    problems.add(("space", "epochs"), "must be more")

    assert message_of(problems) == "space.yaml:5 space.epochs: must be more"


def test_several_problems_stand_in_the_order_of_their_lines(problems):
    problems.add(("space", "epochs", 1), "is odd")
    problems.add((), "is strange")
    problems.add(("space",), "is wide")

    expected = "space.yaml: 3 problems\n  :1 is strange\n  :4 space: is wide\n  :7 space.epochs.1: is odd"
    assert message_of(problems) == expected


@pytest.mark.parametrize(
    ("path", "line"), [(("space", "lr"), 4), (("space", "epochs", 0, "x"), 5), (("search", "trials"), 1)]
)
def test_what_is_absent_stands_where_it_belongs(problems, path, line):
    problems.add(path, "is missing")

    assert message_of(problems).startswith(f"space.yaml:{line} ")


def test_the_same_words_twice_count_once(problems):
    problems.add(("space",), "is wide")
    problems.add(("space",), "is wide")

    assert message_of(problems) == "space.yaml:4 space: is wide"
