"""The only room where Ray is imported: it runs the trials that the study asks for."""

import os

# Ray reads these when it is first imported, so they are set here. What the user has set already is left alone.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 this is what silences Tune's tables
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours does not wait for the trials, see interrupts.py
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # the study is the truth; a full disk must not end a search in Tune's snapshot
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU must not see one
}.items():
    os.environ.setdefault(_name, _value)
