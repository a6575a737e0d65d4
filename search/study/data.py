"""What a study's data section names, opened."""

from pathlib import Path

import numpy as np

from data_pipeline.dataset import Dataset, open_dataset
from data_pipeline.encode import Picture
from search.errors import ConfigError
from search.space.config import DataConfig, StudyConfig
from search.space.floors import check_floor
from search.study.marks import name_wafers
from search.study.provenance import describe_data
from search.trial.data import TrialData
from search.trial.vocabulary import nearest


def open_data(config: DataConfig, *, results: Path) -> Dataset:
    """Load and divide the wafers; encoded maps are kept in `results`/.cache.

    Raises:
        DataError: If the wafers cannot be used.
    """
    return open_dataset(
        config.wafers,
        synthetic_wafers=config.synthetic_wafers,
        picture=Picture(image_size=config.image_size, aspect=config.aspect, encoding=config.encoding),
        by=config.split.by,
        pool=config.split.pool,
        val=config.split.val,
        test=config.split.test,
        seed=config.split.seed,
        cache=results / ".cache",
    )


def trial_data(dataset: Dataset, config: DataConfig) -> TrialData:
    """Encode what a trial may see, on the CPU."""
    return TrialData(
        train=dataset.encode("train"),
        val=dataset.encode("val"),
        n_classes=len(dataset.wafers.classes),
        epoch_samples=config.epoch_samples,
        features=(dataset.cache / "features").resolve(),  # slots run in folders of their own
    )


def size_of(data: TrialData) -> int:
    """Count the bytes of the encoded wafers and their labels, as every machine that trains on them holds them."""
    parts = [part for part in (data.train, data.val) if part is not None]
    return sum(tensor.nbytes for part in parts for tensor in (part.maps, part.labels))


def check_objective(config: StudyConfig, dataset: Dataset) -> None:
    """Check that the validation part can tell what the objective and the constraints ask of it.

    Raises:
        ConfigError: If a class does not occur there, with the nearest one, or a floor is finer than one wafer.
    """
    classes, weights = dataset.wafers.classes, config.objective.weights
    support = np.bincount(dataset.wafers.labels[dataset.splits.val], minlength=len(classes)).tolist()
    for floor in config.floors:
        problem = check_floor(floor, classes=classes, support=support)
        if problem:
            raise ConfigError(f"constraints: {problem}")
    for name in weights:
        if name not in classes:
            raise ConfigError(f"objective.weights.{name}: no such class in the data; {nearest(name, list(classes))}")
    occurring = {classes[k] for k in dataset.wafers.labels[dataset.splits.val]}
    if weights and occurring.isdisjoint(weights):
        raise ConfigError(
            f"objective.weights: no validation wafer is {' or '.join(weights)}; change data.split.seed, or the weights"
        )


def absent_classes(dataset: Dataset) -> list[str]:
    """Say of which classes the training or the validation part has no wafer: one warning for each part."""
    meanings = {"train": "cannot be learned", "val": "does not count in any score"}
    warnings = []
    for part, meaning in meanings.items():
        occurring = set(dataset.wafers.labels[dataset.splits.part(part)].tolist())
        absent = [name for k, name in enumerate(dataset.wafers.classes) if k not in occurring]
        if absent:
            remedy = f"change data.split.seed ({dataset.splits.protocol} split) or label more wafers"
            warnings.append(f"WARNING: no wafer of {', '.join(absent)} in the {part} part: {meaning}; {remedy}")
    return warnings


def check_same_data(dataset: Dataset, *, fingerprint: str, split_fingerprint: str) -> None:
    """Check that the wafers and their division are those of a search.

    Raises:
        ConfigError: If they are not: what was validation or test then could be training now.
    """
    found = (dataset.wafers.fingerprint, dataset.splits.fingerprint)
    if found != (fingerprint, split_fingerprint):
        raise ConfigError(
            f"{dataset.wafers.source}: has the fingerprint {found[0]} and the split {found[1]}; the study was made "
            f"with {fingerprint} and {split_fingerprint}; give the same wafers by --data"
        )


def describe(dataset: Dataset) -> str:
    """Say what was loaded and what was proved about it, for people."""
    wafers, splits = dataset.wafers, dataset.splits
    counts = ", ".join(f"{name} {n:,}" for name, n in zip(wafers.classes, wafers.counts(), strict=True))
    parts = ", ".join(f"{part} {len(splits.part(part)):,}" for part in ("train", "val", "test"))
    return (
        f"{name_wafers(describe_data(dataset))}: {wafers.source}\n"
        f"  {len(wafers):,} wafers: {counts}\n"
        f"  split {splits.fingerprint} by {splits.protocol}: {parts} (locked)\n"
        f"  {splits.leaky or 'proved'}: {dataset.leak_check}"
    )
