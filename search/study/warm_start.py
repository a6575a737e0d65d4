"""What an earlier study knows, handed to a new one: first points, and where both are alike, prior observations."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search.errors import ConfigError
from search.space.config import StudyConfig
from search.space.floors import find_shortfalls
from search.space.space import Config, Space
from search.space.strict_yaml import read_yaml
from search.study.finding import find_study
from search.study.records import StudyFolder, read_json, read_lines, write_json
from search.study.rows import COMPLETE, FAILED, RUNNING, TrialRecord, collect_rows

_BEST = 5  # trials of an earlier study that are tried first
# What must be equal for the result of a trial to be that of the same trial in the other study.
_ALIKE = ("data", "space", "objective", "forbid", "constraints")


def write_warm_start(
    folder: StudyFolder, asked: Iterable[str], config: StudyConfig, data: Mapping[str, Any], *, results: Path
) -> list[str]:
    """Note in a study's folder what it may learn from earlier ones; needs the folder's lock.

    Args:
        folder: Of the new study.
        asked: Names or folders of the earlier ones.
        config: Of the new study.
        data: Of the new study, from `describe_data`.
        results: Folder of all studies.

    Returns:
        What was taken from each, for people; nothing if it has learned from just these before.

    Raises:
        ConfigError: If there is no such study, it is the new one itself, or the new one has learned from others.
    """
    if folder.warm_start.exists():
        known = [study["study"] for study in read_json(folder.warm_start)]
        if known == [find_study(name, results=results).name for name in asked]:
            return []
        names = ", ".join(known)
        raise ConfigError(f"--warm-start: {folder.path} has learned from {names} already, and keeps it; leave it out")
    taken, said = [], []
    for name in asked:
        earlier = find_study(name, results=results)
        if earlier.path == folder.path:
            raise ConfigError(f"--warm-start {name}: is this study itself; it goes on from its own trials anyway")
        records = collect_rows(list(read_lines(earlier.trials))).values()
        is_alike = _is_alike(earlier, config, data)
        points = list(_find_points(earlier.name, records, config.space))
        told = [record for record in records if is_alike and record.status not in (RUNNING, FAILED)]
        known = [_to_tree(record, config, data["classes"]) for record in told]
        taken.append({"study": earlier.name, "points": points, "known": known})
        what = f"{len(known)} results" if is_alike else "no results (its data, space or objective differ)"
        said.append(f"warm start from {earlier.path}: {len(points)} first points, {what}")
    write_json(folder.warm_start, taken)
    return said


def read_warm_start(
    folder: StudyFolder,
) -> tuple[list[tuple[str, Config]], list[tuple[TrialRecord, Mapping[str, float]]]]:
    """Read what a study was handed; nothing without a warm start.

    Returns:
        First points with their names; earlier trials, numbered below 0, each with what it misses of every floor.
    """
    taken = read_json(folder.warm_start) if folder.warm_start.exists() else []
    points = [(point["name"], point["values"]) for study in taken for point in study["points"]]
    known = [tree for study in taken for tree in study["known"]]
    records = [TrialRecord(number=-n, **tree["record"]) for n, tree in enumerate(known, start=1)]
    return points, list(zip(records, [tree["missing"] for tree in known], strict=True))


def _is_alike(earlier: StudyFolder, config: StudyConfig, data: Mapping[str, Any]) -> bool:
    before, now = read_yaml(earlier.resolved)[0], config.to_tree()
    before["data"] = {**before["data"], "wafers": now["data"]["wafers"]}  # the same wafers may lie elsewhere
    same_wafers = all(
        read_json(earlier.provenance)["data"][key] == data[key] for key in ("fingerprint", "split_fingerprint")
    )
    return same_wafers and all(before.get(key) == now[key] for key in _ALIKE)


def _find_points(study: str, records: Iterable[TrialRecord], space: Space) -> Iterable[dict[str, Any]]:
    """Go through the best trials that ran to their end, as far as the new space holds all that it searches of them."""
    searched = space.parameters()
    complete = [record for record in records if record.status == COMPLETE]
    found = 0
    for record in sorted(complete, key=lambda record: record.standing, reverse=True):
        values = {name: value for name, value in record.config.items() if name in searched}
        if found < _BEST and values and all(space.contains(name, value) for name, value in values.items()):
            found += 1
            yield {"name": f"{study}/{record.number}", "values": values}


def _to_tree(record: TrialRecord, config: StudyConfig, classes: list[str]) -> dict[str, Any]:
    """Write what a sampler learns from."""
    names = ("config", "epochs", "status", "reason", "values", "shortfalls")
    missing = find_shortfalls(config.floors, record.scores, classes)
    return {"record": {name: getattr(record, name) for name in names}, "missing": missing}
