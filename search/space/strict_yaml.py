"""YAML without its traps: 1e-4 is a number, `off` is a word, a repeated key is an error, every value has a line."""

import re
from pathlib import Path
from typing import Any

import yaml

from search.errors import ConfigError
from search.trial.vocabulary import Scalar

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads numbers and words as YAML 1.2 does, and refuses anchors, aliases and tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        for word in ("anchor", "tag"):  # an alias names its anchor
            if getattr(event, word, None):
                problem = f"{word}s are not supported; write the value out"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes the words which `_Loader` would take for numbers, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_word(dumper: _Dumper, word: str) -> yaml.ScalarNode:
    """Escape the line breaks that PyYAML writes as they are and reads back as others."""
    style = '"' if any(mark in word for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", word, style=style)


_Dumper.add_representer(str, _represent_word)
_NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)"
for _tag, _pattern in (
    ("bool", r"true|false"),
    ("int", r"[-+]?(0|[1-9]\d*)"),
    ("float", rf"{_NUMBER}([eE][-+]?\d+)?|[-+]?\.inf|\.nan"),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), None)


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """Read one YAML file.

    Returns:
        The values, and the line of each (from 1) by its path of keys and positions.

    Raises:
        ConfigError: If the file cannot be read or is not proper YAML; with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise ConfigError(f"{path}: cannot be read ({reason})") from None
    lines: Lines = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else _to_value(loader, node, (), lines)
    except (yaml.MarkedYAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = ", ".join(part for name in ("context", "problem") if (part := getattr(error, name, None)))
        raise ConfigError(f"{where}: {reason or 'nested too deeply'}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    return value, lines


def read_scalar(text: str) -> Scalar | None:
    """Read one value as a space file would.

    Returns:
        None if it is no single value.

    Example:
        >>> read_scalar("1e-4"), read_scalar("wafer_cnn"), read_scalar("[1]")
        (0.0001, 'wafer_cnn', None)
    """
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader of ours
    except (yaml.YAMLError, ValueError, RecursionError):  # a number of 5,000 digits, or brackets without end
        return None
    return value if isinstance(value, int | float | str) else None


def _to_value(loader: _Loader, node: yaml.Node, path: KeyPath, lines: Lines) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"keys must be words; got {key!r}", problem_mark=key_node.start_mark)
            if key in mapping:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands here twice", problem_mark=key_node.start_mark)
            mapping[key] = _to_value(loader, value_node, (*path, key), lines)
            lines[*path, key] = key_node.start_mark.line + 1
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_to_value(loader, child, (*path, i), lines) for i, child in enumerate(node.value)]
    return loader.construct_object(node)


def dump_yaml(value: Any) -> str:
    """Write plain values so that `read_yaml` reads the same ones back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
