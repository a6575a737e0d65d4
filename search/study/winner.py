"""winner.npz: what the best trial's network makes of the validation wafers, and those that it gets most wrong.

It is written once when a search ends, so that the page can be made from the study's folder alone, without wafers.
"""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from data_pipeline.batches import EncodedWafers, plain_batches
from data_pipeline.dataset import Dataset
from data_pipeline.wafer_set import WaferSet
from search.study.checkpoints import load_checkpoint
from search.study.data import trial_data
from search.study.records import StudyFolder, write_atomically
from search.study.rows import TrialRecord
from search.study.study import Study
from search.trial.evaluation import autocast, choose_device
from search.trial.learner import Learner
from search.trial.params import from_flat

_PER_CLASS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HardWafer:
    """A validation wafer that the winner calls wrong.

    Attributes:
        index: In the wafer file, cleaned.
        lot: Name of its lot.
        actual: Its label, an index into the classes.
        called: What the winner calls it.
        probability: That the winner gives to `called`.
        map: Die codes at native size, shape (H, W), uint8: 0 no die, 1 pass, 2 fail.
    """

    index: int
    lot: str
    actual: int
    called: int
    probability: float
    map: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Winner:
    """What winner.npz holds. N validation wafers that were judged, K classes.

    Attributes:
        trial: Number of the trial.
        split_fingerprint: Of the division that the wafers come from.
        n_val: All validation wafers; more than N if time was short.
        indices: In the wafer file, shape (N,).
        labels: Shape (N,).
        probabilities: Shape (N, K), float16.
        hardest: By class, then by probability, the most confident first; up to four of each class.
    """

    trial: int
    split_fingerprint: str
    n_val: int
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float16]
    hardest: tuple[HardWafer, ...]

    @property
    def is_whole(self) -> bool:
        """Whether all validation wafers were judged."""
        return len(self.labels) == self.n_val

    def is_of(self, trial: int, split_fingerprint: str) -> bool:
        """Whether it is of this trial, on these validation wafers."""
        return (self.trial, self.split_fingerprint) == (trial, split_fingerprint)


def write_winner(study: Study, dataset: Dataset, *, patience_s: float) -> str:
    """Judge the validation part once more with the winner's network, unless that was done already.

    Never raises: these are pictures for a page, and the search is over.

    Args:
        study: Knows the winner, or who came nearest to the floors; its checkpoint is in the study's folder.
        dataset: The study's.
        patience_s: A large network on a CPU could keep the user waiting for pictures: after so many seconds only the
            wafers judged until then count, a random part of all.

    Returns:
        What went wrong, in words; "" if nothing did, or no trial ran to its end.
    """
    leader = study.leader
    if leader is None:
        return ""
    try:
        known = read_winner(study.folder)
        if known and known.is_whole and known.is_of(leader.number, dataset.splits.fingerprint):
            return ""
        return _write(study, leader, dataset, patience_s=patience_s)
    except Exception as error:  # noqa: BLE001 - whatever it is, the search has its result
        return f"its hardest wafers are not shown ({type(error).__name__}: {error})"


def keep_winner(folder: StudyFolder, dataset: Dataset, *, trial: int, logits_NK: NDArray[np.float32]) -> None:
    """Keep what a confirmed trial makes of the validation part, from the logits that one of its runs has left.

    Args:
        folder: Of the study.
        dataset: The study's.
        trial: Number of the trial in the search.
        logits_NK: Of all validation wafers in order, shape (N, K).
    """
    indices, probabilities_NK = dataset.splits.val, softmax(logits_NK, axis=1)
    winner = Winner(
        trial=trial,
        split_fingerprint=dataset.splits.fingerprint,
        n_val=len(indices),
        indices=indices,
        labels=dataset.wafers.labels[indices],
        probabilities=probabilities_NK.astype(np.float16),
        hardest=tuple(find_hardest(dataset.wafers, indices, probabilities_NK)),
    )
    write_atomically(folder.winner, to_bytes(winner))


def read_winner(folder: StudyFolder) -> Winner | None:
    """Read winner.npz; None if there is none or it is damaged."""
    try:
        with np.load(io.BytesIO(folder.winner.read_bytes()), allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        about = json.loads(str(parts["about"]))
        starts = np.concatenate([[0], np.cumsum(parts["heights"] * parts["widths"])])
        maps = [
            parts["cells"][a:b].reshape(h, w)
            for a, b, h, w in zip(starts, starts[1:], parts["heights"], parts["widths"], strict=False)
        ]
        hardest = tuple(HardWafer(**each, map=picture) for each, picture in zip(about["hardest"], maps, strict=True))
        return Winner(
            **{name: about[name] for name in ("trial", "split_fingerprint", "n_val")},
            **{name: parts[name] for name in ("indices", "labels", "probabilities")},
            hardest=hardest,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _write(study: Study, leader: TrialRecord, dataset: Dataset, *, patience_s: float) -> str:
    data = study.config.data
    params = from_flat(leader.config, where=f"trial {leader.number}", image_size=data.image_size)
    place = study.folder.place(study.folder.checkpoint(leader.number))
    saved = load_checkpoint(place, key=json.dumps(leader.config, sort_keys=True))
    if saved is None:
        return f"its hardest wafers are not shown: the checkpoint of trial {leader.number} is missing or damaged"
    device = choose_device()
    arrays = trial_data(dataset, data).to(device)
    learner = Learner(params, arrays, generator=torch.Generator().manual_seed(params.seed))
    learner.restore(saved.state)
    assert arrays.val is not None
    order = np.random.default_rng(0).permutation(len(arrays.val))  # so that a part of them is a fair sample
    probabilities_NK = _judge(learner, arrays.val.select(torch.from_numpy(order).to(device)), patience_s=patience_s)
    indices = dataset.splits.val[order[: len(probabilities_NK)]]
    winner = Winner(
        trial=leader.number,
        split_fingerprint=dataset.splits.fingerprint,
        n_val=len(arrays.val),
        indices=indices,
        labels=dataset.wafers.labels[indices],
        probabilities=probabilities_NK.astype(np.float16),
        hardest=tuple(find_hardest(dataset.wafers, indices, probabilities_NK)),
    )
    write_atomically(study.folder.winner, to_bytes(winner))
    return ""


@torch.inference_mode()
def _judge(learner: Learner, val: EncodedWafers, *, patience_s: float) -> NDArray[np.float32]:
    """Return the probabilities of as many wafers as patience allows, shape (N, K)."""
    predictor, start, parts = learner.predictor.eval(), time.monotonic(), []
    for inputs, _ in plain_batches(val):
        with autocast(learner.device, learner.dtype):
            logits_NK = predictor(inputs)
        parts.append(logits_NK.float().softmax(1).cpu().numpy())
        if time.monotonic() - start > patience_s:
            break
    result: NDArray[np.float32] = np.concatenate(parts)
    return result


def find_hardest(
    wafers: WaferSet,
    indices: NDArray[np.int64],
    probabilities_NK: NDArray[np.floating[Any]],
    called: NDArray[np.int64] | None = None,
) -> list[HardWafer]:
    """Choose up to four wafers of each class that are called wrong with the highest probability.

    Args:
        wafers: The data set.
        indices: Those that were judged, shape (N,).
        probabilities_NK: What was made of them, shape (N, K).
        called: Class that each was called, shape (N,); None: the most probable.
    """
    called = probabilities_NK.argmax(1) if called is None else called
    sure = probabilities_NK[np.arange(len(called)), called]
    labels = wafers.labels[indices]
    found = []
    for k in range(len(wafers.classes)):
        wrong = np.flatnonzero((labels == k) & (called != k))
        for n in wrong[np.argsort(-sure[wrong], kind="stable")][:_PER_CLASS]:
            index = int(indices[n])
            found.append(
                HardWafer(
                    index=index,
                    lot=wafers.lot_names[wafers.lots[index]],
                    actual=k,
                    called=int(called[n]),
                    probability=float(sure[n]),
                    map=wafers.map(index),
                )
            )
    return found


def to_bytes(winner: Winner) -> bytes:
    """Write what winner.npz holds; no pickle is needed to read it."""
    hardest: Sequence[HardWafer] = winner.hardest
    names = ("index", "lot", "actual", "called", "probability")
    about = {
        **{name: getattr(winner, name) for name in ("trial", "split_fingerprint", "n_val")},
        "hardest": [{name: getattr(each, name) for name in names} for each in hardest],
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        about=np.array(json.dumps(about, ensure_ascii=False)),
        indices=winner.indices,
        labels=winner.labels,
        probabilities=winner.probabilities,
        cells=np.concatenate([each.map.ravel() for each in hardest] or [np.zeros(0, dtype=np.uint8)]),
        heights=np.array([each.map.shape[0] for each in hardest], dtype=np.int64),
        widths=np.array([each.map.shape[1] for each in hardest], dtype=np.int64),
    )
    return buffer.getvalue()
