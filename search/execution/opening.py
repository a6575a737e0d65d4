"""A cluster that is ready for a study: started or joined, its nodes asked, its GPUs shared out."""

from rich.console import Console

from search.errors import ConfigError
from search.execution.calibration import pack
from search.execution.cluster import Cluster, start_ray
from search.execution.preflight import check_nodes
from search.study.data import size_of
from search.study.study import Study
from search.trial.data import TrialData
from search.views.terminal import say


def open_cluster(study: Study, data: TrialData, console: Console, *, address: str | None, dashboard: bool) -> Cluster:
    """Bring up what a study's trials will run on, and say what that is.

    Args:
        study: Whose trials are to run.
        data: Training and validation wafers, on the CPU.
        console: Where to say it.
        address: None starts Ray here; "auto" or HOST:PORT joins a cluster.
        dashboard: Whether a Ray started here serves its dashboard.

    Raises:
        ConfigError: If the cluster cannot be reached, cannot do what will be asked of it, or has too little free.
        KeyboardInterrupt: If SIGINT or SIGTERM comes while Ray starts.
    """
    say(console, "starting Ray ...")
    config = study.config
    cluster = start_ray(address, config.resources, config.space.models, dashboard=dashboard)
    if config.search.gpu_hours is not None and not cluster.packing.gpus:
        raise ConfigError("search.gpu_hours: trials get no GPU here; use search.time, or give them one")
    if not cluster.is_ours:
        say(console, check_nodes(study.folder, data_bytes=size_of(data)))
    cluster = pack(cluster, study, data, console)
    say(console, cluster.packing.describe())
    return cluster
