"""What the commands say before they work."""

import subprocess
import sys
from typing import get_args

import pytest

from search import retrain
from search.final.members import EpochRule
from search.final.retraining import TRAIN, TRAIN_VAL
from search.trial.prediction import TEST_TIME

HELP = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name).main(["--help"])
    except SystemExit as end:
        assert not end.code, name
assert "torch" not in sys.modules, "imports torch"
"""
COMMANDS = ("run", "status", "confirm", "retrain", "evaluate", "export", "predict", "report")


def test_help_of_every_command_does_not_wait_for_torch():
    command = [sys.executable, "-c", HELP, *(f"search.{name}" for name in COMMANDS)]

    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: python -m search.") == len(COMMANDS)


@pytest.mark.parametrize("words", [(TRAIN, TRAIN_VAL), get_args(EpochRule), TEST_TIME])
def test_retrain_offers_what_there_is_to_choose(capsys, words):
    with pytest.raises(SystemExit):
        retrain.main(["--help"])

    assert f"{{{','.join(words)}}}" in capsys.readouterr().out
