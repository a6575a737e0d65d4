"""A condition means what Python would mean by it, and nothing but a condition is read."""

import pickle
import re
import warnings
from contextlib import suppress

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from search.space.expressions import ExpressionError, check_expression, parse_expression
from search.space.space import Branch, Choice, Constant, Range, Space
from search.trial.params import from_flat

SPACE = Space(
    {
        "epochs": Range(4, 16, step=4),
        "weight_decay": Range(1e-6, 1e-1, log=True),
        "grad_clip": Constant(0.5),
        "sampling": Branch({"balanced": {}, "imbalanced": {}, "power": {"alpha": Range(0.2, 0.8)}}),
        "mixing": Choice(("none", "mixup")),
        "model": Branch(
            {
                "wafer_cnn": {
                    "width": Choice((16, 32)),
                    "squeeze": Choice((False, True)),
                    "batch_size": Choice((64, 256)),
                },
                "wafer_resnet": {"width": Range(16, 48)},
            }
        ),
    }
)
NUMBERS = ("epochs", "weight_decay", "grad_clip", "lr", "batch_size", "width", "model.wafer_cnn.width")
WORDS = ("sampling", "mixing", "model", "loss", "decide_for")
CNN = {"model": "wafer_cnn", "model.wafer_cnn.width": 32, "model.wafer_cnn.batch_size": 64, "lr": 0.1}


class DrawnTrial:
    """A trial whose values Hypothesis draws."""

    def __init__(self, draw):
        self._draw = draw

    def suggest_categorical(self, name, choices):
        return self._draw(st.sampled_from(choices))

    def suggest_int(self, name, low, high, *, step=1, log=False):
        return self._draw(st.sampled_from(range(low, high + 1, step)))

    def suggest_float(self, name, low, high, *, step=None, log=False):
        return self._draw(st.floats(low, high))


@st.composite
def configs(draw):
    return SPACE.sample(DrawnTrial(draw))


def joined(strategy, *signs):
    return st.tuples(strategy, st.sampled_from(signs), strategy).map(" ".join)


def listed(strategy):
    return st.lists(strategy, min_size=1, max_size=3).map(lambda values: f"[{', '.join(values)}]")


def conditions(comparisons):
    """Join comparisons in every way that is allowed."""
    return st.recursive(
        comparisons,
        lambda inner: joined(inner, "and", "or") | inner.map("({})".format) | inner.map("not {}".format),
        max_leaves=4,
    )


numerals = (st.integers(0, 300) | st.floats(0, 300)).map(repr)
words = st.sampled_from(["'balanced'", "'mixup'", '"wafer_cnn"', "'wafer_resnet'", "'drawn'", "'none'"])
sums = st.recursive(
    st.sampled_from(NUMBERS) | numerals,
    lambda inner: joined(inner, "+", "-", "*") | inner.map("({}) / 8".format) | inner.map("-({})".format),
    max_leaves=3,
)
number_signs = ("<", "<=", ">", ">=", "==", "!=")
sensible = conditions(
    joined(sums, *number_signs)
    | st.tuples(sums, st.sampled_from(number_signs), joined(sums, *number_signs)).map(" ".join)
    | st.tuples(sums, st.sampled_from(["in", "not in"]), listed(numerals)).map(" ".join)
    | joined(st.sampled_from(WORDS) | words, "==", "!=")
    | st.tuples(st.sampled_from(WORDS), st.sampled_from(["in", "not in"]), listed(words)).map(" ".join)
)
operands = sums | words | st.sampled_from([*WORDS, "alpha", "squeeze", "model.wafer_cnn.squeeze", "true", "False"])
haphazard = conditions(
    joined(operands | joined(operands, "/", "*"), *number_signs)
    | st.tuples(operands, st.sampled_from(["in", "not in"]), listed(numerals | words)).map(" ".join)
)


def read(text):
    """Read a text, or try another if it is not allowed."""
    try:
        return parse_expression(text)
    except ExpressionError:
        reject()


def problems_of(text):
    return check_expression(parse_expression(text), SPACE)


@given(text=sensible, config=configs(), width=st.integers(16, 48))
def test_a_condition_means_what_python_means_by_it(text, config, width):
    config |= {"width": width, "model.wafer_cnn.width": width, "batch_size": 128, "lr": 0.25}
    config |= {"loss": "focal", "decide_for": "drawn"}
    names = {name.replace(".", "_"): value for name, value in config.items()}
    expected = eval(text.replace("model.wafer_cnn.width", "model_wafer_cnn_width"), {"__builtins__": {}}, names)

    assert parse_expression(text).holds(config) is expected


@settings(max_examples=25)  # each tries its options on the real factories
@given(config=configs())
def test_a_condition_speaks_of_the_trial_as_it_would_be_trained(config):
    trained = from_flat(config, where="test", image_size=16).to_flat()

    for name, value in trained.items():
        assert parse_expression(f"{name} == {value!r}").holds(config)
        assert not parse_expression(f"{name} != {value!r}").holds(config)


@given(text=haphazard, config=configs())
def test_what_the_check_lets_through_can_be_decided_for_every_trial(text, config):
    expression = read(text)
    assume(not check_expression(expression, SPACE))

    assert expression.holds(config) in (True, False)


@given(data=st.data(), config=configs())
def test_the_check_knows_every_value_that_is_drawn(data, config):
    name = data.draw(st.sampled_from(sorted(config)))

    assert problems_of(f"{name} == {config[name]!r}") == []
    assert parse_expression(f"{name} == {config[name]!r}").holds(config)


@given(text=haphazard, config=configs())
def test_not_turns_every_answer_around(text, config):
    expression = read(f"({text})")
    assume(not check_expression(expression, SPACE))
    negation = read(f"not ({text})")

    assert negation.holds(config) is not expression.holds(config)


tokens = [
    *("lr", "x.y", "1", "1e9", "'a'", "None", "1j", "...", "__class__", "0x", "1_", "ﬁ", "f'", '"', "'", "\\", "#"),
    *("(", ")", "[", "]", "{", "}", ",", ".", ":", "=", "==", "<", "**", "*", "/", "-", "~", ":=", "\n", "\x00"),
    *("\ud800", "in", "not", "and", "or", "is", "if", "else", "lambda", "await", "yield", "for"),
]


@given(text=st.text(max_size=600) | st.lists(st.sampled_from(tokens), max_size=80).map(" ".join))
def test_any_text_is_read_or_refused(text):
    with suppress(ExpressionError):
        assert parse_expression(text).holds({}) in (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('x')", 'a call is not allowed, at "__import__'),
        ("lr > open('x')", "a call is not allowed"),
        ("().__class__ == 1", "a dot after anything but a name is not allowed"),
        ("'a'.b == 1", "a dot after anything but a name is not allowed"),
        ("f().b == 1", "a dot after anything but a name is not allowed"),
        ("lr[0] > 1", r"an index is not allowed, at 'lr\[0\]'"),
        ("10**10**10 > lr", r"\*\* is not allowed"),
        ("lr % 2 == 0", "% is not allowed"),
        ("lr // 2 == 0", "// is not allowed"),
        ("lr > 1 & lr < 2", r"& \(write and\) is not allowed"),
        ("lr is 1", r"is \(write ==\) is not allowed, at 'lr is 1'"),
        ("lr is not 1", r"is not \(write !=\) is not allowed"),
        ("lambda: 1", "Lambda is not allowed"),
        ("lr > (lambda: 1)", "Lambda is not allowed"),
        ("f'{lr}' == 'a'", "an f-string is not allowed"),
        ("(lr := 2) > 1", "an assignment is not allowed"),
        ("lr > (1 if lr else 2)", "IfExp is not allowed"),
        ("[x for x in 'ab'] == lr", "ListComp is not allowed"),
        ("(lr > 1) == true", "a comparison inside a value is not allowed"),
        ("lr == (1, 2)", "a list that does not follow in is not allowed"),
        ("lr in (1, 2) == 3", "a list that does not follow in is not allowed"),
        ("lr > +1", "before a value is not allowed"),
        ("lr == None", "such a constant is not allowed, at 'None'"),
        ("lr == 1j", "such a constant is not allowed"),
        ("lr == b'a'", "such a constant is not allowed"),
        ("lr < 1e999", "such a constant is not allowed"),
        ("lr < -1e999", "such a constant is not allowed"),
        ("sampling in 'balanced'", "constants in brackets, such as .* must follow in; got \"'balanced'\""),
        ("sampling in []", "must follow in"),
        ("lr in [batch_size, 1]", "must follow in"),
        ("lr in [[1], 2]", "a list that does not follow in"),
        ("'a' < lr", "'a' stands where a number must"),
        ("1 < lr < 'a'", "'a' stands where a number must"),
        ("true > lr", "True stands where a number must"),
        ("sampling == 'a' * 1000000000", "'a' stands where a number must"),
        ("sampling == 'a' + 'b'", "'a' stands where a number must"),
        ("-'a' == lr", "'a' stands where a number must"),
        ("lr < -true", "True stands where a number must"),
        ("lr", "must compare something, .*; got 'lr' by itself"),
        ("true", "must compare something"),
        ("lr > 1 and batch_size", "must compare something, .*; got 'batch_size' by itself"),
        ("not lr", "must compare something"),
        ("lr = 1", "column 4: invalid syntax"),
        ("lr > 1 or", "column"),
        ("lr > 1or lr > 2", "column"),
        ("lr == 'a\\d'", "column"),
        ("(lr > 1", r"column 1: '\(' was never closed"),
        ("", "column 1"),
        ("lr > 1; lr", "column 7"),
        ("lr > '\x00'", "null bytes"),
        ("lr == '\ud800'", "cannot be read"),
        ("-" * 300 + "lr > 1", "must nest at most 20 levels deep"),
        ("not " * 100 + "lr > 1", "must nest at most 20 levels deep"),
        ("1" + "+1" * 200 + "> lr", "must nest at most 20 levels deep"),
        ("(" * 240 + "lr > 1" + ")" * 240, "nested parentheses"),
        ("lr > " + "9" * 500, "must be at most 500 characters long; got 505"),
        ("lr > 1" + " and lr > 1" * 100_000, "must be at most 500 characters long"),
    ],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(ExpressionError, match=message):
        parse_expression(text)


def test_what_python_is_about_to_forbid_is_refused_even_where_warnings_are_not_shown():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        with pytest.raises(ExpressionError, match="column"):
            parse_expression("lr > 1or lr > 2")


def test_a_sum_may_be_as_long_as_the_nesting_allows():
    assert parse_expression("lr" + " + lr" * 16 + " > 1").holds({"lr": 0.1})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 < 2", set()),
        ("lr > 0.1 and not (lr < 1 or batch_size in [1, 2])", {"lr", "batch_size"}),
        ("model == 'wafer_cnn' and 2 * model.wafer_cnn.width > -epochs", {"model", "model.wafer_cnn.width", "epochs"}),
        ("squeeze == true or squeeze == False", {"squeeze"}),
    ],
)
def test_the_names_of_a_condition(text, names):
    assert parse_expression(text).names == names


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("batch_size == 64", True),  # set in the branch
        ("width == 32 and model.wafer_cnn.width == 32", True),
        ("width * batch_size > 2000", True),
        ("depth == 1 and model.wafer_cnn.squeeze == false", True),  # options left out
        ("epochs == 10 and loss == 'cross_entropy'", True),  # a field and a choice left out
        ("model.wafer_resnet.width >= 0", False),  # of another branch
        ("model.wafer_resnet.width != 7", False),
        ("model.wafer_resnet.width not in [7]", False),
        ("model.wafer_resnet.width == 7", False),
        ("not model.wafer_resnet.width == 7", True),
        ("model.wafer_resnet.width + 1 > 0", False),
        ("-model.wafer_resnet.width < 1", False),
        ("0 < model.wafer_resnet.width < 99", False),
        ("drop_path >= 0", False),
        ("unheard_of >= 0", False),
        ("idth >= 0", False),
        ("model.wafer_resnet.width > 0 or lr == 0.1", True),
        ("model.wafer_resnet.width > 0 and lr == 0.1", False),
        ("1 / grad_clip > 0", False),  # by zero
        ("not 1 / grad_clip > 0", True),
        ("lr + 1" + 400 * "0" + " > 0", False),  # too large for a float
        ("lr == 0.1 # the largest", True),
        ("  lr == 0.1 ", True),
    ],
)
def test_what_holds_of_a_configuration(text, holds):
    assert parse_expression(text).holds(CNN) is holds


def test_a_field_at_the_top_counts_for_every_branch():
    rule = parse_expression("lr > 0.05")

    assert rule.holds({"lr": 0.1, "model": "wafer_resnet"})
    assert rule.holds({"model": "wafer_resnet", "model.wafer_resnet.lr": 0.1})
    assert not rule.holds({"model": "wafer_resnet"})


def test_a_model_that_nobody_knows_has_no_defaults():
    assert parse_expression("model == 'vgg' and not width > 0").holds({"model": "vgg"})


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("sampling * 1000000000 == 'a'", "*"),
        ("sampling / 2 == 1", "/"),
        ("1 + squeeze > 1", "+"),
        ("-model < 1", "-"),
        ("sampling < 3", "<"),
        ("sampling <= 3", "<="),
        ("sampling > 3", ">"),
        ("sampling >= 3", ">="),
    ],
)
def test_words_are_no_numbers_when_it_comes_to_a_trial_either(text, sign):
    with pytest.raises(ExpressionError, match=f"^{re.escape(sign)} needs numbers; got"):
        parse_expression(text).holds(CNN)


def test_a_leaf_that_means_two_parameters_is_refused_for_a_trial():
    config = {"sampling": "power", "mixing": "mixup"}

    with pytest.raises(ExpressionError, match=r"'alpha' may mean sampling\.power\.alpha or mixing\.mixup\.alpha"):
        parse_expression("alpha > 0").holds(config)


@pytest.mark.parametrize(
    "text",
    [
        "sampling == 'balanced' and mixing != 'none'",
        "model == 'wafer_resnet' and model.wafer_resnet.width * batch_size > 4096",
        "batch_size in [64, 128, 256]",  # set in one branch; in the other its default counts
        "epochs == 8.0 or epochs in [4, 16]",
        "loss == 'cross_entropy' and lr == 0.001 and decide_for == 'drawn'",  # not in the space
        "label_smoothing == 0.0 and model.wafer_cnn.pooling == 'avgmax'",  # options that are not in the space
        "sampling.power.alpha > 0.5",
        "squeeze == true",
        "grad_clip != 0.5",
        "width == 20",
        "lr < 100",
    ],
)
def test_a_good_condition_has_no_problems(text):
    assert problems_of(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 < 2", "must mention at least one parameter"),
        ("samplng == 'balanced'", "no trial has a parameter 'samplng'; did you mean 'sampling'? (known: alpha,"),
        ("widht > 16", "no trial has a parameter 'widht'; did you mean 'width'? (known: alpha,"),
        (
            "sampling.power.alhpa > 0",
            "no trial has a parameter 'sampling.power.alhpa'; did you mean 'sampling.power.alpha'? "
            "(known: sampling.power.alpha)",
        ),
        (
            "model.resnet18.dropout > 0",
            "no trial has a parameter 'model.resnet18.dropout'; did you mean 'model.wafer_resnet.dropout'? "
            "(known: model.wafer_cnn.batch_size, ",
        ),
        ("modle.x.y > 0", "no trial has a parameter 'modle.x.y'; known: "),
        (
            "model.wafer_cnn.lr > 0",
            "no trial has a parameter 'model.wafer_cnn.lr'; lr is not set there: write 'lr' alone",
        ),
        ("alpha > 0.5", "'alpha' may mean sampling.power.alpha or mixing.mixup.alpha; write the one that is meant"),
        (
            "sampling == 'balancd'",
            "sampling is never 'balancd'; did you mean 'balanced'? (known: balanced, imbalanced, power)",
        ),
        ("'mixpu' != mixing", "mixing is never 'mixpu'; did you mean 'mixup'? (known: mixup, none)"),
        ("mixing in ['none', 'cutmix']", "mixing is never 'cutmix'; known: mixup, none"),
        ("mixing not in ['cutmix']", "mixing is never 'cutmix'; known: mixup, none"),
        (
            "model == 'resnet18'",
            "model is never 'resnet18'; did you mean 'wafer_resnet'? (known: wafer_cnn, wafer_resnet)",
        ),
        ("loss == 'focal'", "loss is never 'focal'; known: cross_entropy"),
        ("lr == 0.01", "lr is never 0.01; known: 0.001"),
        ("batch_size == 32", "batch_size is never 32; known: 128, 256, 64"),
        ("epochs == 6", "epochs is never 6; known: 4 to 16 in steps of 4"),
        ("epochs == 8.5", "epochs is never 8.5; known: 4 to 16 in steps of 4"),
        ("weight_decay == -1", "weight_decay is never -1; known: 1e-06 to 0.1"),
        ("epochs == '8'", "epochs is never '8'; known: 4 to 16 in steps of 4"),
        ("squeeze == 1", "squeeze is never 1; known: False, True"),
        ("grad_clip == true", "grad_clip is never True; known: 0.5"),
        ("sampling < 3", "sampling can be a word, and < > + - * / need numbers"),
        ("1 < epochs < model", "model can be a word, and < > + - * / need numbers"),
        ("loss + 1 == 2", "loss can be a word, and < > + - * / need numbers"),
        ("squeeze > 0", "squeeze can be true or false, and < > + - * / need numbers"),
    ],
)
def test_the_problem_of_a_condition(text, problem):
    [found] = problems_of(text)

    assert found.startswith(problem)


def test_a_default_that_every_branch_replaces_is_never_taken():
    space = Space({"model": Branch({"wafer_cnn": {"lr": Constant(0.1)}, "wafer_resnet": {"lr": Constant(0.2)}})})

    problems = check_expression(parse_expression("lr == 0.001"), space)

    assert problems == ["lr is never 0.001; known: 0.1, 0.2"]


def test_all_problems_are_told_at_once_and_each_only_once():
    problems = problems_of("sampling < 3 and mixing == 'mixed' and (mixing == 'mixed' or lrr > 1)")

    assert [problem.split(" ")[0] for problem in problems] == ["no", "sampling", "mixing"]


def test_a_condition_travels_to_another_process():
    expression = parse_expression("lr in [0.1, 0.2] and not (width < 16 or -epochs * 2 > 4)")

    again = pickle.loads(pickle.dumps(expression))

    assert again == expression
    assert again.text == "lr in [0.1, 0.2] and not (width < 16 or -epochs * 2 > 4)"
    assert again.holds(CNN) is expression.holds(CNN) is True


def test_an_error_travels_to_another_process():
    error = ExpressionError("column 4: invalid syntax")

    assert str(pickle.loads(pickle.dumps(error))) == "column 4: invalid syntax"
