"""From a space file to a StudyConfig: found, read, and checked down to what would only fail in a trial."""

import importlib.resources
import itertools
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from search.errors import ConfigError
from search.space.config import ConfirmConfig, DataConfig, ResourcesConfig, Rule, SearchConfig, Section, StudyConfig
from search.space.dice import DRAWS, Dice, look_over
from search.space.expressions import ExpressionError, check_expression, parse_expression
from search.space.floors import Floor, parse_floor
from search.space.grammar import parse_space
from search.space.objective import METRICS, OVER, Objective
from search.space.problems import Problems
from search.space.space import Range, Space
from search.space.strict_yaml import read_yaml
from search.trial.params import find_contradiction, split_key
from search.trial.vocabulary import nearest

_SECTIONS = ("name", "data", "space", "objective", "first", "forbid", "constraints", "search", "resources", "confirm")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a word",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_Section = TypeVar("_Section", bound=Section)


def find_space(asked: str) -> Path:
    """Find a space file: by path first, then by name among the shipped ones.

    Raises:
        ConfigError: With the spaces that are shipped.
    """
    if Path(asked).is_file():
        return Path(asked).resolve()
    shipped = Path(str(importlib.resources.files("configs")))
    for candidate in (shipped / asked, shipped / f"{asked}.yaml"):
        if candidate.is_file():
            return candidate
    names = sorted(path.stem for path in shipped.glob("*.yaml"))
    meant = nearest(asked.removesuffix(".yaml"), names)
    raise ConfigError(f"{asked}: no such file, and no shipped space of that name; {meant}")


def load_study_config(path: Path, *, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read one space file and check all of it before anything is trained.

    Args:
        path: YAML file.
        overrides: Values by dotted path, such as "search.trials", that replace those of the file.

    Raises:
        ConfigError: With every problem found, one line each.
    """
    tree, lines = read_yaml(path)
    problems = Problems(path, lines, given=overrides or ())
    if not isinstance(tree, dict):
        problems.add((), f"must be a mapping with the keys {', '.join(_SECTIONS)}")
        problems.raise_if_any()
    for key, value in (overrides or {}).items():
        section, _, leaf = key.partition(".")
        if tree.get(section) in (None, "none"):  # absent, a key with nothing behind it, or left out on purpose
            tree[section] = {}
        if isinstance(tree[section], dict):
            tree[section][leaf] = value
    for key in tree:
        if key not in _SECTIONS:
            problems.add((key,), f"unknown key; {nearest(key, list(_SECTIONS))}")
    data = read_section(DataConfig, tree, "data", problems)
    search = read_section(SearchConfig, tree, "search", problems)
    space = parse_space(tree.get("space"), problems, image_size=data.image_size)
    config = StudyConfig(
        name=_read_name(tree.get("name", path.stem), problems),
        data=data,
        space=space,
        objective=_read_objective(tree.get("objective", {}), problems),
        first=tuple(tree["first"]) if isinstance(tree.get("first"), list) else (),
        forbid=_read_rules(tree.get("forbid", []), space, problems),
        floors=_read_floors(tree.get("constraints", []), problems),
        search=search,
        resources=read_section(ResourcesConfig, tree, "resources", problems),
        confirm=_read_confirm(tree, problems),
    )
    _check_first(tree.get("first", []), config.space, problems)
    _check_together(config, problems)
    problems.raise_if_any()
    _check_allowed(config, problems)  # a rule can only be applied to what is good by itself
    problems.raise_if_any()
    return config


def read_section(kind: type[_Section], tree: Mapping[str, Any], key: str, problems: Problems) -> _Section:
    """Read one section; its defaults where it is absent, and where it is wrong, which is noted."""
    try:
        return kind.model_validate(tree.get(key) if tree.get(key) is not None else {})
    except ValidationError as error:
        for entry in error.errors():
            problems.add((key, *entry["loc"]), _describe(kind, entry))
        return kind()


def _read_confirm(tree: Mapping[str, Any], problems: Problems) -> ConfirmConfig | None:
    """Read how the best are confirmed; nothing is unless the file has this section."""
    if tree.get("confirm", "none") == "none":
        return None
    return read_section(ConfirmConfig, tree, "confirm", problems)


def _describe(kind: type[BaseModel], entry: Any) -> str:
    """Turn one of pydantic's errors into a line of ours."""
    got, context = f"; got {entry['input']!r}", entry.get("ctx", {})
    match entry["type"]:
        case "extra_forbidden":
            return f"unknown key; {nearest(str(entry['loc'][-1]), _fields_at(kind, entry['loc'][:-1]))}"
        case "literal_error":
            return f"must be {context['expected'].replace(chr(39), '')}{got}"
        case "value_error":
            return f"{str(entry['msg']).removeprefix('Value error, ')}{got}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            [limit] = context.values()
            sign = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}
            return f"must be {sign[entry['type']]} {limit:.10g}{got}"
    return f"must be {_TYPES.get(entry['type'], 'something else: ' + str(entry['msg']))}{got}"


def _fields_at(kind: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """List the keys that the section at `path` inside `kind` knows."""
    for part in path:
        annotation = kind.model_fields[str(part)].annotation
        kind = next(t for t in (annotation, *get_args(annotation)) if hasattr(t, "model_fields"))
    return list(kind.model_fields)


def is_study_name(value: object) -> TypeGuard[str]:
    """Whether a study may be called so: its folder then lies right below the results."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _read_name(value: Any, problems: Problems) -> str:
    if is_study_name(value):
        return value
    problems.add(("name",), f"must be letters, digits, '.', '_' or '-', at most 80; got {value!r}")
    return "unnamed"


def _read_objective(tree: Any, problems: Problems) -> Objective:
    if (
        not isinstance(tree, dict)
        or set(tree) - {"maximize", "weights", "over"}
        or {"maximize", "weights"} <= set(tree)
    ):
        forms = f"{{maximize: {' or '.join(METRICS)}}} or {{weights: {{CLASS: number}}}}, with `over` beside it"
        problems.add(("objective",), f"must be {forms}; got {tree!r}")
        return Objective()
    over, metric = tree.get("over", Objective().over), tree.get("maximize", Objective().metric)
    if over not in OVER:
        problems.add(("objective", "over"), f"unknown rule {over!r}; {nearest(str(over), list(OVER))}")
    if "weights" in tree:
        weights = tree["weights"]
        is_table = isinstance(weights, dict) and bool(weights)
        if not is_table or not all(_is_weight(weight) for weight in weights.values()):
            problems.add(("objective", "weights"), f"must map classes to numbers above 0; got {weights!r}")
            return Objective()
        return Objective(metric="weighted_f1", weights=weights, over=str(over))
    if not isinstance(metric, str) or metric not in METRICS:
        problems.add(("objective", "maximize"), f"unknown metric {metric!r}; {nearest(str(metric), list(METRICS))}")
    return Objective(metric=str(metric), over=str(over))


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _read_rules(tree: Any, space: Space, problems: Problems) -> tuple[Rule, ...]:
    """Read what is forbidden; each rule says in words why."""
    if not isinstance(tree, list):
        problems.add(("forbid",), f"must be a list of {{if: CONDITION, why: REASON}}; got {tree!r}")
        return ()
    rules: list[Rule] = []
    for i, entry in enumerate(tree):
        if not isinstance(entry, dict) or set(entry) != {"if", "why"} or not all(map(_is_text, entry.values())):
            problems.add(("forbid", i), f"must be {{if: CONDITION, why: REASON}}, both texts; got {entry!r}")
            continue
        try:
            condition = parse_expression(entry["if"])
        except ExpressionError as error:
            problems.add(("forbid", i, "if"), str(error))
            continue
        for problem in check_expression(condition, space):
            problems.add(("forbid", i, "if"), problem)
        rules.append(Rule(condition=condition, why=entry["why"]))
    return tuple(rules)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _read_floors(tree: Any, problems: Problems) -> tuple[Floor, ...]:
    if not isinstance(tree, list):
        problems.add(("constraints",), f'must be a list such as ["f1[Scratch] >= 0.60"]; got {tree!r}')
        return ()
    floors: dict[tuple[str, str | None], Floor] = {}
    for i, entry in enumerate(tree):
        try:
            floor = parse_floor(str(entry))
        except ValueError as error:
            problems.add(("constraints", i), str(error))
            continue
        what = (floor.metric, floor.class_name)
        if what in floors:
            problems.add(("constraints", i), f"{floor.text}: stands beside {floors[what].text}; keep the higher one")
        floors[what] = floor
    return tuple(floors.values())


def _check_first(points: Any, space: Space, problems: Problems) -> None:
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        problems.add(("first",), f"must be a list of mappings from parameters to values; got {points!r}")
        return
    known = dict(space.walk())
    for i, point in enumerate(points):
        for name, value in point.items():
            choice, option, leaf = split_key(name)
            if name not in known:
                problems.add(("first", i, name), f"is not in the space; {nearest(name, known)}")
            elif leaf and point.get(choice, option) != option:
                problems.add(("first", i, name), f"set, but {choice} is {point[choice]!r}")
            elif not space.contains(name, value):
                problems.add(("first", i, name), f"must be {_describe_values(space, name)}; got {value!r}")


def _describe_values(space: Space, name: str) -> str:
    node = dict(space.walk())[name]
    if not isinstance(node, Range):
        return " or ".join(repr(value) for value in space.values_of(name))
    steps = f", in steps of {node.step}" if node.step else ""
    return f"a {'whole ' if node.is_whole else ''}number in [{node.low}, {node.high}]{steps}"


def _check_together(config: StudyConfig, problems: Problems) -> None:
    split, asha = config.data.split, config.search.stop.asha if config.search.stop else None
    if split.val + split.test >= 1:
        problems.add(("data", "split"), f"val + test must be below 1; got {split.val} + {split.test}")
    longest = config.space.longest
    if asha and asha.first_rung >= longest and longest > 1:
        problems.add(
            ("search", "stop", "asha", "first_rung"),
            f"must be below the longest schedule ({longest} epochs); got {asha.first_rung} epochs; "
            "every trial would run to its end",
        )
    elif asha and asha.progressive and asha.first_rung * asha.factor >= longest:
        problems.add(
            ("search", "stop", "asha", "progressive"),
            f"must have a second rung below the longest schedule ({longest} epochs); got one at "
            f"{asha.first_rung * asha.factor} epochs; lower first_rung or factor, or leave it out",
        )
    for name in config.resources.models:
        if name not in config.space.models:
            problems.add(
                ("resources", "models", name), f"is not in the space; {nearest(name, list(config.space.models))}"
            )
    pairs = itertools.product(*(config.space.values_of(key) or ("",) for key in ("loss", "sampling")))
    contradictions = [find_contradiction({"loss": loss, "sampling": sampling}) for loss, sampling in pairs]
    if all(contradictions):
        problems.add(("space", "loss"), f"{contradictions[0]}; use sampling: imbalanced, or loss: cross_entropy")
    for name, sizes in _values_of_field(config.space, "batch_size").items():
        if max(sizes) > config.data.epoch_samples:
            problems.add(
                ("space", *name.replace(".", ".choose.", 1).split(".")),
                f"must be at most data.epoch_samples ({config.data.epoch_samples}); got {max(sizes)}",
            )


def _check_allowed(config: StudyConfig, problems: Problems) -> None:
    """Check that the rules leave something of the space, and of each point that is to be tried first."""
    space, dice = config.space, random.Random(0)
    for i, point in enumerate(config.first):
        draw = Dice(dice, point)
        is_whole = space.parameters().keys() & space.sample(draw).keys() <= point.keys()
        whys = [config.forbids(space.sample(draw))]
        while whys[-1] and not is_whole and len(whys) < DRAWS:
            whys.append(config.forbids(space.sample(draw)))
        if whys[-1]:
            however = "" if is_whole else ", however it is filled up"
            problems.add(("first", i), f"is forbidden{however} ({whys[-1]}); change it, or relax the rule")
    held, n = Counter[int](), 0
    looked_at, is_exact = look_over(space, random.Random(0))
    for flat in looked_at:
        if not config.forbids(flat):
            return
        n += 1
        held.update(i for i, rule in enumerate(config.forbid) if rule.condition.holds(flat))
    what = "configurations" if is_exact else "draws"
    for i, times in held.items():
        forbidden = f"this rule forbids {times:,} of {n:,} {what} ({config.forbid[i].why})"
        problems.add(("forbid", i), f"must leave something of the space; {forbidden}; relax it")


def _values_of_field(space: Space, field: str) -> dict[str, list[int]]:
    """Collect the values of a whole-numbered field, or their ends, wherever in the space it stands."""
    names = [name for name, _ in space.walk() if name.rpartition(".")[2] == field]
    return {name: [int(value) for value in space.values_of(name)] for name in names}
