"""What `search.confirm` makes of a study's own `confirm` section and its options."""

from io import StringIO

import pytest
from rich.console import Console

from search.errors import ConfigError
from search.execution import confirming
from search.execution.confirming import ConfirmRequest, confirm
from search.execution.search import Request, prepare, skip_vain_confirmation
from search.space.config import ConfirmConfig
from search.space.config_file import load_study_config
from search.study import confirmation
from search.study.confirmation import fit_to_lots
from search.study.data import open_data
from search.study.provenance import describe_data, record_attempt
from search.study.records import StudyFolder

SPACE = """
name: tiny
data: {wafers: synthetic, synthetic_wafers: 600, image_size: 16, epoch_samples: 256}
space: {epochs: [2, 3]}
search: {trials: 2, stop: none}
"""


@pytest.fixture
def wanted(tmp_path, monkeypatch):
    """Ask for a confirmation; return what would be trained."""

    def ask(section, **overrides):
        path = tmp_path / "tiny.yaml"
        path.write_text(SPACE + section, "utf-8")
        config, results = load_study_config(path), tmp_path / "results"
        dataset = open_data(config.data, results=results)
        folder = StudyFolder(results / "tiny")
        record_attempt(folder, config, describe_data(dataset), space_text=path.read_text("utf-8"), device="none")
        asked = []
        monkeypatch.setattr(
            confirming, "confirm_study", lambda request, config, *rest, **more: asked.append(config.confirm) or 0
        )
        assert confirm(ConfirmRequest(study=folder, results=results, overrides=overrides), Console(quiet=True)) == 0
        return asked[0] and asked[0].model_dump()

    return ask


def test_a_single_validation_lot_is_said_before_anything_is_trained(wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(confirmation, "has_lots", lambda dataset: False)
    path = tmp_path / "tiny.yaml"
    path.write_text(f"{SPACE}confirm: {{seeds: 2}}", "utf-8")
    asked = dict.fromkeys(("study", "address"))
    found = prepare(
        Request(space=str(path), overrides={}, results=str(tmp_path), warm_start=(), dashboard=False, **asked)
    )
    said = StringIO()

    skipped = skip_vain_confirmation(found, Console(file=said, width=200))

    assert skipped.config.confirm is None
    assert "nothing will be confirmed: the validation wafers are of a single lot" in said.getvalue()
    assert skipped.noted.confirm.seeds == 2
    with pytest.raises(ConfigError, match="of a single lot"):
        fit_to_lots(found.dataset, found.config.confirm)
    assert fit_to_lots(found.dataset, ConfirmConfig(seeds=2, folds=2)) == ConfirmConfig(seeds=0, folds=2)


@pytest.mark.parametrize(
    ("section", "overrides", "expected"),
    [
        ("confirm: {top: 5, seeds: 2}", {}, {"top": 5, "seeds": 2, "folds": 0}),
        ("confirm: {top: 5, seeds: 2}", {"folds": 3}, {"top": 5, "seeds": 2, "folds": 3}),
        ("", {"seeds": 4}, {"top": 3, "seeds": 4, "folds": 0}),
        ("", {}, None),
    ],
)
def test_options_change_what_they_name_and_leave_the_rest_of_the_section(wanted, section, overrides, expected):
    assert wanted(section, **overrides) == expected
