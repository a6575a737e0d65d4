"""The trainings that `accuracy.py` compares: a base, and what each arm changes of it."""

from collections.abc import Mapping
from typing import Any

BASE: Mapping[str, Any] = {
    "data": {"image_size": 40, "encoding": "coverage"},
    "lr": 4e-3,
    "batch_size": 128,
    "weight_decay": 1e-4,
    "sampling": "power",
    "sampling.power.alpha": 0.4,
    "augment": "symmetries",
    "schedule": "one_cycle",
    "model": "wafer_cnn",
}


def _cnn(**options: Any) -> dict[str, Any]:
    return {f"model.wafer_cnn.{key}": value for key, value in options.items()}


def _resnet(**options: Any) -> dict[str, Any]:
    return {"model": "wafer_resnet", **{f"model.wafer_resnet.{key}": value for key, value in options.items()}}


def _drawn(sampling: str, **more: Any) -> dict[str, Any]:
    return {"sampling": sampling, "sampling.power.alpha": None, **more}


# The small network that anyone would write first: on 40 pixels of die states, balanced draws, rotated at random.
_BARE = {
    "data": {"encoding": "states"},
    "lr": 5e-3,
    "sampling": "balanced",
    "sampling.power.alpha": None,
    "augment": "symmetries_affine",
    "augment.symmetries_affine.angle": 180.0,
    **_cnn(pooling="avg"),
}


ARMS: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "bare": _BARE,
    "best": _cnn(pooling="gem", squeeze=True) | {"ema": 0.5},  # what gained by itself, together
    # the network
    "depth2": _cnn(depth=2),
    "width48": _cnn(width=48),
    "width16": _cnn(width=16),
    "strided": _cnn(stem="strided"),
    "squeeze": _cnn(squeeze=True),
    "gem": _cnn(pooling="gem"),
    "avg": _cnn(pooling="avg"),
    "max": _cnn(pooling="max"),
    "mask": _cnn(mask_channel=True),
    "group_norm": _cnn(norm="group"),
    "no_norm": _cnn(norm="none") | {"lr": 1e-3},
    "dropout0": _cnn(dropout=0.0),
    "dropout0.3": _cnn(dropout=0.3),
    "resnet": _resnet(),
    "resnet_full": _resnet(stem="full"),
    "resnet_full_drop_path": _resnet(stem="full", drop_path=0.1),
    # the picture
    "32px": {"data": {"image_size": 32}},
    "52px": {"data": {"image_size": 52}},
    "64px": {"data": {"image_size": 64}},
    "64px_width16": {"data": {"image_size": 64}} | _cnn(width=16),
    "states": {"data": {"encoding": "states"}},
    "64px_states": {"data": {"image_size": 64, "encoding": "states"}},
    "kept": {"data": {"aspect": "kept"}},
    # what is drawn, and the loss
    "imbalanced": _drawn("imbalanced"),
    "balanced": _drawn("balanced"),
    "alpha0.7": {"sampling.power.alpha": 0.7},
    "progressive": _drawn("progressive"),
    "effective_number": _drawn("effective_number"),
    "logit_adjusted": _drawn("imbalanced", loss="logit_adjusted"),
    "class_balanced": _drawn("imbalanced", loss="class_balanced"),
    "focal": {"loss": "focal"},
    "label_smoothing": {"loss.cross_entropy.label_smoothing": 0.05},
    # what is done to it
    "no_augment": {"augment": "none"},
    "noise": {"augment": "symmetries_noise"},
    "shift": {"augment": "symmetries_shift"},
    "noise0.05": {"augment": "symmetries_noise", "augment.symmetries_noise.noise": 0.05},
    "affine": {"augment": "symmetries_affine"},
    "deck_augment": {"augment": "deck"},
    "mixup": {"mixing": "mixup"},
    "cutmix": {"mixing": "cutmix"},
    # how it is learned
    "ema": {"ema": 0.5},
    "cosine": {"schedule": "cosine"},
    "stable_decay": {"schedule": "warmup_stable_decay"},
    "constant": {"schedule": "constant"},
    "constant_ema": {"schedule": "constant", "ema": 0.5},
    "wd0.05": {"weight_decay": 0.05},
    "grad_clip": {"grad_clip": 1.0},
    "lr2e-3": {"lr": 2e-3},
    "lr8e-3": {"lr": 8e-3},
    "batch64": {"batch_size": 64},
    "batch256": {"batch_size": 256},
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "sgd_batch32": {"optimizer": "sgd", "lr": 0.1, "batch_size": 32},
    "sgd_batch512": {"optimizer": "sgd", "lr": 0.1, "batch_size": 512},
}
