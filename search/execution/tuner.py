"""Running a study's trials on Ray Tune until there is nothing left to run."""

import logging
import tempfile
from collections.abc import Callable, Sequence

import ray
from ray import tune

from search.errors import StudyAborted
from search.execution.adapters import Brief, StudyScheduler, StudySearcher
from search.execution.cluster import Cluster
from search.execution.interrupts import Interrupts
from search.execution.trainable import Rows, WaferTrial, share_arrays
from search.execution.watch import doors_of_ray, watch
from search.study.study import Study
from search.trial.data import TrialData


def run_trials(
    study: Study,
    data: TrialData,
    cluster: Cluster,
    *,
    on_event: Callable[[int], None],
    interrupts: Interrupts,
    divisions: Sequence[tuple[Rows, Rows]] = (),
    brief: Brief = lambda record: {},
) -> bool:
    """Run trials until the study is over.

    Args:
        study: Asks, records and decides.
        data: Training and validation wafers, on the CPU.
        cluster: From `start_ray`.
        on_event: Called with a trial's number after each of its reports, and when it ends.
        interrupts: Catches the signals.
        divisions: See `share_arrays`.
        brief: Says what a slot must know of a trial beside its configuration: its `division`, where to keep its
            `predictions`.

    Returns:
        True if the study is over, False if it was interrupted by SIGINT or SIGTERM.

    Raises:
        StudyAborted: If trials failed one after the other, or Ray has gone.
        ConfigError: If the disk takes no more.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong, the study says or raises
    interrupts.listen()
    size = study.config.data.image_size
    arrays = share_arrays(data, classes=study.classes, image_size=size, divisions=divisions)
    shared = ray.put(arrays)  # once; every node fetches one copy of it

    def on_lost(who: str) -> None:
        reason = f"Ray has lost {who}: killed, or out of memory? The same command goes on from here"
        study.failure = study.failure or StudyAborted(reason)
        interrupts.end_from_thread(reason, within_s=15)

    searcher = StudySearcher(study, packing=cluster.packing, arrays=shared, brief=brief, interrupts=interrupts)
    scheduler = StudyScheduler(study, on_event=on_event, interrupts=interrupts)
    with tempfile.TemporaryDirectory(prefix="wafer-search-") as scratch:
        tuner = _make_tuner(searcher, scheduler, slots=cluster.packing.slots, scratch=scratch)
        doors = doors_of_ray()
        try:
            with watch(doors, patience_s=3 if cluster.is_ours else 40, on_lost=on_lost):
                tuner.fit()
        except KeyboardInterrupt:
            if study.failure is None:
                return False
    if study.failure:
        raise study.failure
    return study.is_over


def _make_tuner(searcher: StudySearcher, scheduler: StudyScheduler, *, slots: int, scratch: str) -> tune.Tuner:
    return tune.Tuner(
        WaferTrial,  # not in with_parameters, which would hide its name from the dashboard
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=scratch,
            name="tune",
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
