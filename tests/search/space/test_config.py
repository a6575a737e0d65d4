"""Durations, and sections that are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.space.config import ResourcesConfig, SearchConfig, parse_duration

numbers = st.integers(0, 10**6) | st.floats(0, 10**6).map(lambda x: round(x, 3))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("20m", 1200),
        ("2h", 7200),
        ("1d", 86_400),
        ("1h30m", 5400),
        ("1.5h", 5400),
    ],
)
def test_a_duration_is_read(text, seconds):
    assert parse_duration(text) == seconds


@given(parts=st.lists(st.tuples(numbers, st.sampled_from("smhd")), min_size=1, max_size=5))
def test_a_duration_is_the_sum_of_its_parts(parts):
    text = "".join(f"{number:.3f}{unit}" for number, unit in parts)

    assert parse_duration(text) == pytest.approx(sum(parse_duration(f"{number:.3f}{unit}") for number, unit in parts))


@given(text=st.text(alphabet="smhdw:- ", min_size=1), number=numbers)
def test_what_is_no_duration_is_refused(text, number):
    with pytest.raises(ValueError, match="must be a duration such as 90s, 20m, 2h or 1h30m"):
        parse_duration(f"{text}{number}")


@pytest.mark.parametrize("text", ["", "-5", "5.", "5 m", "m", "5M", "1h 30m", "1:30", "5w", "1e3", "s5", "5ms5"])
def test_these_are_no_durations(text):
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize("gpus", ["auto", 0, 0.25, 1, 1.0, 2, 64])
def test_gpus_are_auto_a_share_or_whole(gpus):
    assert ResourcesConfig(gpus=gpus).gpus == gpus


@pytest.mark.parametrize(("first_rung", "epochs"), [(2, 2), ("1 epoch", 1), ("12 epochs", 12)])
def test_the_first_rung_is_a_number_of_epochs(first_rung, epochs):
    config = SearchConfig.model_validate({"stop": {"asha": {"first_rung": first_rung}}})

    assert config.stop.asha.first_rung == epochs
