"""StudyConfig: everything that makes a study what it is, with all defaults."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_pipeline.encode import Aspect, Encoding
from search.space.expressions import Expression
from search.space.floors import Floor
from search.space.objective import Objective
from search.space.space import Config, Space, to_tree
from search.trial.params import find_contradiction


class Section(BaseModel):
    """A part of the file: immutable, no unknown key, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitConfig(Section):
    """How the wafers are divided."""

    by: Literal["lot", "official", "product", "time", "random", "deck", "deck_subset"] = Field(
        "lot",
        description="What stays apart. lot: lots, and identical maps; official: the publisher's Training and Test; "
        "product: map shapes too; time: later lots; random, deck, deck_subset: nothing, and every output says LEAKY.",
    )
    pool: int = Field(3077, ge=3, le=1_000_000, description="Wafers per class before the division; only for by: deck.")
    val: float = Field(0.20, gt=0, lt=1, description="Share for validation.")
    test: float = Field(0.15, gt=0, lt=1, description="Share for the locked test.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the division.")


class DataConfig(Section):
    """What is trained on."""

    wafers: str = Field("auto", description="A file; auto: data/wafers.parquet if there, else synthetic; synthetic.")
    synthetic_wafers: int = Field(6000, ge=600, le=1_000_000, description="How many, where they are synthetic.")
    image_size: int = Field(40, ge=8, le=512, description="Side of the encoded maps, in pixels.")
    aspect: Aspect = Field(
        "stretched", description="Of maps that are not square: stretched to the square, or kept within it."
    )
    encoding: Encoding = Field(
        "coverage",
        description="What a pixel holds: the state of its die; or which shares of it passing and failing dies cover.",
    )
    epoch_samples: int = Field(18_000, ge=32, le=100_000_000, description="Wafers drawn in a nominal epoch.")
    split: SplitConfig = SplitConfig()


Sampler = Literal["tpe", "gp", "tpe_gp", "random", "qmc"]


class AshaConfig(Section):
    """When losing trials are stopped."""

    first_rung: int = Field(2, ge=1, description="First epoch after which a trial may be stopped.")
    factor: int = Field(3, ge=2, le=10, description="One of how many goes on, and the distance between rungs.")
    peers: int = Field(
        3, ge=1, le=10_000, description="Others that must have reached a rung before one is stopped there."
    )
    progressive: bool = Field(
        False, description="PASHA: past the second rung only its best goes on, until trials overtake each other there."
    )

    @field_validator("first_rung", mode="before")
    @classmethod
    def _read_epochs(cls, value: Any) -> Any:
        found = re.fullmatch(r"(\d+) epochs?", value) if isinstance(value, str) else None
        return int(found[1]) if found else value


class StopConfig(Section):
    """The judge."""

    asha: AshaConfig = AshaConfig()


class SearchConfig(Section):
    """How long and how the search goes."""

    trials: int = Field(24, ge=1, le=1_000_000, description="Trials to judge: run to their end, or stopped.")
    time: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Over all attempts: 20m, 1h30m, or seconds; null: no end."
    )
    gpu_hours: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Hours of training and judging, times the GPUs of a trial; null: no end.",
    )
    trial_time: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="A configuration that would train longer does not work; as `time`."
    )
    failures: int = Field(3, ge=1, le=1000, description="So many trials that break one after the other end the search.")
    sampler: Sampler = Field("tpe_gp", description="Who proposes: tpe_gp, tpe, gp, random or qmc; see above.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the sampler.")
    stop: StopConfig | None = Field(StopConfig(), description="none: every trial runs to its end.")

    @field_validator("stop", mode="before")
    @classmethod
    def _read_none(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("time", "trial_time", mode="before")
    @classmethod
    def _read_duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value


class ConfirmConfig(Section):
    """How the best are trained again, to learn which of them is best and what it is worth."""

    top: int = Field(
        3,
        ge=1,
        le=50,
        description="So many of the best that ran to their end; of those left unfinished, so many at most that stand "
        "higher.",
    )
    seeds: int = Field(
        3, ge=0, le=100, description="Fresh seeds for each, on the same division of the wafers as in the search."
    )
    folds: int = Field(
        0,
        ge=0,
        le=20,
        description="Further trainings of each, on all but one of so many folds of the training and validation lots; "
        "then these decide. 0: none, else at least 2.",
    )

    @model_validator(mode="after")
    def _check_folds(self) -> "ConfirmConfig":
        if self.folds == 1 or not self.seeds + self.folds:
            raise ValueError("must train something: seeds from 1, or folds from 2")
        return self


class TrialResources(Section):
    """What the trials of one model get, where that is not what all get."""

    cpus: int | None = Field(None, ge=1, le=1024, description="As `resources.cpus`; None: the same.")
    gpus: Literal["auto", "none"] | float | None = Field(None, description="As `resources.gpus`; None: the same.")

    @field_validator("gpus", mode="before")
    @classmethod
    def _check_gpus(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value not in ("auto", "none", None) and not (is_number and (0 <= value <= 1 or value in range(2, 65))):
            raise ValueError("must be auto, none, in [0, 1], or whole up to 64")
        return value


class ResourcesConfig(TrialResources):
    """What one trial gets."""

    cpus: int = Field(1, ge=1, le=1024, description="Cores, and so threads, per trial.")
    gpus: Literal["auto", "none"] | float = Field(
        "auto",
        description="GPUs per trial, or a share of one. auto: as many trials on a GPU as train most samples per second "
        "within its memory, tried out for each model before the first trial. none: leave them idle. Without GPUs, "
        "trials train on the CPU whatever stands here.",
    )
    models: dict[str, TrialResources] = Field({}, description="Other resources for the trials of single models.")

    def of(self, model: str) -> tuple[int, str | float]:
        """Return the cores and the GPUs of a trial of this model."""
        own = self.models.get(model, TrialResources())
        return own.cpus or self.cpus, self.gpus if own.gpus is None else own.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Configurations that are never tried.

    Attributes:
        condition: What is true of them.
        why: The reason, for people.
    """

    condition: Expression
    why: str

    def to_tree(self) -> dict[str, str]:
        """Write it in the form in which YAML files hold it."""
        return {"if": self.condition.text, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """Everything that makes a study what it is.

    Attributes:
        name: Of the space; the study is called so unless the command line says otherwise.
        data: What is trained on.
        space: What may be tried.
        objective: What is maximised.
        first: Flat, partial configurations that are tried before the sampler's own.
        forbid: Configurations that are never tried.
        floors: What the F1 of single classes, or any other score, must reach.
        search: How long and how.
        resources: What one trial gets.
        confirm: How the best are confirmed when the search is over; None: not at all.
    """

    name: str
    data: DataConfig
    space: Space
    objective: Objective
    first: tuple[Config, ...]
    forbid: tuple[Rule, ...]
    floors: tuple[Floor, ...]
    search: SearchConfig
    resources: ResourcesConfig
    confirm: ConfirmConfig | None = None

    def forbids(self, config: Config) -> str | None:
        """Say why a flat configuration is never tried, or return None."""
        broken = (rule.why for rule in self.forbid if rule.condition.holds(config))
        return find_contradiction(config) or next(broken, None)

    def to_tree(self) -> dict[str, Any]:
        """Write it, all defaults filled in, in the form in which YAML files hold it."""
        return {
            "name": self.name,
            "data": self.data.model_dump(),
            "space": to_tree(self.space.nodes),
            "objective": self.objective.to_tree(),
            "first": [dict(point) for point in self.first],
            "forbid": [rule.to_tree() for rule in self.forbid],
            "constraints": [floor.text for floor in self.floors],
            "search": self.search.model_dump(),
            "resources": self.resources.model_dump(),
            "confirm": self.confirm.model_dump() if self.confirm else "none",
        }


def parse_duration(text: str) -> float:
    """Read "90s", "20m", "2h", "1d" or "1h30m"; a bare number counts seconds.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> parse_duration("1h30m")
        5400.0
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a duration such as 90s, 20m, 2h or 1h30m")
    return sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit] for number, unit in parts)
