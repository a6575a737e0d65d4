"""What a YAML file means, and what is refused in it."""

import datetime
import math
import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from search.errors import ConfigError
from search.space.strict_yaml import dump_yaml, read_scalar, read_yaml

NUMBERS = {
    "1e-4": 0.0001,
    "1E5": 100_000.0,
    "3.5e+2": 350.0,
    ".5": 0.5,
    "5.": 5.0,
    "-3": -3,
    "+3": 3,
    "0": 0,
    "010": 10,
    "-.inf": -math.inf,
}
# Words that PyYAML, which reads YAML 1.1, takes for something else; and some that it chokes on.
WORDS = [
    "off",
    "on",
    "yes",
    "no",
    "Off",
    "True",
    "0x10",
    "0o10",
    "1_000",
    "12:30",
    "2024-01-31",
    "1e",
    "=",
    "<<",
    "NaN",
]

TRICKY = [
    "1e-4",
    "007",
    "-",
    "~",
    "null",
    "a: b",
    "# c",
    " a ",
    "a\nb\n",
    "\x85",
    "a\u2028b",
    "\ufeff",
    "\x00",
    "*a",
    *WORDS,
]
words = st.text() | st.sampled_from(TRICKY)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
trees = st.recursive(plain, lambda t: st.lists(t, max_size=4) | st.dictionaries(words, t, max_size=4), max_leaves=12)


def refusal(path):
    """Read a bad file; return what is said about it."""
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    return str(caught.value)


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_numbers_are_numbers(write_yaml, text, value):
    found, _ = read_yaml(write_yaml(f"key: {text}"))

    assert found == {"key": value}
    assert not isinstance(found["key"], str)


@pytest.mark.parametrize("word", WORDS)
def test_words_stay_words(write_yaml, word):
    found, _ = read_yaml(write_yaml(f"key: {word}"))

    assert found == {"key": word}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("null", None), ("~", None), ("", None)])
def test_true_false_and_null_are_what_they_say(write_yaml, text, value):
    found, _ = read_yaml(write_yaml(f"key: {text}"))

    assert found["key"] is value


def test_nan_is_a_number(write_yaml):
    found, _ = read_yaml(write_yaml("key: .nan"))

    assert math.isnan(found["key"])


def test_a_whole_number_is_not_a_float(write_yaml):
    found, _ = read_yaml(write_yaml("[8, 8.0]"))

    assert [type(value) for value in found] == [int, float]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_holds_nothing(write_yaml, text):
    found, _ = read_yaml(write_yaml(text))

    assert found is None


def test_every_path_has_the_line_of_its_key(write_yaml):
    path = write_yaml("# first\nspace:\n  epochs:\n    - 2\n    - 4\n  model: {choose: {\n    wafer_cnn: {}}}\n")

    _, lines = read_yaml(path)

    assert lines == {
        (): 2,
        ("space",): 2,
        ("space", "epochs"): 3,
        ("space", "epochs", 0): 4,
        ("space", "epochs", 1): 5,
        ("space", "model"): 6,
        ("space", "model", "choose"): 6,
        ("space", "model", "choose", "wafer_cnn"): 7,
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: 'a' stands here twice"),
        ("a: {b: 1,\n b: 1}\n", ":2: 'b' stands here twice"),
        ("1: one\n", ":1: keys must be words; got 1"),
        ("a:\n  true: 1\n", ":2: keys must be words; got True"),
        ("~: 1\n", ":1: keys must be words; got None"),
        ("? [a]\n: 1\n", ":1: keys must be words; got ['a']"),
        ("a: &x 1\nb: *x\n", ":1: anchors are not supported; write the value out"),
        ("a: 1\nb: *x\n", ":2: anchors are not supported; write the value out"),
        ("a: 1\n<<: *x\n", ":2: anchors are not supported; write the value out"),
        ("a: !!python/object/apply:os.getcwd []\n", ":1: tags are not supported; write the value out"),
        ("a:\n - !!bool maybe\n", ":2: tags are not supported; write the value out"),
        ("a: !include b.yaml\n", ":1: tags are not supported; write the value out"),
        ("a: [1, 2\n", ":2: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("a: b: c\n", ":1: mapping values are not allowed here"),
        ("a: 1\n--- \nb: 2\n", ":2: expected a single document in the stream, but found another document"),
        ("a:\n\t- 1\n", ":2: while scanning for the next token, found character '\\t' that cannot start any token"),
        ("a: \x00\n", ": unacceptable character #x0000: special characters are not allowed"),
    ],
)
def test_what_is_not_proper_yaml_is_refused_with_its_line(write_yaml, text, what):
    path = write_yaml(text)

    assert refusal(path) == f"{path}{what}"


def test_a_billion_laughs_are_refused_at_the_first(write_yaml):
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    path = write_yaml("\n".join(["l0: &l0 [lol]", *levels]))

    assert refusal(path) == f"{path}:1: anchors are not supported; write the value out"


def test_a_number_of_more_digits_than_python_reads_is_refused(write_yaml):
    path = write_yaml(f"key: {'9' * 5000}")

    assert refusal(path).startswith(f"{path}: Exceeds the limit (4300 digits)")


@pytest.mark.parametrize("text", ["[" * 10_000, "{a: " * 10_000, "- " * 10_000])
def test_deep_nesting_is_refused(write_yaml, text):
    path = write_yaml(text)

    assert refusal(path) == f"{path}: nested too deeply"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\x93NUMPY\xff\xfe\x00"), "is not text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, make, reason):
    path = tmp_path / "space.yaml"
    make(path)

    assert refusal(path) == f"{path}: cannot be read ({reason})"


def test_a_path_below_a_file_cannot_be_read(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"file/space\.yaml: cannot be read \(Not a directory\)"):
        read_yaml(tmp_path / "file" / "space.yaml")


@given(tree=trees)
@example(tree={"a\x85b": "a\u2028b", "0x10": ["010", 10]})
def test_what_is_dumped_is_read_back(write_yaml, tree):
    path = write_yaml(dump_yaml(tree))

    found, _ = read_yaml(path)

    assert found == tree
    assert repr(found) == repr(tree)


@given(word=words)
def test_other_readers_read_a_dumped_word_as_a_word(word):
    text = dump_yaml({"key": word})

    assert yaml.safe_load(text) == {"key": word}


def test_only_words_that_need_them_get_quotes():
    assert dump_yaml({"model": "wafer_cnn", "name": "1e4"}) == "model: wafer_cnn\nname: '1e4'\n"


def test_a_value_that_stands_twice_is_written_twice(write_yaml):
    shared = {"b": [1, 2]}

    found, _ = read_yaml(write_yaml(dump_yaml([shared, shared])))

    assert found == [shared, shared]


def test_keys_keep_their_order(write_yaml):
    found, _ = read_yaml(write_yaml(dump_yaml({"z": 1, "a": 2, "m": 3})))

    assert list(found) == ["z", "a", "m"]


def test_what_is_not_plain_is_not_dumped():
    with pytest.raises(yaml.representer.RepresenterError):
        dump_yaml({"when": object()})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("8", 8),
        ("true", True),
        ("off", "off"),
        ("wafer_cnn", "wafer_cnn"),
        ("'8'", "8"),
        ("", None),
        ("~", None),
        ("[1]", None),
        ("{a: 1}", None),
        ("a: b: c", None),
        ("[1", None),
        ("&x 1", None),
    ],
)
def test_a_single_value_is_read_as_in_a_file(text, value):
    found = read_scalar(text)

    assert (type(found), found) == (type(value), value)


def test_no_date_ever_comes_out(write_yaml):
    found, _ = read_yaml(write_yaml("- 2024-01-31\n- 2024-01-31 12:00:00\n"))

    assert not any(isinstance(value, datetime.date) for value in found)
    assert all(re.match("2024-01-31", value) for value in found)
