"""Noticing that Ray itself has gone: without this a search would hang for a minute, then vanish without a word."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ray

_KNOCK_EVERY_S = 1.0


@contextmanager
def watch(doors: Mapping[str, tuple[str, int]], *, patience_s: float, on_lost: Callable[[str], None]) -> Iterator[None]:
    """Knock at the doors of Ray's processes, in a thread, while the body runs.

    Ray's driver notices the loss of its control process after 60 s and that of its node after about 12 s, and then ends
    the whole process from C++, where nothing can be caught.

    Args:
        doors: Where each process listens, by its name: host and port.
        patience_s: Seconds without an answer after which it counts as lost.
        on_lost: Called once, in the thread, with the names of those that are lost.
    """
    is_over = threading.Event()

    def knock() -> None:
        silent_s = dict.fromkeys(doors, 0.0)
        while not is_over.wait(_KNOCK_EVERY_S):
            for name, door in doors.items():
                silent_s[name] = 0.0 if _is_open(door) else silent_s[name] + _KNOCK_EVERY_S
            lost = [name for name, seconds in silent_s.items() if seconds >= patience_s]
            if lost and not is_over.is_set():
                on_lost(" and ".join(lost))
                return

    threading.Thread(target=knock, name="watch", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def doors_of_ray() -> dict[str, tuple[str, int]]:
    """Find what this driver depends on: the cluster's control process and the node that it is connected to."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    doors = {"its control process (gcs_server)": (host.strip("[]"), int(port))}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["NodeID"] == context.get_node_id():
            doors["its node (raylet)"] = (node["NodeManagerAddress"], node["NodeManagerPort"])
    return doors


def _is_open(door: tuple[str, int]) -> bool:
    try:
        socket.create_connection(door, timeout=2).close()
    except OSError:
        return False
    return True
