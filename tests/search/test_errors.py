import pickle
import signal

import pytest

from data_pipeline.errors import DataError
from models import ModelError
from search.errors import ConfigError, StudyAborted, TrialFailed, exit_code

MENDABLE = [ConfigError, DataError, ModelError]


def raising(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize("kind", [ConfigError, DataError, ModelError, StudyAborted])
def test_an_error_survives_the_way_to_another_process(kind):
    error = pickle.loads(pickle.dumps(kind("space.yaml: no such file")))

    assert type(error) is kind
    assert str(error) == "space.yaml: no such file"


def test_a_failed_trial_keeps_its_status_and_reason_on_the_way_to_another_process():
    error = pickle.loads(pickle.dumps(TrialFailed("diverged", "loss became nan")))

    assert type(error) is TrialFailed
    assert (error.status, error.reason, str(error)) == ("diverged", "loss became nan", "loss became nan")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_command_that_returns_keeps_its_code(code, capsys):
    assert exit_code(lambda: code) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", MENDABLE)
def test_what_the_user_can_mend_is_one_message_and_exit_2(kind, capsys):
    code = exit_code(raising(kind("space.yaml: 2 problems\n  first\n  second")))

    assert code == 2
    assert capsys.readouterr() == ("", "error: space.yaml: 2 problems\n  first\n  second\n")


def test_an_aborted_study_says_why_and_exits_1(capsys):
    code = exit_code(raising(StudyAborted("three trials in a row failed")))

    assert code == 1
    assert capsys.readouterr() == ("", "aborted: three trials in a row failed\n")


def test_an_interruption_says_how_to_go_on_and_exits_130(capsys):
    before = signal.getsignal(signal.SIGINT)
    code = exit_code(raising(KeyboardInterrupt()))
    signal.signal(signal.SIGINT, before)

    assert code == 130
    assert capsys.readouterr() == ("", "interrupted; run the same command again to go on\n")


@pytest.mark.parametrize("bug", [ZeroDivisionError("by zero"), KeyError("lr"), TrialFailed("diverged", "nan")])
def test_a_bug_keeps_its_traceback(bug, capsys):
    with pytest.raises(type(bug)) as caught:
        exit_code(raising(bug))

    assert caught.value is bug
    assert capsys.readouterr() == ("", "")
