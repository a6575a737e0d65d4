"""What must be said of the data everywhere."""

import pytest

from search.study.marks import marks_of, name_wafers, warnings_of

LEAK = "LEAKY (deck): the same wafers stand in training and test"


@pytest.mark.parametrize(
    ("data", "marks", "name"),
    [
        ({"synthetic": False, "leaky": ""}, (), "wafers"),
        ({"synthetic": True, "leaky": ""}, ("SYNTHETIC",), "SYNTHETIC wafers"),
        ({"synthetic": False, "leaky": LEAK}, ("LEAKY",), "LEAKY wafers"),
        ({"synthetic": True, "leaky": LEAK}, ("SYNTHETIC", "LEAKY"), "SYNTHETIC, LEAKY wafers"),
        ({"synthetic": True}, ("SYNTHETIC",), "SYNTHETIC wafers"),
    ],
)
def test_every_mark_has_its_word_and_its_sentence(data, marks, name):
    assert marks_of(data) == marks
    assert name_wafers(data) == name
    assert [sentence.split()[0] for sentence in warnings_of(data)] == list(marks)


def test_a_leaky_split_is_named_on_pages():
    (sentence,) = warnings_of({"synthetic": False, "leaky": LEAK})

    assert sentence == f"{LEAK}: no number here says how well new wafers are recognised."
