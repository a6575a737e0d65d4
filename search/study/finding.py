"""Finding a study by what the user calls it."""

from pathlib import Path

from search.errors import ConfigError
from search.space.config_file import is_study_name
from search.study.mirror import fetch
from search.study.places import check_address, is_address
from search.study.records import RESULTS, StudyFolder, read_json


def locate_study(results: str, name: str) -> StudyFolder:
    """Say where a study lies, or will lie.

    Args:
        results: Folder of all studies; or the address of a store, of which the study's folder below `results/` here is
            the original and the store has the copy.
        name: Of the study.

    Raises:
        ConfigError: If a store cannot be opened.
    """
    if not is_address(results):
        return StudyFolder((Path(results) / name).resolve())
    return StudyFolder((RESULTS / name).resolve(), f"{check_address(results, option='--results')}/{name}")


def find_study(asked: str, *, results: Path = RESULTS) -> StudyFolder:
    """Find a study by its folder, by its name below `results`, or by the address of its copy, which is fetched.

    Raises:
        ConfigError: If there is none; with those that there are.
    """
    if is_address(asked):
        return _fetch_study(check_address(asked, option="study"), results)
    for path in (Path(asked), results / asked):
        if StudyFolder(path).provenance.is_file():
            return StudyFolder(path.resolve(), read_json(path / "provenance.json").get("copy", ""))
    known = sorted(str(path.parent) for path in results.glob("*/provenance.json"))
    raise ConfigError(f"{asked}: no study there; known: {', '.join(known) or f'none in {results}/'}")


def _fetch_study(address: str, results: Path) -> StudyFolder:
    name = address.rpartition("/")[2]
    if not is_study_name(name):  # a store may hold any name, this disk may not
        raise ConfigError(f"{address}: must end in the name of a study")
    folder = StudyFolder((results / name).resolve(), address)
    fetch(folder)
    if not folder.provenance.is_file():
        raise ConfigError(f"{address}: no study there")
    return folder
