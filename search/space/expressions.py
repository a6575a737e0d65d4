"""The `if` of a forbid rule: a small condition on parameters, read from text and never run as code.

A rule speaks of the trial as it would be trained: what a configuration leaves out has its default. `batch_size` means
the field wherever it is set, at the top or in the chosen branch, as `model.wafer_cnn.batch_size`. What belongs to a
branch that was not chosen is absent, and a comparison with something absent does not hold, whichever it is.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.space.space import Config, Constant, Node, Range, Space, values_of
from search.trial.params import FIELDS, TrialParams
from search.trial.vocabulary import CHOICES, Scalar, nearest, options_of

# Far above any sensible rule, far below what Python's parser or our recursion would mind.
_MAX_LENGTH, _MAX_DEPTH = 500, 20
_OPERATORS: Mapping[type[ast.AST], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.In: ("in", lambda value, listed: value in listed),
    ast.NotIn: ("not in", lambda value, listed: value not in listed),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
}
_APPLY = dict(_OPERATORS.values())
_FOR_WORDS_TOO = ("==", "!=", "in", "not in")
_REFUSED: Mapping[type[ast.AST], str] = {
    ast.Constant: "such a constant",
    ast.Call: "a call",
    ast.Subscript: "an index",
    ast.Attribute: "a dot after anything but a name",
    ast.Compare: "a comparison inside a value",
    ast.Tuple: "a list that does not follow in",
    ast.List: "a list that does not follow in",
    ast.UnaryOp: "+, ~ or not before a value",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.Pow: "**",
    ast.Mod: "%",
    ast.FloorDiv: "//",
    ast.BitAnd: "& (write and)",
    ast.BitOr: "| (write or)",
    ast.Is: "is (write ==)",
    ast.IsNot: "is not (write !=)",
}


class ExpressionError(ValueError):
    """A text is no expression of ours, or what it asks for cannot be computed."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class _Operation:
    """A comparison, which is a condition, or arithmetic, which is a value."""

    sign: str
    left: "_Value"
    right: "_Value"


@dataclass(frozen=True, slots=True)
class _Junction:
    decide: Callable[[Iterator[bool]], bool]  # all or any
    parts: tuple["_Condition", ...]


@dataclass(frozen=True, slots=True)
class _Negation:
    part: "_Condition"


_Value = _Parameter | _Literal | _Operation
_Condition = _Operation | _Junction | _Negation


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition on the parameters of one trial, from `parse_expression`; equal if the text is.

    Attributes:
        text: As it was written.
    """

    text: str
    _condition: _Condition = field(compare=False, repr=False)

    @property
    def names(self) -> frozenset[str]:
        """The parameters it mentions, as it names them."""
        return frozenset(part.name for part in _walk(self._condition) if isinstance(part, _Parameter))

    def holds(self, config: Config) -> bool:
        """Whether it is true of a flat configuration, completed with the defaults.

        A comparison is false, and its `not` hence true, if it mentions a parameter of a branch that was not chosen,
        or if it cannot be computed, such as a division by zero.

        Raises:
            ExpressionError: If a word must be a number, or a leaf means two parameters; `check_expression` finds
                either beforehand.

        Example:
            >>> rule = parse_expression("model.wafer_resnet.width * batch_size > 4096")
            >>> rule.holds({"model": "wafer_resnet", "model.wafer_resnet.width": 64, "batch_size": 128})
            True
            >>> rule.holds({"model": "wafer_cnn", "model.wafer_cnn.width": 64, "batch_size": 128})
            False
        """
        return _test(self._condition, _complete({name: Constant(value) for name, value in config.items()}))


def parse_expression(text: str) -> Expression:
    """Read a condition: comparisons, joined by `and`, `or`, `not` and parentheses.

    Each side of a comparison is a parameter, a number, a quoted word, true or false, or numbers joined by + - * /;
    what stands after `in` is a list of constants.

    Raises:
        ExpressionError: Saying what is not allowed, or at which column the syntax is wrong.
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"must be at most {_MAX_LENGTH} characters long; got {len(text)}")
    text = text.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python is about to forbid, such as `1or`, is wrong already
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"column {error.offset or 1}: {error.msg}; got {text!r}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # such as a null byte, or nesting
        raise ExpressionError(f"cannot be read ({error}); got {text!r}") from None
    level: list[ast.AST] = [tree]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ExpressionError(f"must nest at most {_MAX_DEPTH} levels deep; got {text!r}")
    condition = _read_condition(tree, text)
    for operand in _number_operands(condition):
        if isinstance(operand, _Literal) and _kind(operand.value) != "a number":
            raise ExpressionError(f"{operand.value!r} stands where a number must; got {text!r}")
    return Expression(text, condition)


def check_expression(expression: Expression, space: Space) -> list[str]:
    """Find what makes a condition pointless or impossible in a space, before any trial.

    Args:
        expression: What was read.
        space: What the trials are drawn from; what it leaves out has its default.

    Returns:
        Problems, none if it is good: no parameter at all, an unknown one, a leaf that means two, a word that must be
        a number, or a value that the parameter never takes.
    """
    nodes = _complete(dict(space.walk()))
    owners = {name: _find(name, nodes) for name in sorted(expression.names)}
    problems = [] if owners else ["must mention at least one parameter"]
    for name, found in owners.items():
        if not found:
            problems.append(f"no trial has a parameter {name!r}; {_suggest(name, nodes)}")
        elif len({full.partition(".")[0] for full in found if "." in full}) > 1:
            problems.append(_describe_ambiguity(name, found))
    for operand in _number_operands(expression._condition):
        if isinstance(operand, _Parameter):
            kinds = {kind for full in owners[operand.name] for kind in _kinds(nodes[full])} - {"a number"}
            problems += [f"{operand.name} can be {kind}, and < > + - * / need numbers" for kind in sorted(kinds)]
    for name, value in _tested_values(expression._condition):
        domain = [nodes[full] for full in owners[name]]
        if domain and not any(_can_be(node, value) for node in domain):
            known = {words for node in domain for words in _describe(node)}
            word = value if isinstance(value, str) else ""  # numbers that look alike are no help
            problems.append(f"{name} is never {value!r}; {nearest(word, list(known))}")
    return list(dict.fromkeys(problems))


def _read_condition(node: ast.expr, text: str) -> _Condition:
    match node:
        case ast.BoolOp(op=junction, values=values):
            parts = tuple(_read_condition(value, text) for value in values)
            return _Junction(all if isinstance(junction, ast.And) else any, parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _Negation(_read_condition(operand, text))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            # A chain holds if each of its links does, for absent parameters too.
            lefts = [left, *rights[:-1]]
            for sign in ops:
                if type(sign) not in _OPERATORS:
                    raise _refusal(sign, node, text)
            return _Junction(all, tuple(_read_link(*link, text) for link in zip(lefts, ops, rights, strict=True)))
    _read_value(node, text)  # which may know better what is wrong
    raise ExpressionError(f"must compare something, as in lr > 0.01; got {_quote(node, text)} by itself")


def _read_link(left: ast.expr, op: ast.cmpop, right: ast.expr, text: str) -> _Operation:
    sign, _ = _OPERATORS[type(op)]
    return _Operation(sign, _read_value(left, text), (_read_list if "in" in sign else _read_value)(right, text))


def _read_list(node: ast.expr, text: str) -> _Literal:
    values = [_read_value(element, text) for element in node.elts] if isinstance(node, ast.List | ast.Tuple) else []
    constants = tuple(v.value for v in values if isinstance(v, _Literal) and not isinstance(v.value, tuple))
    if not constants or len(constants) < len(values):
        raise ExpressionError(f"constants in brackets, such as ['a', 'b'], must follow in; got {_quote(node, text)}")
    return _Literal(constants)


def _read_value(node: ast.expr, text: str) -> _Value:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value) if value != math.inf:
            return _Literal(value)
        case ast.Name(id="true" | "false" as word):  # as YAML has them
            return _Literal(word == "true")
        case ast.Name(id=name):
            return _Parameter(name)
        case ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr=leaf):
            start = _read_value(owner, text)
            if isinstance(start, _Parameter):
                return _Parameter(f"{start.name}.{leaf}")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _read_value(operand, text)
            if isinstance(inner, _Literal) and _kind(inner.value) == "a number":
                return _Literal(_APPLY["-"](0, inner.value))
            return _Operation("-", _Literal(0), inner)
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) not in _OPERATORS:
                raise _refusal(op, node, text)
            return _Operation(_OPERATORS[type(op)][0], _read_value(left, text), _read_value(right, text))
    raise _refusal(node, node, text)


def _refusal(what: ast.AST, at: ast.expr, text: str) -> ExpressionError:
    words = _REFUSED.get(type(what), type(what).__name__)
    allowed = "parameters and constants, compared, joined by and, or, not, and + - * / between numbers"
    return ExpressionError(f"{words} is not allowed, at {_quote(at, text)}; allowed are {allowed}")


def _quote(node: ast.expr, text: str) -> str:
    return repr(ast.get_source_segment(text, node))


def _complete(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Add what defaults supply, to a space or to a configuration, which is a space of constants."""
    full = dict(nodes)
    names: dict[str, list[str]] = {}
    for choice, things in CHOICES.items():
        node = full.setdefault(choice, Constant(TrialParams.model_fields[choice].default.name))
        names[choice] = [name for name in values_of(node) if isinstance(name, str) and name in things]
        for name in names[choice]:
            for leaf, value in options_of(choice, name).items():
                full.setdefault(f"{choice}.{name}.{leaf}", Constant(value))
    for leaf in FIELDS:
        # Only if it is set in every branch of one choice does the default of a field never count.
        if not any(all(f"{choice}.{name}.{leaf}" in nodes for name in names[choice]) for choice in CHOICES):
            full.setdefault(leaf, Constant(TrialParams.model_fields[leaf].default))
    return full


def _find(name: str, nodes: Mapping[str, Node]) -> list[str]:
    """List the full names that a name may mean, itself first."""
    leaves = [full for full in nodes if full.endswith(f".{name}")] if "." not in name else []
    return ([name] if name in nodes else []) + leaves


def _suggest(name: str, nodes: Mapping[str, Node]) -> str:
    leaf = name.rpartition(".")[2]
    if leaf in nodes and leaf != name:
        return f"{leaf} is not set there: write {leaf!r} alone"
    if leaf == name:
        return nearest(name, list({full.rpartition(".")[2] for full in nodes}))
    inside = [full for full in nodes if full.startswith(f"{name.partition('.')[0]}.")]
    return nearest(name, inside or list(nodes))


def _describe_ambiguity(name: str, found: list[str]) -> str:
    return f"{name!r} may mean {' or '.join(found)}; write the one that is meant"


def _test(condition: _Condition, nodes: Mapping[str, Node]) -> bool:
    match condition:
        case _Junction(decide, parts):
            return decide(_test(part, nodes) for part in parts)
        case _Negation(part):
            return not _test(part, nodes)
        case _Operation():
            return _compute(condition, nodes) is True


def _compute(value: _Value, nodes: Mapping[str, Node]) -> Any:
    """Return a value, None if it is absent or cannot be computed."""
    match value:
        case _Literal(constant):
            return constant
        case _Parameter(name):
            found = _find(name, nodes)
            if len(found) > 1 and name not in found:
                raise ExpressionError(_describe_ambiguity(name, found))
            node = nodes[found[0]] if found else None
            return node.value if isinstance(node, Constant) else None
        case _Operation(sign, left, right):
            operands = [_compute(left, nodes), _compute(right, nodes)]
    if None in operands:
        return None
    for operand in operands if sign not in _FOR_WORDS_TOO else ():
        if _kind(operand) != "a number":  # a word times a number could fill the memory
            raise ExpressionError(f"{sign} needs numbers; got {operand!r}")
    try:
        return _APPLY[sign](*operands)
    except (ZeroDivisionError, OverflowError):
        return None


def _walk(part: _Condition | _Value) -> Iterator[_Condition | _Value]:
    yield part
    match part:
        case _Junction(_, parts):
            for inner in parts:
                yield from _walk(inner)
        case _Negation(inner):
            yield from _walk(inner)
        case _Operation(_, left, right):
            yield from _walk(left)
            yield from _walk(right)


def _number_operands(condition: _Condition) -> Iterator[_Value]:
    """Go through everything that must be a number."""
    for part in _walk(condition):
        if isinstance(part, _Operation) and part.sign not in _FOR_WORDS_TOO:
            yield from (part.left, part.right)


def _tested_values(condition: _Condition) -> Iterator[tuple[str, Scalar]]:
    """Go through every constant that a parameter is said to equal, or not to."""
    for part in _walk(condition):
        if isinstance(part, _Operation) and part.sign in _FOR_WORDS_TOO:
            for one, other in ((part.left, part.right), (part.right, part.left)):
                if isinstance(one, _Parameter) and isinstance(other, _Literal):
                    values = other.value if isinstance(other.value, tuple) else (other.value,)
                    yield from ((one.name, value) for value in values)


def _kind(value: object) -> str:
    return {bool: "true or false", str: "a word"}.get(type(value), "a number")


def _kinds(node: Node) -> set[str]:
    return {_kind(value) for value in values_of(node)}


def _can_be(node: Node, value: Scalar) -> bool:
    if isinstance(node, Range):
        is_whole = isinstance(value, float) and value.is_integer()
        return node.contains(int(value) if is_whole and node.is_whole else value)
    return any(value == known and _kind(value) == _kind(known) for known in values_of(node))


def _describe(node: Node) -> list[str]:
    if isinstance(node, Range):
        return [f"{node.low} to {node.high}" + (f" in steps of {node.step}" if node.step else "")]
    return [str(value) for value in values_of(node)]
