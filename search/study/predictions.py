"""final/test_predictions.parquet: what the final model made of each test wafer.

`evaluate` writes it, so that comparing studies takes neither the wafers nor another look at the test part.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_pipeline.errors import first_line
from search.errors import ConfigError
from search.space.space import Config
from search.study.records import StudyFolder, write_atomically

NAME = "test_predictions.parquet"
_FORMAT = "1"
_PROBABILITY = "probability "


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which model said it, of which wafers.

    Attributes:
        study: Name of the study.
        model: Fingerprint of `model.pt`, as in the ledger.
        data_fingerprint: Of all wafers.
        split_fingerprint: Of their division.
        protocol: How they were divided.
        synthetic: Whether the wafers are.
        leaky: What must be said of the division; else empty.
        when: The look that this is, as in the ledger.
        on: What the model was trained on: "train" or "train+val".
        n_parameters: Of the model.
        config: Its flat configuration, every value.
    """

    study: str
    model: str
    data_fingerprint: str
    split_fingerprint: str
    protocol: str
    synthetic: bool
    leaky: str
    when: str
    on: str
    n_parameters: int
    config: Config


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a model makes of N test wafers of K classes.

    Attributes:
        origin: Which model, which wafers.
        classes: Names of the K classes.
        wafers: Index of each in the wafer file, shape (N,), int64.
        lots: Name of each one's lot, shape (N,).
        labels: Shape (N,), int64, an index into `classes`.
        probabilities: Shape (N, K), float32; with the decision for other class shares in them, if there is one.
        predicted: The class with the largest, shape (N,), int64.
    """

    origin: Origin
    classes: tuple[str, ...]
    wafers: NDArray[np.int64]
    lots: Sequence[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    predicted: NDArray[np.int64]


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write predictions atomically: a row per wafer, class names as words.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    metadata = {
        "predictions.format": _FORMAT,
        "predictions.classes": json.dumps(predictions.classes, ensure_ascii=False),
        "predictions.origin": json.dumps(asdict(predictions.origin), ensure_ascii=False),
    }
    names = pa.array(predictions.classes, pa.string())
    columns: dict[str, Any] = {
        "wafer": predictions.wafers,
        "lot": pa.array(predictions.lots, pa.string()).dictionary_encode(),
        "label": pa.DictionaryArray.from_arrays(pa.array(predictions.labels, pa.int32()), names),
        "predicted": pa.DictionaryArray.from_arrays(pa.array(predictions.predicted, pa.int32()), names),
    }
    for k, name in enumerate(predictions.classes):
        columns[_PROBABILITY + name] = np.ascontiguousarray(predictions.probabilities[:, k])
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, metadata=metadata), buffer, compression="zstd", write_page_checksum=True)
    write_atomically(path, buffer.getvalue())


def read_predictions(study: StudyFolder) -> Predictions:
    """Read what a study's `evaluate` stored.

    Raises:
        ConfigError: If it did not, with the command that does, or the file is damaged.
    """
    path = study.final / NAME
    if not path.exists():
        raise ConfigError(f"{path}: no test predictions there; {_how_to_get_them(study)}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
            if metadata.get("predictions.format") != _FORMAT:
                raise ConfigError(f"{path}: holds no test predictions of format {_FORMAT}; {_how_to_get_them(study)}")
            table = file.read()
        return _from_table(table, metadata)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is damaged ({first_line(error)}); {_how_to_get_them(study)}") from None


def _from_table(table: pa.Table, metadata: Mapping[str, str]) -> Predictions:
    classes = tuple(json.loads(metadata["predictions.classes"]))
    positions = {name: k for k, name in enumerate(classes)}
    labels, predicted = (
        np.array([positions[name] for name in table[column].to_pylist()], dtype=np.int64)
        for column in ("label", "predicted")
    )
    return Predictions(
        origin=Origin(**json.loads(metadata["predictions.origin"])),
        classes=classes,
        wafers=table["wafer"].to_numpy(),
        lots=table["lot"].to_pylist(),
        labels=labels,
        probabilities=np.stack([table[_PROBABILITY + name].to_numpy() for name in classes], axis=1),
        predicted=predicted,
    )


def _how_to_get_them(study: StudyFolder) -> str:
    """Name the commands; an earlier `evaluate` stored none."""
    evaluate = f"`python -m search.evaluate {study.path}`"
    if (study.final / "test.json").exists():
        return f"run {evaluate} again; its ledger counts that look too"
    if (study.final / "model.pt").exists():
        return f"run {evaluate}"
    return f"run `python -m search.retrain {study.path}` and {evaluate}"
