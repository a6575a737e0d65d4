"""Starting Ray, or joining it, with settings that are safe on a shared machine and quiet on a terminal."""

import logging
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from search.errors import ConfigError
from search.space.config import ResourcesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the search runs on.

    Attributes:
        slots: Trials that run side by side.
        cpus: Cores, and so threads, of each.
        gpus: GPUs of each.
        device: All of it, in words.
        dashboard: Address of Ray's dashboard; "" if there is none.
        is_ours: Whether it was started for this search and goes with it.
    """

    slots: int
    cpus: int
    gpus: float
    device: str
    dashboard: str = ""
    is_ours: bool = True

    def describe(self) -> str:
        """Say what runs where, and on how much of it."""
        return f"{self.slots} trials side by side on {self.device}, {self.cpus} CPU and {self.gpus:g} GPU each"


def share_out(resources: ResourcesConfig, *, n_cpus: int, n_gpus: float) -> Cluster:
    """Divide cores and GPUs among as many trials as they carry.

    Args:
        resources: What one trial gets; "auto" is one GPU where there are any.
        n_cpus: Cores that there are.
        n_gpus: GPUs that there are.

    Raises:
        ConfigError: If there is too little for one trial.
    """
    gpus = (1.0 if n_gpus else 0.0) if resources.gpus == "auto" else resources.gpus
    slots = n_cpus // resources.cpus
    if gpus:
        slots = min(slots, int(n_gpus // gpus))
    if slots < 1:
        raise ConfigError(
            f"resources: a trial asks for {resources.cpus} CPUs and {gpus:g} GPUs; "
            f"there are {n_cpus} CPUs and {n_gpus:g} GPUs; ask for less"
        )
    device = f"{n_gpus:g} GPUs, {n_cpus} CPU cores" if n_gpus else f"{n_cpus} CPU cores"
    return Cluster(slots=slots, cpus=resources.cpus, gpus=gpus, device=device)


def start_ray(address: str | None, resources: ResourcesConfig, *, dashboard: bool = True) -> Cluster:
    """Start Ray on this machine, or join a running cluster.

    Args:
        address: None starts a local one; "auto" or HOST:PORT joins.
        resources: What one trial gets.
        dashboard: Whether a local one serves its dashboard, on this machine only.

    Raises:
        ConfigError: If the cluster cannot be reached, or is too small for one trial.
        KeyboardInterrupt: If SIGINT or SIGTERM comes meanwhile.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            _check_reachable(address)
            context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            context = ray.init(
                address="local",
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, ValueError, RuntimeError) as error:
        where = f"--address {address}: no Ray cluster there" if address else "Ray cannot be started here"
        raise ConfigError(f"{where} ({str(error).splitlines()[0]})") from None
    except SystemExit:  # Ray's own handler of SIGTERM, from its first moment on
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    _protect_token()
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    try:
        cluster = share_out(resources, n_cpus=int(total.get("CPU", 0)), n_gpus=total.get("GPU", 0.0))
    except ConfigError:
        stop_ray()
        raise
    url = context.dashboard_url or ""
    return replace(cluster, dashboard=f"http://{url}" if url else "", is_ours=address is None)


def stop_ray() -> None:
    """Stop the local Ray, or leave the cluster."""
    ray.shutdown()


def _check_reachable(address: str) -> None:
    """Knock first: Ray itself would go on trying an address where nobody listens for minutes.

    Raises:
        ConfigError: If it is of a form that would move the search away from its files.
        OSError: If nobody listens there.
        ValueError: If it is no address.
    """
    if address.startswith("ray://"):
        raise ConfigError(f"--address {address}: would run the search on another machine; use `ray job submit` there")
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def _protect_token() -> None:
    """Ray writes the token that opens its dashboard and ports readable for everybody on the machine."""
    token = Path("~/.ray/auth_token").expanduser()
    if token.exists():
        token.chmod(0o600)
