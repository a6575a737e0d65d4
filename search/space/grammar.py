"""From the `space` part of a YAML file to a Space, with every value in it checked."""

import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from search.space.problems import Problems
from search.space.space import Branch, Choice, Constant, Node, Range, Space, values_of
from search.space.strict_yaml import KeyPath
from search.trial.params import FIELDS, TrialParams, check_key, check_value, try_options
from search.trial.vocabulary import CHOICES, Scalar, nearest, options_of

_RANGE_KEYS = ("low", "high", "log", "step")


def parse_space(tree: Any, problems: Problems, *, image_size: int) -> Space:
    """Read the space and check it down to the ends of every range.

    Beyond the form, this tries the options of every branch on the real factories, so that a dropout of 1.2 or
    unreachable weights are found before any trial.

    Args:
        tree: What stands under `space`.
        problems: Where problems are noted; the space is of use only if there are none.
        image_size: Pixels per side that the models would get.
    """
    if not isinstance(tree, dict) or not tree:
        problems.add(("space",), f"must hold at least one parameter; known: {', '.join([*CHOICES, *FIELDS])}")
        return Space({})
    nodes = _parse_level(tree, ("space",), prefix="", problems=problems)
    _check_unique_fields(nodes, problems)
    for choice in CHOICES:
        default = None if choice in tree else Constant(TrialParams.model_fields[choice].default.name)
        _try_all_options(choice, nodes.get(choice, default), problems, image_size=image_size)
    return Space(nodes)


def _parse_level(tree: Mapping[str, Any], path: KeyPath, *, prefix: str, problems: Problems) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for key, value in tree.items():
        name, here = prefix + key, (*path, key)
        problem = f"{name}: put it under `choose`" if "." in key else check_key(name)
        if problem:
            problems.add(here, problem.removeprefix(f"{name}: "))
            continue
        node = _parse_node(value, here, name=name, problems=problems)
        if node is not None:
            nodes[key] = node
    return nodes


def _parse_node(value: Any, path: KeyPath, *, name: str, problems: Problems) -> Node | None:
    if isinstance(value, dict) and "choose" in value:
        return _parse_branch(value, path, name=name, problems=problems)
    if isinstance(value, dict) and name in CHOICES:
        problems.add(path, "must be a name, a list of names, or a mapping of names under `choose`")
        return None
    if isinstance(value, dict):
        return _parse_range(value, path, name=name, problems=problems)
    if isinstance(value, list):
        return _parse_choice(value, path, name=name, problems=problems)
    return Constant(_absolute(name, value)) if _check(name, value, path, problems) else None


def _absolute(name: str, value: Scalar) -> Scalar:
    """Make the path of a weights file absolute: the processes that train have folders of their own."""
    is_path = name.endswith(".weights") and value not in ("none", "imagenet")
    return str(Path(str(value)).resolve()) if is_path else value


def _parse_choice(values: list[Any], path: KeyPath, *, name: str, problems: Problems) -> Node | None:
    if not values:
        problems.add(path, "must list at least one value")
        return None
    good = [_check(name, value, (*path, i), problems) for i, value in enumerate(values)]
    if all(good) and len(set(values)) < len(values):
        problems.add(path, f"lists a value twice; got {values!r}")
    return Choice(tuple(_absolute(name, value) for value in values)) if all(good) else None


def _parse_branch(tree: dict[str, Any], path: KeyPath, *, name: str, problems: Problems) -> Node | None:
    options = tree["choose"]
    if name not in CHOICES:
        problems.add(path, f"only {', '.join(CHOICES)} can branch; write a list or {{low: ..., high: ...}}")
        return None
    if len(tree) > 1:
        problems.add(path, f"nothing may stand beside `choose`; got {', '.join(k for k in tree if k != 'choose')}")
    if not isinstance(options, dict) or not options:
        problems.add((*path, "choose"), "must be a mapping from each option to its own sub-space ({} if it has none)")
        return None
    branches: dict[str, Mapping[str, Node]] = {}
    for option, inner in options.items():
        here = (*path, "choose", option)
        if option not in CHOICES[name]:
            problems.add(here, f"unknown {name}; {nearest(option, CHOICES[name])}")
        elif inner is not None and not isinstance(inner, dict):
            problems.add(here, f"must be a mapping of parameters, {{}} if there are none; got {inner!r}")
        else:
            branches[option] = _parse_level(inner or {}, here, prefix=f"{name}.{option}.", problems=problems)
    return Branch(branches) if branches else None


def _parse_range(tree: dict[str, Any], path: KeyPath, *, name: str, problems: Problems) -> Node | None:
    for key in tree:
        if key not in _RANGE_KEYS:
            problems.add((*path, key), f"unknown key of a range; {nearest(key, list(_RANGE_KEYS))}")
            return None
    for key in ("low", "high", *(["step"] if "step" in tree else [])):
        value = tree.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            problems.add((*path, key) if key in tree else path, f"a range needs {key} as a number; got {value!r}")
            return None
    low, high, log, step = tree["low"], tree["high"], tree.get("log", False), tree.get("step")
    is_whole = isinstance(low, int) and isinstance(high, int)
    if not isinstance(log, bool):
        problems.add((*path, "log"), f"must be true or false; got {log!r}")
        return None
    checks = [
        (low < high, "low", f"must be below high ({high}); got {low}"),
        (not log or low > 0, "low", f"must be > 0 when log is true; got {low}"),
        (not (log and step), "step", "cannot go together with log: true"),
        (step is None or 0 < step <= high - low, "step", f"must be in (0, {high - low:g}]; got {step}"),
        (
            isinstance(low, int) == isinstance(high, int),
            "high",
            f"must be whole, or not, as low ({low}) is; got {high}",
        ),
        (not is_whole or isinstance(step, int | None), "step", f"must be whole, as low ({low}) is; got {step}"),
        (_divides(step, low, high), "step", f"must divide high - low ({high - low:g}) without a rest; got {step}"),
    ]
    for good, key, what in checks:
        if not good:
            problems.add((*path, key), what)
            return None
    ends = [_check(name, end, (*path, key), problems) for key, end in (("low", low), ("high", high))]
    return Range(low, high, log, step) if all(ends) else None


def _divides(step: float | None, low: float, high: float) -> bool:
    """Whether steps from low end at high; in decimals, because 0.1 does not divide 0.4 in binary."""
    if not step or not math.isfinite(step + low + high):
        return True  # another check has its say
    return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) == 0


def _check(name: str, value: Any, path: KeyPath, problems: Problems) -> bool:
    if not isinstance(value, bool | int | float | str):
        problems.add(path, f"must be a number or a word; got {value!r}")
        return False
    problem = check_value(name, value)
    if problem:
        problems.add(path, problem.removeprefix(f"{name}: "))
    return problem is None


def _check_unique_fields(nodes: Mapping[str, Node], problems: Problems) -> None:
    """A field such as lr may stand at the top or in the branches of one choice, or it would be set twice."""
    owner: dict[str, str] = {name: "the top" for name in nodes if name in FIELDS}
    for choice, node in nodes.items():
        for option, inner in node.options.items() if isinstance(node, Branch) else ():
            for leaf in inner:
                if leaf in options_of(choice, option):
                    continue
                if owner.setdefault(leaf, choice) != choice:
                    path = ("space", choice, "choose", option, leaf)
                    problems.add(path, f"is set at {owner[leaf]} too; which one counts would be unclear")


def _try_all_options(choice: str, node: Node | None, problems: Problems, *, image_size: int) -> None:
    """Try the constants of each branch together, with each end of every other parameter in turn."""
    branches = node.options if isinstance(node, Branch) else {str(name): {} for name in values_of(node)}
    for name, inner in branches.items():
        path: KeyPath = ("space", choice) if not isinstance(node, Branch) else ("space", choice, "choose", name)
        own = {leaf: values_of(inner[leaf]) for leaf in inner if leaf in options_of(choice, name)}
        fixed = {leaf: values[0] for leaf, values in own.items() if len(values) == 1}
        problem = try_options(choice, name, fixed, image_size=image_size)
        if problem:
            problems.add(path, problem)
            continue
        for leaf in (leaf for leaf in own if leaf not in fixed):
            for value in own[leaf]:
                problem = try_options(choice, name, fixed | {leaf: value}, image_size=image_size)
                if problem:
                    problems.add((*path, leaf), problem.removeprefix(f"{leaf} "))
