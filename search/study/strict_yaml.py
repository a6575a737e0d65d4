"""YAML without its traps: 1e-4 is a number, `off` is a word, a repeated key is an error, every value has a line."""

import re
from pathlib import Path
from typing import Any

import yaml

from search.errors import ConfigError

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads numbers and words as YAML 1.2 does, and refuses aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not supported; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes the words which `_Loader` would take for numbers."""


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
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'nested too deeply'}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None
    return value, lines


def _to_value(loader: _Loader, node: yaml.Node, path: KeyPath, lines: Lines) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
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
