"""docs/configuration.md, written from the models that read the keys: python -m search.space.reference."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from search.space.config import ConfirmConfig, DataConfig, ResourcesConfig, SearchConfig
from search.space.objective import METRICS
from search.trial.losses import PRIOR_CORRECTING
from search.trial.params import FIELDS, TrialParams, describe_field
from search.trial.vocabulary import CHOICES, options_of

_INTRODUCTION = f"""# Every key of a space file

This page is written by `python -m search.space.reference` and held by a test; edit the models, not the page.

A space file has the sections `name`, `data`, `space`, `objective`, `first`, `forbid`, `constraints`, `search`,
`resources` and `confirm`; `python -m search.run --space FILE --check` reads all of it and trains nothing.

**`space`**: a scalar is a constant, a list a choice, `{{low: ..., high: ..., log: true, step: ...}}` a range, and
`{{choose: {{NAME: {{...}}}}}}` a choice whose options carry parameters of their own: their options below, or any trial
parameter (`lr` under `model.choose.wafer_cnn` is the learning rate of the trials that choose `wafer_cnn`). Parameters
are named by their path without `choose`, as in `model.wafer_cnn.lr`: in `first`, in `best.yaml` and in every output.

**`objective`**: `{{maximize: METRIC}}` with a METRIC out of {", ".join(METRICS)}, or
`{{weights: {{CLASS: number, ...}}}}` for a weighted mean of the F1 of single classes. Beside it, `over` says what is
made of the numbers of all epochs so far: `last` (default), `mean_last_3`, or `ema`, in which an epoch counts half as
much as the one after it. The sampler, the judge and the choice of the winner go by the same number.

**`first`**: configurations, whole or in part, that are tried first; what they leave open is filled up.

**`forbid`**: what is never tried, `- {{if: "sampling == 'balanced' and lr > 0.01", why: "..."}}`. A condition compares
parameters (by their path; `lr` alone means the one that is set, wherever that is) with numbers, quoted words, true or
false by `== != < <= > >= in`, joined by `and`, `or`, `not`; numbers may be joined by `+ - * /`. What belongs to a
branch that was not chosen makes a comparison false. Without being told, no search tries the losses
{" and ".join(f"`{name}`" for name in PRIOR_CORRECTING)} beside any sampling but `imbalanced`: both correct the classes'
shares.

**`constraints`**: floors, such as `["f1[Scratch] >= 0.60", "precision[none] >= 0.95", "macro_f1 >= 0.8"]`. Trials that
meet them all come before all others: for the sampler, at the judge's rungs, and for `best.yaml`, which is not written
while none meets them. A floor that is finer than one validation wafer is refused.

**`search.sampler`**: `tpe` (Optuna's, multivariate, a group for every branch), `gp` (ours: a Gaussian process over
configuration and epoch), `tpe_gp` (both in turn; docs/experiments.md compares them), `random`, or `qmc` (quasi-random;
what belongs to branches Optuna then draws at random). **`search.stop`**: `{{asha: {{...}}}}`, or `none`.

**`resources`**: what one trial gets. `models: {{efficientnet_b0: {{gpus: 1, cpus: 4}}}}` gives the trials of one model
something else. A share of a GPU is enforced: a trial that wants more memory fails, its neighbour does not.
Ray runs trials at nice 15, so that the machine stays usable; beside other work that takes all cores they hardly move,
and `RAY_worker_niceness=0` in the environment (of whoever starts Ray) gives them an equal share.

**`confirm`**: with this section, the best of the search are trained again when it is over, from fresh seeds; that
takes time of its own, beyond `search.time`. `none`, or no such section: they are not; `python -m search.confirm STUDY`
does it at any time. Of the two ways to judge, `seeds` uses the search's own validation wafers, by which the candidates
were picked; `folds` trains on other lots each time and so judges by all of the training and validation wafers, and is
what `search.retrain --on train+val` calibrates by.
"""


def write_reference() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION]
    sections: dict[str, type[BaseModel]] = {
        "data": DataConfig,
        "search": SearchConfig,
        "resources": ResourcesConfig,
        "confirm": ConfirmConfig,
    }
    for name, kind in sections.items():
        parts.append(_table(f"{name}", ("key", "default", "what"), list(_section_rows(kind, name))))
    rows = [
        (f"`{name}`", describe_field(name), f"`{field.default}`", field.description) for name, field in FIELDS.items()
    ]
    parts.append(_table("space: trial parameters", ("key", "value", "default", "what"), rows))
    for choice, table in CHOICES.items():
        field = TrialParams.model_fields[choice]
        title = f"space: {choice} (default `{field.default.name}`)"
        parts.append(_table(title, ("key", "default", "what"), list(_choice_rows(choice, table))))
    return "\n".join(parts)


def _section_rows(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, ...]]:
    for name, field in kind.model_fields.items():
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if hasattr(t, "model_fields")]
        if inner:
            is_table = get_origin(field.annotation) is dict
            yield from _section_rows(inner[0], f"{prefix}.{name}{'.MODEL' if is_table else ''}")
        elif field.default is not PydanticUndefined:
            yield f"`{prefix}.{name}`", f"`{field.default}`", field.description or ""


def _choice_rows(choice: str, table: Any) -> Iterator[tuple[str, ...]]:
    for name, factory in table.items():
        yield f"**`{name}`**", "", (inspect.getdoc(factory) or "").splitlines()[0]
        for option, default in options_of(choice, name).items():
            yield f"`{choice}.{name}.{option}`", f"`{default}`", _describe_option(factory, option)


def _describe_option(factory: Callable[..., Any], option: str) -> str:
    """Take what the factory's docstring says of one argument."""
    found = re.search(rf"^    {option}: (.*?)(?=^    \w+: |^\w|\Z)", inspect.getdoc(factory) or "", re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def _table(title: str, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ("---",) * len(header), *map(_cells, rows))]
    return f"## {title}\n\n" + "\n".join(lines) + "\n"


def _cells(row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(cell).replace("|", "\\|") for cell in row)


if __name__ == "__main__":
    Path("docs/configuration.md").write_text(write_reference(), encoding="utf-8")
