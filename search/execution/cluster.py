"""Starting Ray, or joining it, with settings that are safe on a shared machine and quiet on a terminal."""

import logging
import os
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, state, worker

from data_pipeline.errors import first_line
from search.errors import ConfigError
from search.execution.packing import Node, Packing, share_out
from search.execution.preflight import code_to_ship
from search.space.config import ResourcesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the search runs on.

    Attributes:
        packing: What each trial gets of it.
        dashboard: Address of Ray's dashboard; "" if there is none.
        is_ours: Whether it was started for this search and goes with it.
    """

    packing: Packing
    dashboard: str = ""
    is_ours: bool = True


def start_ray(
    address: str | None, resources: ResourcesConfig, models: Sequence[str], *, dashboard: bool = True
) -> Cluster:
    """Start Ray on this machine, or join a running cluster.

    Args:
        address: None starts a local one; "auto" or HOST:PORT joins.
        resources: What one trial gets.
        models: That the trials may have.
        dashboard: Whether a local one serves its dashboard, on this machine only.

    Raises:
        ConfigError: If the cluster cannot be reached, or has too little free for one trial.
        KeyboardInterrupt: If SIGINT or SIGTERM comes meanwhile.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address is None:
        _listen_on_loopback()
    _protect_token(is_local=address is None)
    try:
        if address:
            check_reachable(address)
            context = ray.init(
                address=address, runtime_env=code_to_ship(), log_to_driver=False, logging_level=logging.ERROR
            )
        else:
            context = ray.init(
                address="local",
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                _temp_dir=_own_folder(),
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, ValueError, RuntimeError) as error:
        if address:
            raise _no_cluster_at(address, error) from None
        raise ConfigError(f"Ray cannot be started here ({first_line(error)})") from None
    except SystemExit:  # Ray's own handler of SIGTERM, from its first moment on
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    worker.print_to_stdstream = _say_first_line
    try:
        packing = share_out(resources, models, find_nodes())
    except ConfigError:
        stop_ray()
        raise
    url = context.dashboard_url or ""
    return Cluster(packing=packing, dashboard=f"http://{url}" if url else "", is_ours=address is None)


def stop_ray() -> None:
    """Stop the local Ray, or leave the cluster."""
    ray.shutdown()


def find_nodes() -> list[Node]:
    """Look what every node of the running Ray has free for trials.

    Raises:
        ConfigError: If others hold all of it: a trial would wait for them for ever, and say nothing.
    """
    free: dict[str, dict[str, float]] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    alive: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [
        Node(node["NodeManagerHostname"], own.get("CPU", 0.0), own.get("GPU", 0.0), _kind_of_gpu(node["Resources"]))
        for node in alive
        for own in [free.get(node["NodeID"], {})]
    ]
    n_cpus = sum(node["Resources"].get("CPU", 0.0) for node in alive)
    if not any(node.cpus >= 1 for node in nodes):
        raise ConfigError(
            f"the cluster lends nothing now: {len(alive)} nodes with {n_cpus:g} CPUs, of which others hold all; wait "
            "for them, or let the cluster have nodes before the search begins"
        )
    return [node for node in nodes if node.cpus or node.gpus]


def _kind_of_gpu(resources: Mapping[str, float]) -> str:
    """Read what Ray calls a node's GPUs; "" if it has none, or none that Ray knows."""
    mark = "accelerator_type:"
    return next((name.removeprefix(mark) for name in sorted(resources) if name.startswith(mark)), "")


def _listen_on_loopback() -> None:
    """Let all of a local Ray's processes listen on 127.0.0.1 only.

    Ray has no setting for that: it turns loopback addresses into the machine's own, except on systems where it cannot
    form clusters. To be such a system is what this asks for; it is looked at when Ray starts, and by its processes.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def check_reachable(address: str) -> None:
    """Knock first: Ray itself would go on trying an address where nobody listens for minutes.

    Raises:
        ConfigError: If nobody listens there, or it is of a form that would move the search away from its files.
    """
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: would run the search on the head node, away from its journal; "
            "send it there as a job:\n  ray job submit --address http://HEAD:8265 --working-dir . -- "
            "python -m search.run --address auto --space ..."
        )
    host, _, port = address.rpartition(":")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise _no_cluster_at(address, error) from None


def _no_cluster_at(address: str, error: Exception) -> ConfigError:
    return ConfigError(f"--address {address}: no Ray cluster there ({first_line(error)})")


def _say_first_line(data: dict[str, Any], *_: object, **__: object) -> None:
    """Say what Ray has to say of a lost node without the last twenty lines of its log."""
    lines = str(data["lines"][0]).splitlines() if data.get("lines") else []
    sys.stderr.write("".join(f"Ray: {line}\n" for line in lines[:1]))


def _own_folder() -> str | None:
    """Return a folder that only this user can reach, for Ray's logs and sockets; Ray lets everybody write into its own.

    Raises:
        ConfigError: If somebody else was there first.
    """
    if "RAY_TMPDIR" in os.environ:
        return None
    folder = Path(f"/tmp/ray-{os.getuid()}")  # short: the path of a socket has at most 107 characters
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"{folder}: belongs to somebody else; set RAY_TMPDIR to a folder of yours, with a short path")
    folder.chmod(0o700)
    return str(folder / "ray")


def _protect_token(*, is_local: bool) -> None:
    """Keep the token that opens Ray's dashboard and ports from others: Ray itself would write it readable for all."""
    token = Path("~/.ray/auth_token").expanduser()
    if is_local and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        token.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            new = os.open(token, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(new, "w") as file:
                file.write(secrets.token_hex(32))
    if token.exists():
        token.chmod(0o600)
