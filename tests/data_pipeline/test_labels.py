"""Spellings of class names, and what happens to unknown ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.labels import spell_labels
from data_pipeline.wafer_set import WM811K_CLASSES


def spell(labels, rename=None, *, keep_unknown=False):
    return spell_labels(labels, rename=rename or {}, keep_unknown=keep_unknown, source="w.csv")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("edge ring", "Edge-Ring"),
        ("EdgeRing", "Edge-Ring"),
        ("EDGE_LOC", "Edge-Loc"),
        ("near-full", "Near-full"),
        ("NearFull ", "Near-full"),
        ("None", "none"),
    ],
)
def test_usual_spellings_are_understood(written, meant):
    assert spell([written]) == [meant]


@given(name=st.sampled_from(WM811K_CLASSES), joint=st.sampled_from(["", " ", "_", "-", "."]), upper=st.booleans())
def test_case_and_punctuation_never_matter(name, joint, upper):
    written = name.replace("-", joint)

    assert spell([written.upper() * upper + written * (not upper)]) == [name]


def test_wafers_without_a_label_stay_without():
    assert spell([None, "Loc", None]) == [None, "Loc", None]


def test_unknown_labels_are_listed_with_their_counts_and_asked_about():
    with pytest.raises(DataError) as caught:
        spell(["foo", "Scrach", "foo", "Loc"])

    lines = str(caught.value).splitlines()
    assert lines[0] == "w.csv: 2 unknown labels"
    assert lines[1] == "  'foo': 2 wafers"
    assert lines[2] == "  'Scrach': 1 wafers; did you mean Scratch?"
    assert "--label foo=CLASS" in lines[3]
    assert "--keep-labels" in lines[3]


def test_a_user_says_what_labels_mean():
    assert spell(["foo", "bar", "Loc"], {"foo": "Loc", "bar": None}) == ["Loc", None, "Loc"]


def test_a_user_may_overrule_a_known_spelling():
    assert spell(["Loc"], {"Loc": "Spot"}) == ["Spot"]


def test_unknown_labels_become_classes_on_request():
    assert spell(["foo", "edge ring"], keep_unknown=True) == ["foo", "Edge-Ring"]


def test_saying_what_an_absent_label_means_is_an_error():
    with pytest.raises(DataError, match=r"w\.csv: --label baz=…: no wafer has that label; found Loc, foo"):
        spell(["foo", "Loc"], {"baz": "Loc"})
