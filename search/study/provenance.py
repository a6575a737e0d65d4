"""What a study was made with, and whether it may go on with what is given now."""

import importlib.metadata
import platform
import shlex
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch

from data_pipeline.dataset import Dataset
from data_pipeline.splits import PARTS
from search.errors import ConfigError
from search.space.config import StudyConfig
from search.space.strict_yaml import dump_yaml, read_yaml
from search.study.records import StudyFolder, read_json, write_atomically, write_json

_PACKAGES = ("torch", "torchvision", "ray", "optuna", "numpy", "pandas", "scikit-learn")
# Raising these is how a study is extended; where the wafers lie does not matter, their fingerprint does; and what
# comes after the search changes nothing in it.
_LIMITS = ("search.trials", "search.time", "search.gpu_hours", "search.failures")
_MAY_DIFFER = (*_LIMITS, "resources", "confirm", "data.wafers")


class _Absent:
    """Stands for the value of a key that is not there."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Say what a study trains on, so that it can be recognised."""
    wafers, splits = dataset.wafers, dataset.splits
    return {
        "source": wafers.source,
        "synthetic": wafers.is_synthetic,
        "drawn": dataset.is_drawn,
        "classes": list(wafers.classes),
        "fingerprint": wafers.fingerprint,
        "split_fingerprint": splits.fingerprint,
        "protocol": splits.protocol,
        "leaky": splits.leaky,
        "leak_check": str(dataset.leak_check),
        "wafers": {part: len(splits.part(part)) for part in PARTS},
    }


def check_same_study(folder: StudyFolder, config: StudyConfig, data: Mapping[str, Any]) -> None:
    """Check that a study which exists would go on as it began; does nothing for a new one.

    Raises:
        ConfigError: With everything that differs.
    """
    if not folder.provenance.exists():
        return
    earlier = read_json(folder.provenance)["data"]
    before, now = _flatten(read_yaml(folder.resolved)[0]), _flatten(config.to_tree())
    names = sorted(name for name in before.keys() | now.keys() if not name.startswith(_MAY_DIFFER))
    differing = [
        f"{name}: was {before.get(name, _ABSENT)!r}, is {now.get(name, _ABSENT)!r}"
        for name in names
        if before.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]
    for key in ("fingerprint", "split_fingerprint"):
        if earlier[key] != data[key]:
            differing.append(f"data {key}: was {earlier[key]} ({earlier['source']}), is {data[key]} ({data['source']})")
    if differing:
        listed = "\n".join(f"  {line}" for line in differing)
        raise ConfigError(f"{folder.path}: was made with something else; use --study NAME for a new study\n{listed}")


def record_attempt(
    folder: StudyFolder, config: StudyConfig, data: Mapping[str, Any], *, space_text: str, device: str
) -> None:
    """Write the study's first files, and add this attempt to its provenance; needs the folder's lock."""
    attempts = read_json(folder.provenance)["attempts"] if folder.provenance.exists() else []
    attempts.append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python -m search.run {shlex.join(sys.argv[1:])}",
            "host": socket.gethostname(),
            "device": device,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        }
    )
    if not folder.space.exists():
        write_atomically(folder.space, space_text)
    write_atomically(folder.resolved, dump_yaml(config.to_tree()))
    content = {"format": 1, "study": folder.name, "copy": folder.remote, "data": data, "attempts": attempts}
    write_json(folder.provenance, content)


def record_end(folder: StudyFolder, *, is_exhausted: bool) -> None:
    """Note in the provenance how the last attempt has ended, for those who only see the folder."""
    known = read_json(folder.provenance)
    last = known["attempts"][-1]
    last |= {"ended": datetime.now(UTC).isoformat(timespec="seconds"), "exhausted": is_exhausted}
    write_json(folder.provenance, known)


def describe_device(device: torch.device) -> str:
    """Name the hardware, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.")
    return flat
