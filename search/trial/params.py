"""TrialParams: everything that one trial is trained with, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from search.errors import ConfigError
from search.trial.losses import PRIOR_CORRECTING
from search.trial.prediction import DecideFor, TestTime
from search.trial.vocabulary import CHOICES, Scalar, check_options, nearest, options_of

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One thing chosen, with the value of each of its options."""

    name: str
    options: Mapping[str, Scalar]


def choose(choice: str, name: str, **options: Scalar) -> Chosen:
    """Choose `name`, with defaults for the options that are not given."""
    return Chosen(name, {**options_of(choice, name), **options})


class TrialParams(BaseModel):
    """One configuration. Every field is a key of the space; see docs/configuration.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    epochs: int = Field(10, ge=1, le=10_000, strict=True, description="Length, in nominal epochs.")
    lr: float = Field(1e-3, gt=0, le=10, strict=True, description="Peak learning rate.")
    batch_size: int = Field(128, ge=2, le=65_536, strict=True, description="Wafers per step.")
    weight_decay: float = Field(1e-4, ge=0, le=1, strict=True, description="Of matrices and kernels only.")
    ema: float = Field(
        0.0, ge=0, le=1000, strict=True, description="Weights averaged over so many nominal epochs are judged; 0: none."
    )
    grad_clip: float = Field(0.0, ge=0, le=1e6, strict=True, description="Largest norm of the gradient; 0: none.")
    subset: float = Field(1.0, gt=0, le=1, strict=True, description="Share of each class's training wafers.")
    precision: Precision = Field("auto", description="auto: bf16 where the device computes it natively.")
    decide_for: DecideFor = Field(
        "drawn", description="Class shares that decisions are made for: as drawn, as in the training part, or equal."
    )
    test_time: TestTime = Field("single", description="symmetries: average over the eight views, at 8 times the cost.")
    seed: int = Field(0, ge=0, lt=2**31, strict=True, description="Of weights, draws, augmentation, dropout.")
    sampling: Chosen = Field(choose("sampling", "imbalanced"), description="Which wafers are drawn for an epoch.")
    augment: Chosen = Field(choose("augment", "symmetries"), description="What is done to the drawn wafers.")
    mixing: Chosen = Field(choose("mixing", "none"), description="How wafers of a batch are mixed with each other.")
    loss: Chosen = Field(choose("loss", "cross_entropy"), description="What is minimised.")
    optimizer: Chosen = Field(choose("optimizer", "adamw"), description="How.")
    schedule: Chosen = Field(choose("schedule", "cosine"), description="Of the learning rate.")
    model: Chosen = Field(choose("model", "wafer_cnn"), description="The architecture.")

    def to_flat(self) -> dict[str, Scalar]:
        """Write every value, defaults too, in the form that `from_flat` reads."""
        flat: dict[str, Scalar] = {}
        for name in FIELDS:
            flat[name] = getattr(self, name)
        for choice in CHOICES:
            chosen: Chosen = getattr(self, choice)
            flat[choice] = chosen.name
            flat |= {f"{choice}.{chosen.name}.{key}": value for key, value in chosen.options.items()}
        return flat


FIELDS: Mapping[str, Any] = {name: field for name, field in TrialParams.model_fields.items() if name not in CHOICES}


def from_flat(flat: Mapping[str, Scalar], *, where: str, image_size: int) -> TrialParams:
    """Read one flat configuration and check all of it.

    Args:
        flat: Dotted keys; see `search.trial.vocabulary`. What is missing keeps its default.
        where: What is read, for messages.
        image_size: Pixels per side of the encoded maps.

    Raises:
        ConfigError: With every problem found, one line each.
    """
    problems = [problem for key, value in flat.items() if (problem := check_value(key, value))]
    names = {choice: str(flat.get(choice, TrialParams.model_fields[choice].default.name)) for choice in CHOICES}
    fields: dict[str, Any] = {key: value for key, value in flat.items() if key in FIELDS}
    options: dict[str, dict[str, Scalar]] = {choice: {} for choice in CHOICES}
    for key, value in flat.items():
        choice, name, leaf = split_key(key)
        if not leaf or check_key(key) or names[choice] not in CHOICES[choice]:
            continue
        if names[choice] != name:
            problems.append(f"{key}: set, but {choice} is {names[choice]!r}")
        elif leaf in options_of(choice, name):
            options[choice][leaf] = value
        elif leaf in fields:
            problems.append(f"{key}: {leaf} is set twice")
        else:
            fields[leaf] = value
    for choice, name in names.items():
        if name in CHOICES[choice]:
            problem = try_options(choice, name, options[choice], image_size=image_size)
            problems += [f"{choice}.{name}: {problem}"] if problem else []
    problem = find_contradiction(names)
    problems += [problem] if problem else []
    if problems:
        raise ConfigError(format_problems(where, problems))
    chosen = {choice: choose(choice, name, **options[choice]) for choice, name in names.items()}
    return TrialParams(**(fields | chosen))


def find_contradiction(flat: Mapping[str, Scalar]) -> str | None:
    """Say which choices of a flat configuration must not go together, or return None.

    Example:
        >>> find_contradiction({"sampling": "balanced", "loss": "logit_adjusted"})
        "loss 'logit_adjusted' corrects the class shares that sampling 'balanced' has corrected already"
    """
    loss, sampling = flat.get("loss"), flat.get("sampling") or "imbalanced"
    if loss in PRIOR_CORRECTING and sampling != "imbalanced":
        return f"loss {loss!r} corrects the class shares that sampling {sampling!r} has corrected already"
    return None


def split_key(key: str) -> tuple[str, str, str]:
    """Split "model.wafer_cnn.width" into choice, name and leaf; "" for what a shorter key lacks."""
    choice, _, rest = key.partition(".")
    name, _, leaf = rest.partition(".")
    return choice, name, leaf


def check_key(key: str) -> str | None:
    """Say what is wrong with a key, or return None."""
    choice, name, leaf = split_key(key)
    if not name:
        known = [*FIELDS, *CHOICES]
        return None if key in known else f"{key}: unknown key; {nearest(key, known)}"
    if choice not in CHOICES or not leaf:
        return f"{key}: must be of the form choice.name.option, with a choice out of {', '.join(CHOICES)}"
    if name not in CHOICES[choice]:
        return f"{key}: unknown {choice}; {nearest(name, CHOICES[choice])}"
    if leaf not in options_of(choice, name) and leaf not in FIELDS:
        return f"{key}: unknown option; {nearest(leaf, [*options_of(choice, name), *FIELDS])}"
    return None


def check_value(key: str, value: Scalar) -> str | None:
    """Say what is wrong with a key or its value by itself, or return None; ranges of options are not looked at."""
    problem = check_key(key)
    if problem:
        return problem
    choice, name, leaf = split_key(key)
    if not name and choice in CHOICES:
        if isinstance(value, str) and value in CHOICES[choice]:
            return None
        return f"{key}: unknown {choice} {value!r}; {nearest(str(value), CHOICES[choice])}"
    field = leaf or choice
    if leaf and leaf in options_of(choice, name):
        return None
    try:
        _ADAPTERS[field].validate_python(value)
    except ValidationError:
        return f"{key}: {describe_field(field)}; got {value!r}"
    return None


def describe_field(name: str) -> str:
    """Say what a field must be, for people.

    Example:
        >>> describe_field("subset")
        'must be a number in (0, 1]'
    """
    field = TrialParams.model_fields[name]
    words = get_args(field.annotation)
    if words:
        return f"must be one of {', '.join(words)}"
    kind = "a whole number" if field.annotation is int else "a number"
    bounds = {type(bound).__name__: bound for bound in field.metadata}
    low = f"[{bounds['Ge'].ge:.10g}" if "Ge" in bounds else f"({bounds['Gt'].gt:.10g}"
    high = f"{bounds['Le'].le:.10g}]" if "Le" in bounds else f"{bounds['Lt'].lt:.10g})"
    return f"must be {kind} in {low}, {high}"


def try_options(choice: str, name: str, options: Mapping[str, Scalar], *, image_size: int) -> str | None:
    """Say why these options cannot be used together, or return None."""
    try:
        check_options(choice, name, options, image_size=image_size)
    except Exception as error:  # noqa: BLE001 - whatever a factory raises on these options is what the user must read
        return str(error)
    return None


def format_problems(where: str, problems: list[str]) -> str:
    """Put several problems into one message."""
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return f"{where}: {len(problems)} problems\n" + "\n".join(f"  {problem}" for problem in problems)


_ADAPTERS: Mapping[str, TypeAdapter[Any]] = {
    name: TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]  # built at run time
    for name, field in FIELDS.items()
}
