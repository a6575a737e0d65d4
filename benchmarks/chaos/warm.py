"""A Python that has imported everything already, and forks whenever a process is asked for.

    python -m benchmarks.chaos.warm SOCKET           # started by benchmarks.chaos.lane; and in place of each slot:
    python .../warm.py --be ... WORKER.py ARGUMENTS  # asks WARM_SOCKET to be that program

Importing torch and Ray takes 6 s of a processor, ten times what a small search trains. A fork is a process of its own
like any other: it can be killed, and nothing but read-only modules is shared.
"""

import contextlib
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path


def _open_socket(path):
    Path(path).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    return server


def _read_request(connection):
    connection.settimeout(10)
    with connection.makefile("r") as file:
        return json.loads(file.readline())


def serve(path):
    """Fork once per request. Returns the request in the child; never returns in the parent."""
    server = _open_socket(path)
    children = {}
    while True:
        ready, _, _ = select.select([server, *children.values()], [], [], 0.02)
        for one in ready:
            if one is not server:  # whoever asked has gone, or would otherwise never send a second word
                number = next(key for key, value in children.items() if value is one)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
                continue
            connection, _ = server.accept()
            request = _read_request(connection)
            number = os.fork()
            if number == 0:
                server.close()
                for other in (connection, *children.values()):
                    other.close()
                return request
            children[number] = connection
            connection.sendall(json.dumps({"pid": number}).encode() + b"\n")
        _reap(children)


def _reap(children):
    with contextlib.suppress(ChildProcessError):
        while True:
            number, status = os.waitpid(-1, os.WNOHANG)
            if number == 0:
                return
            connection = children.pop(number, None)
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
                connection.close()


def become(request, given):
    """Be, in a fork, the process that was asked for."""
    os.setsid()  # Ray kills a slot's whole process group
    os.chdir(request["cwd"])
    defaults = {key: value for key, value in os.environ.items() if key not in given}  # the product's own
    os.environ.clear()
    os.environ.update(defaults | request["env"])
    out = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    quiet = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((quiet, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    random.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = request["argv"]
    sys.executable = os.environ.get("WARM_PYTHON") or sys.executable  # a Ray that this one starts has warm slots, too
    if "CHAOS_RUN" in os.environ:
        sys.modules["sitecustomize"].read_settings(os.environ["CHAOS_RUN"])
    if request["argv"][0].endswith(".py"):
        sys.path[0] = str(Path(request["argv"][0]).parent)
        runpy.run_path(request["argv"][0], run_name="__main__")
    else:
        sys.path[0] = request["cwd"]
        module = sys.modules[request["argv"][0]]
        sys.argv = [str(module.__file__), *request["argv"][1:]]
        sys.exit(module.main())


def _preload():
    import importlib

    for name in ("search.run", "search.execution.trainable", "ray._private.ray_logging", "benchmarks.chaos.retrain"):
        importlib.import_module(name)
    sys.modules["sitecustomize"].read_settings("/nowhere")


def be(argv):
    """Ask to be Ray's worker, without the program that would prepare its environment, and live as long as it does."""
    start = next(k for k, word in enumerate(argv) if word.endswith("default_worker.py"))
    argv = [word for word in argv[start:] if not word.startswith(("--serialized-runtime-env", "--language"))]
    client = socket.socket(socket.AF_UNIX)
    client.connect(os.environ["WARM_SOCKET"])
    request = {"argv": argv, "cwd": str(Path.cwd()), "env": dict(os.environ), "log": os.devnull}
    client.sendall(json.dumps(request).encode() + b"\n")
    with client.makefile("r") as file:
        file.readline()
        answer = file.readline()
    return json.loads(answer)["code"] if answer else 1


def main():
    """Serve, or ask."""
    if sys.argv[1] == "--be":
        return be(sys.argv[2:])
    given = set(os.environ)
    _preload()
    request = serve(sys.argv[1])
    try:
        become(request, given)
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - as Python does it for a program of its own
        traceback.print_exc()
        sys.stderr.flush()
        return 130 if isinstance(sys.exc_info()[1], KeyboardInterrupt) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
