"""Training one configuration of a search alone, from its first epoch to its end, in one undisturbed process."""

import json
import sys
from pathlib import Path

import torch

from search.space.config_file import load_study_config
from search.study.data import open_data, trial_data
from search.study.rows import report_to_row
from search.trial.params import from_flat
from search.trial.training import train_and_evaluate


def main() -> int:
    """Print the last report of each trial that is named on the command line, a line each."""
    study, *trials = sys.argv[1:]
    config = load_study_config(Path(study) / "resolved.yaml", overrides={})
    dataset = open_data(config.data, results=Path(study).parent)
    data = trial_data(dataset, config.data)
    torch.set_num_threads(config.resources.cpus)
    rows = [json.loads(line) for line in (Path(study) / "trials.jsonl").read_text("utf-8").splitlines()]
    flat = {row["trial"]: row["config"] for row in rows}
    for trial in map(int, trials):
        params = from_flat(flat[trial], where=f"trial {trial}", image_size=config.data.image_size)
        generator = torch.Generator().manual_seed(params.seed)
        *_, last = train_and_evaluate(params, data, generator=generator)
        print(json.dumps({"trial": trial, **report_to_row(last.report, dataset.wafers.classes)}))
    return 0
