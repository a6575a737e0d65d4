"""Asking every node of a cluster, before the first trial, whether it can do what will be asked of it."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.errors import ConfigError
from search.execution.packing import FAKE_GPUS
from search.study.places import is_address, read_place, remove_place, write_place
from search.study.records import StudyFolder

# Where versions differ, a trial would not give the same wherever it runs, or its checkpoint could not be read.
_SAME = ("torch", "torchvision", "ray", "numpy")
_NEEDED = ("pydantic", "pyarrow", "fsspec")
_PATIENCE_S = 120.0  # the first process on a busy node takes its time to import torch
_MOST_CLOCK_S = 300.0  # stores refuse what is signed further away than 15 minutes
_LEAST_DISK = 2**30


def check_nodes(folder: StudyFolder, *, data_bytes: int) -> str:
    """Ask every node for its versions, its clock, its disk, and whether it can write where the study keeps checkpoints.

    Args:
        folder: Of the study.
        data_bytes: What every node holds a copy of in its object store.

    Returns:
        What was found, in one line.

    Raises:
        ConfigError: With everything that is in the way, node by node.
    """
    start = time.monotonic()
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    token = uuid.uuid4().hex
    place = folder.place(folder.path / f".preflight-{token}")
    write_place(place, token.encode(), patience_s=5)
    try:
        problems = list(_ask_all(nodes, folder, place, token))
    finally:
        remove_place(place)
    for node in nodes:
        room = int(node["Resources"].get("object_store_memory", 0))
        if room < data_bytes and node["Resources"].get("CPU", 0):
            problems.append(
                f"{_name(node)}: its object store holds {room / 2**30:.2f} GiB, the wafers need "
                f"{data_bytes / 2**30:.2f} GiB; start its Ray with --object-store-memory, or give its /dev/shm more"
            )
    if problems:
        raise ConfigError("the cluster cannot run this search:\n" + "\n".join(f"  {problem}" for problem in problems))
    where = "the store" if is_address(place) else "the folder of the study"
    return f"{len(nodes)} nodes agree on versions and clock and write to {where} ({time.monotonic() - start:.1f} s)"


def _ask_all(nodes: Sequence[Mapping[str, Any]], folder: StudyFolder, place: str, token: str) -> Iterator[str]:
    mine, asked = _versions(), {}
    ask = ray.remote(num_cpus=0, max_retries=0)(look_around)
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        asked[ask.options(scheduling_strategy=where).remote(place, f"{place}-{node['NodeID'][:8]}")] = node
    ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
    for answer, node in asked.items():
        name = _name(node)
        try:
            found = ray.get(answer, timeout=0.1)
        except Exception as error:  # noqa: BLE001 - a node that does not answer, or code that cannot be imported there
            reason = (str(error).strip().splitlines() or ["no reason"])[-1]
            yield f"{name}: does not answer ({type(error).__name__}: {reason})"
            continue
        yield from (f"{name}: {problem}" for problem in compare(found, mine, token, folder))


def compare(found: Mapping[str, Any], mine: Mapping[str, str], token: str, folder: StudyFolder) -> Iterator[str]:
    """Name everything that keeps a node from training this study's trials.

    Args:
        found: What `look_around` says there.
        mine: Versions of the driver.
        token: What the driver has written for it to read.
        folder: Of the study.
    """
    for name, version in found["versions"].items():
        if not version:
            yield f"has no {name}; install what the driver has there"
        elif name not in _NEEDED and version != mine[name]:
            yield f"has {name} {version}, the driver {mine[name]}; a trial must give the same wherever it runs"
    off = found["time"] - time.time()
    if abs(off) > _MOST_CLOCK_S:
        yield f"its clock is {off:+.0f} s off the driver's"
    if found["disk"] < _LEAST_DISK:
        free = f"{found['disk'] / 2**30:.2f} GiB are free in {found['scratch']}"
        yield f"{free}; a slot needs {_LEAST_DISK / 2**30:g} GiB"
    if found["read"] != token:
        if folder.remote:
            yield f"cannot read from {folder.remote} ({found['problem'] or 'another content'})"
        else:
            yield (
                f"does not see {folder.path}, where the search runs; use --results with a path that every node has "
                "mounted, or with the address of a store, such as s3://bucket/results"
            )
    elif found["problem"]:
        yield f"cannot write to {folder.remote or folder.path} ({found['problem']})"


def look_around(place: str, own: str) -> dict[str, Any]:
    """Say how it looks on a node; runs there.

    Args:
        place: A file that the driver has written.
        own: A file that only this node writes.
    """
    read, problem = None, ""
    try:
        read = (read_place(place, patience_s=5) or b"").decode()
        if read:
            write_place(own, b"", patience_s=5)
            remove_place(own)
    except (ConfigError, OSError) as error:
        problem = str(error)
    scratch = tempfile.gettempdir()
    return {
        "versions": _versions(),
        "time": time.time(),
        "disk": shutil.disk_usage(scratch).free,
        "scratch": scratch,
        "read": read,
        "problem": problem,
    }


def _versions() -> dict[str, str]:
    """Versions of what trials need; "" for what is missing."""
    versions = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in (*_SAME, *_NEEDED):
        try:
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def _name(node: Mapping[str, Any]) -> str:
    return f"node {node.get('NodeManagerHostname') or node['NodeManagerAddress']} ({node['NodeManagerAddress']})"


def code_to_ship() -> dict[str, Any]:
    """Describe what the nodes of a cluster need of this project: its code, and what opens a store but is no secret."""
    here = Path(__file__).parents[2]
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
    kept = ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED", FAKE_GPUS, *names)
    return {
        "py_modules": [str(here / package) for package in ("search", "models", "data_pipeline")],
        "excludes": ["**/__pycache__", "**/*.pyc"],
        "env_vars": {name: os.environ[name] for name in kept if name in os.environ},
    }
