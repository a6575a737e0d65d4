"""What a search would do, without doing it: --check reads and checks everything, --plan says what it will take."""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from search.errors import DONE, ConfigError
from search.execution.device import find_shares, plan_memory
from search.execution.packing import Node, Packing, share_out
from search.execution.search import Prepared, Request, prepare
from search.study.data import absent_classes, describe, trial_data
from search.study.outlook import Outlook, foresee, measure_forbidden
from search.study.planning import Largest, Planner
from search.study.probe import Probe, choose_probes, probe_all
from search.study.records import RESULTS, StudyFolder, read_lines
from search.study.rows import FAILED, RUNNING, collect_rows
from search.trial.data import TrialData
from search.trial.memory import keep_freed_memory
from search.views.plan import (
    constants,
    disk_lines,
    epochs_line,
    parameter_table,
    rung_table,
    size_lines,
    time_lines,
)
from search.views.terminal import say
from search.views.words import configuration, duration

_PROBE_S = 10.0
# Ray keeps three tenths of the memory that is available for its object store.
_OF_AVAILABLE = 0.7


def check(request: Request, console: Console) -> int:
    """Check all that a search would check before it starts Ray; writes nothing.

    Raises:
        ConfigError: If anything asked for is impossible.
        DataError: If the wafers cannot be used.
    """
    with _doing(console, "reading and checking"):
        found = _prepare(request)
    config, wafers = found.config, found.dataset.wafers
    limit = f" in {duration(config.search.time)}" if config.search.time else ""
    say(
        console,
        f"{found.space_file.name}: good; {len(config.space.parameters())} parameters, {config.search.trials} trials"
        f"{limit}, maximising {config.objective.metric}; {len(wafers):,} wafers ({wafers.source}); "
        f"study {found.folder.path} {_standing(found.folder)}",
    )
    for warning in absent_classes(found.dataset):
        say(console, warning)
    return DONE


def plan(request: Request, console: Console) -> int:
    """Say what a search will try, and what it will take; writes only the encoded maps that any search would write.

    Raises:
        ConfigError: If anything asked for is impossible.
        DataError: If the wafers cannot be used.
    """
    with _doing(console, "reading and checking"):
        found = _prepare(request)
    config = found.config
    here = Node("this machine", os.cpu_count() or 1, torch.cuda.device_count())
    machine = share_out(config.resources, config.space.models, [here])
    for text in (describe(found.dataset), *absent_classes(found.dataset)):
        say(console, text)
    say(console, f"study {found.folder.path} {_standing(found.folder)}; planned from its beginning\n")
    console.print(parameter_table(config.space))
    say(console, constants(config.space))
    with _doing(console, "counting what is forbidden"):
        forbidden = measure_forbidden(config)
    _say_all(console, size_lines(config, forbidden))
    with _doing(console, "simulating searches"):
        outlook = foresee(config, slots=machine.slots, allowed=forbidden.n_allowed)
    if config.search.stop is not None:
        console.print(rung_table(outlook))
    say(console, epochs_line(config, outlook))
    with _doing(console, "encoding the wafers"):
        arrays = trial_data(found.dataset, config.data)
    where = f"; the cluster at {request.address} was not asked" if request.address else ""
    if machine.gpus and any(config.resources.of(model)[1] == "auto" for model in machine.slices):
        where += "; how many share a GPU is tried out when the search begins"
    say(console, f"machine: {machine.describe()}{where}")
    busy, n_cpus = os.getloadavg()[0], os.cpu_count() or 1
    if busy > n_cpus / 2:
        say(
            console,
            f"WARNING: {busy:.0f} other threads compete for the {n_cpus} CPU cores; the times below suffer by it",
        )
    probes = _probe(found, arrays, machine, console)
    _say_all(console, time_lines(config, outlook, probes, slots=machine.slots, gpus=machine.gpus))
    with _doing(console, "planning memory"):
        shares = find_shares(machine, free=_available_memory())
        planner, largest = plan_memory(config, arrays, shares, console)
    good = [probed for probed in probes if isinstance(probed, Probe)]
    if good:
        _say_all(console, _disk(found, outlook, good, planner, largest, slots=machine.slots))
    say(console, f"start it: {_command(request)}")
    return DONE


def _prepare(request: Request) -> Prepared:
    """Do as `prepare`, and check besides what a search only finds out when it writes.

    Raises:
        ConfigError: If the folder cannot be written; see `prepare` for the rest.
        DataError: See `prepare`.
    """
    found = prepare(request)
    existing = _existing(found.folder.path)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{found.folder.path}: cannot be written ({existing} does not allow it)")
    return found


def _standing(folder: StudyFolder) -> str:
    records = collect_rows(list(read_lines(folder.trials))).values()
    judged = sum(record.status not in (RUNNING, FAILED) for record in records)
    return f"goes on after {judged} judged trials" if records else "will be new"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _available_memory() -> int | None:
    """Bytes that Ray would have for processes, of those that Linux could give to new ones; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        return int(_OF_AVAILABLE * available)
    except (OSError, ValueError, StopIteration):
        return None


def _probe(found: Prepared, data: TrialData, machine: Packing, console: Console) -> Sequence[Probe | Exception]:
    """Train some configurations for ten seconds in all, as a slot would."""
    config = found.config
    device = torch.device("cuda" if machine.gpus else "cpu")
    n_threads = torch.get_num_threads()
    probes: list[Probe | Exception] = []
    try:
        torch.set_num_threads(next(iter(machine.slices.values())).cpus)
        keep_freed_memory()
        chosen = choose_probes(config)
        with _doing(console, f"probing, {_PROBE_S:g} s at most") as say_what:
            on_device = data.to(device)
            running = probe_all(
                chosen,
                on_device,
                classes=found.dataset.wafers.classes,
                image_size=config.data.image_size,
                budget_s=_PROBE_S,
            )
            for i, flat in enumerate(chosen, start=1):
                say_what(f"probing {i} of {len(chosen)}: {configuration(flat, config.space)}")
                probes += [probed] if (probed := next(running, None)) is not None else []
    except Exception as error:  # noqa: BLE001 - what cannot be probed can still be planned
        probes.append(error)
    finally:
        torch.set_num_threads(n_threads)
    return probes


def _disk(
    found: Prepared, outlook: Outlook, probes: Sequence[Probe], planner: Planner, largest: Largest | None, *, slots: int
) -> Iterator[str]:
    checkpoint = max(probed.checkpoint for probed in probes)
    if largest is not None:  # grown by what its weights and its optimizer take more
        planned = planner.estimate(probes[0].params)
        more = largest.estimate.weights + largest.estimate.optimizer - planned.weights - planned.optimizer
        checkpoint = max(checkpoint, probes[0].checkpoint + more)
    return disk_lines(
        checkpoint=checkpoint,
        slots=slots,
        row=max(probed.row for probed in probes),
        epochs=outlook.epochs,
        trials=outlook.trials,
        config_bytes=len(json.dumps(probes[0].params.to_flat())),
        free=shutil.disk_usage(_existing(found.folder.path)).free,
    )


def _command(request: Request) -> str:
    """Write the command that starts the search."""
    names = {"data.wafers": "--data", "search.trials": "--trials", "search.time": "--time"}
    words = ["python", "-m", "search.run", "--space", request.space]
    for key, value in request.overrides.items():
        words += [names[key], str(value)]
    words += ["--study", request.study] if request.study else []
    words += ["--results", request.results] if request.results != str(RESULTS) else []
    words += ["--warm-start", *request.warm_start] if request.warm_start else []
    words += ["--address", request.address] if request.address else []
    words += [] if request.dashboard else ["--no-dashboard"]
    words += ["--tensorboard"] if request.tensorboard else []
    return shlex.join(words)


def _say_all(console: Console, lines: Iterator[str]) -> None:
    for line in lines:
        say(console, line)


@contextmanager
def _doing(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something is going on; what is yielded says what else."""
    if console.is_terminal:
        with console.status(escape(what)) as status:
            yield lambda text: status.update(escape(text))
    else:
        yield lambda text: None
