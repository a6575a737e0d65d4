"""What happens to a run: each fault has a name, what it changes within processes, and how it strikes from outside."""

import random
import signal
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.chaos.processes import Process, name_of, send, wait_for

_DAY_S = 86_400


class Victim(Protocol):
    """The run that is hurt."""

    study: Path
    clock: Path

    def slots(self) -> list[int]:
        """The processes in which its trials train now."""

    def others(self) -> list[int]:
        """The processes of a Ray of its own."""

    def is_quiet(self) -> bool:
        """Whether nothing trains any more."""


Strike = Callable[[Victim, Process, random.Random], bool]
Settings = Callable[[random.Random], Mapping[str, object]]


def _nothing(dice: random.Random) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to be hurt.

    Attributes:
        name: In tables and on the command line.
        strikes: One after the other at the random moment; each returns whether it has hit something.
        settings: For hooks/sitecustomize.py.
        own_ray: Whether it breaks Ray itself, so that the lane's may not be used.
        on_tmpfs: Whether the results lie on a small disk of their own.
        is_cold: Whether the driver imports everything itself: its start can be hit then, its clock be changed.
    """

    name: str
    strikes: tuple[Strike, ...] = ()
    settings: Settings = field(default=_nothing)
    own_ray: bool = False
    on_tmpfs: bool = False
    is_cold: bool = False


def _kill_driver(run: Victim, driver: Process, dice: random.Random) -> bool:
    return driver.poll() is None and send(driver.pid)


def _kill_slot(run: Victim, driver: Process, dice: random.Random) -> bool:
    slots = run.slots()
    return bool(slots) and send(dice.choice(slots))


def _kill_named(program: str) -> Strike:
    def strike(run: Victim, driver: Process, dice: random.Random) -> bool:
        found = [number for number in run.others() if name_of(number).endswith(f"/{program}")]
        return sum(map(send, found)) > 0

    return strike


def _storm(run: Victim, driver: Process, dice: random.Random) -> bool:
    moments = sorted(dice.uniform(0, 1) for _ in range(dice.randint(5, 20)))
    start = time.monotonic()
    n_hit = 0
    for moment in moments:
        time.sleep(max(0.0, start + moment - time.monotonic()))
        if driver.poll() is None:
            n_hit += send(driver.pid, dice.choice((signal.SIGTERM, signal.SIGINT)))
    return n_hit > 0


def _fill_disk(run: Victim, driver: Process, dice: random.Random) -> bool:
    """Fill the small disk to its last byte, and free it after a while; the driver may have given up by then."""
    filler = run.study.parent / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * dice.randint(1, 65536))
        except OSError:
            pass
    wait_for(lambda: driver.poll() is not None, patience_s=dice.uniform(0.2, 8))
    filler.unlink()
    return True


def _cut_tail(run: Victim, driver: Process, dice: random.Random) -> bool:
    """Tear the last line of one of the two files, as a crash of the machine may, or append what no line begins with."""
    _kill_driver(run, driver, dice)
    wait_for(lambda: driver.poll() is not None and run.is_quiet(), patience_s=60)
    path = run.study / dice.choice(("study.journal", "trials.jsonl"))
    if not path.exists() or not path.stat().st_size:
        return False
    content = path.read_bytes()
    if dice.random() < 0.5:
        path.write_bytes(content + dice.randbytes(dice.randint(1, 200)).replace(b"\n", b"?"))
    else:
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        path.write_bytes(content[: dice.randrange(last, len(content))])
    return True


def _damage_checkpoint(run: Victim, driver: Process, dice: random.Random) -> bool:
    _kill_driver(run, driver, dice)
    wait_for(lambda: driver.poll() is not None and run.is_quiet(), patience_s=60)
    found = sorted((run.study / "checkpoints").glob("*.pt"))
    if not found:
        return False
    path = dice.choice(found)
    content = bytearray(path.read_bytes())
    if dice.random() < 0.3 or not content:
        content = content[: dice.choice((0, len(content) // 2))]
    else:
        for _ in range(dice.choice((1, 8, 64))):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)
    return True


def _jump(run: Victim, driver: Process, dice: random.Random) -> bool:
    """Set the wall clock of the driver, and of a Ray that it has started, by a day."""
    with run.clock.open("r+b", buffering=0) as file:  # in place: others have mapped it, and it may never be empty
        file.write(struct.pack("q", dice.choice((-_DAY_S, _DAY_S))))
    return driver.poll() is None


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(name="kill-driver", strikes=(_kill_driver,)),
        Fault(name="kill-worker", strikes=(_kill_slot,)),
        Fault(name="kill-raylet", strikes=(_kill_named("raylet"),), own_ray=True),
        Fault(name="kill-gcs", strikes=(_kill_named("gcs_server"),), own_ray=True),
        Fault(name="signal-storm", strikes=(_storm,)),
        Fault(name="full-disk", strikes=(_fill_disk,), on_tmpfs=True),
        Fault(name="clock-jump", strikes=(_jump,), is_cold=True),
        Fault(name="nan", settings=lambda dice: {"training": "nan"}),
        Fault(name="out-of-memory", settings=lambda dice: {"training": "oom"}),
        Fault(name="crash", settings=lambda dice: {"training": "crash"}),
        Fault(name="slow-storage", settings=lambda dice: {"slow": [0.05, 0.5]}),
        Fault(name="torn-tail", strikes=(_cut_tail,)),
        Fault(name="bad-checkpoint", strikes=(_damage_checkpoint,)),
    )
}
PAIR = "pair"
NAMES = (*FAULTS, PAIR)


def choose_fault(name: str, dice: random.Random) -> Fault:
    """Return a fault by its name, made of two for a pair; what does not end by itself is killed, too, half the time.

    Within a pair the driver is hurt last, or there would be nobody left to be hurt.
    """
    if name != PAIR:
        fault = FAULTS[name]
        if name in ("crash", "slow-storage") and dice.random() < 0.5:
            return _join(fault.name, fault, FAULTS["kill-driver"])
        if name == "signal-storm" and dice.random() < 0.4:
            return Fault(name=name, strikes=fault.strikes, is_cold=True)
        return fault
    first, second = sorted(dice.sample(list(FAULTS), 2), key=list(FAULTS).index)
    late = ("kill-driver", "signal-storm")
    if first in late:
        first, second = second, first
    return _join(f"{PAIR}: {first} + {second}", FAULTS[first], FAULTS[second])


def _join(name: str, first: Fault, second: Fault) -> Fault:
    return Fault(
        name=name,
        strikes=(*first.strikes, *second.strikes),
        settings=lambda dice: {**first.settings(dice), **second.settings(dice)},
        own_ray=first.own_ray or second.own_ray,
        on_tmpfs=first.on_tmpfs or second.on_tmpfs,
        is_cold=first.is_cold or second.is_cold,
    )
