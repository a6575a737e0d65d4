"""What breaks a search from within its own processes, without a line of the product being changed.

Python imports this at its start in every process that has this folder on its PYTHONPATH. It waits for modules of the
product and wraps a few of their functions; what these do wrong is read from `chaos.json` in the folder of the run,
which a driver finds through CHAOS_RUN and a slot through the path of the checkpoint that it is given. Without that
file nothing is changed.
"""

import faulthandler
import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

_settings = {}
_dice = random.Random()
_real_fsync = os.fsync
_training = {"config": ""}  # what this process trains


def read_settings(path):
    """Look for chaos.json in a folder or above it, and go by it from now on."""
    _settings.clear()
    for folder in (Path(path), *Path(path).parents):
        if (folder / "chaos.json").is_file():
            _settings.update(json.loads((folder / "chaos.json").read_text("utf-8")))
            break
    _dice.seed(os.urandom(8))


def _share(*key):
    """A number in [0, 1) that is the same for the same key in the same run."""
    digest = hashlib.sha256(json.dumps([_settings.get("seed"), *key]).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _sleep_on_storage():
    if "slow" in _settings:
        time.sleep(_dice.uniform(*_settings["slow"]))


def _slow_fsync(file):
    _sleep_on_storage()
    return _real_fsync(file)


def _wrap_storage(module):
    write = module.write_atomically

    def write_slowly(path, content):
        _sleep_on_storage()
        write(path, content)
        _sleep_on_storage()

    module.write_atomically = write_slowly


def begin_training(config):
    """Learn which trial comes next. Ray pickles what is nested in a function with copies of its globals, not this."""
    _training["config"] = config["params"]
    read_settings(config["checkpoint"])


def _wrap_slot(module):
    take_on = module.WaferTrial.reset_config

    def reset_config(self, new_config):
        begin_training(new_config)
        return take_on(self, new_config)

    module.WaferTrial.reset_config = reset_config


def _wrap_learning(module):
    learn = module.Learner.learn

    def learn_or_break(self, epoch):
        _break_training(self, epoch)
        return learn(self, epoch)

    module.Learner.learn = learn_or_break


def _break_training(learner, epoch):
    """A configuration that diverges or is too large always is; what crashes does so once in a while."""
    config = _training["config"]
    if not config:
        return
    import torch

    kind = _settings.get("training")
    if kind in ("nan", "oom"):
        if _share(kind, config) < 0.2 and epoch == 1 + int(3 * _share("epoch", config)):
            if kind == "oom":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB (chaos)")
            with torch.no_grad():
                next(learner.model.parameters()).fill_(float("nan"))
    elif kind == "crash" and _dice.random() < 0.06:  # of an epoch: about 20 % of trials
        raise RuntimeError("a bug that shows now and then (chaos)")


_WRAP = {
    "search.study.records": _wrap_storage,
    "search.execution.trainable": _wrap_slot,
    "search.trial.learner": _wrap_learning,
}


class _Waiting(importlib.abc.MetaPathFinder):
    """Wraps a module's functions before anybody who imports them from there can see them."""

    def find_spec(self, name, path=None, target=None):
        if name not in _WRAP:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_wrap(module):
            run(module)
            _WRAP[name](module)

        spec.loader.exec_module = run_and_wrap
        return spec


faulthandler.register(signal.SIGUSR1)  # where a driver hangs
sys.meta_path.insert(0, _Waiting())
os.fsync = _slow_fsync
if "CHAOS_RUN" in os.environ:
    read_settings(os.environ["CHAOS_RUN"])
