"""The import table of docs/architecture.md, executed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"data_pipeline", "models", "search"}
MAY_IMPORT = {"data_pipeline": set(), "models": set(), "search": {"data_pipeline", "models"}}
# Which rooms of search may be imported from which; a room may always import itself and search.errors.
ROOMS = {
    "trial": set(),
    "space": {"trial"},
    "study": {"trial", "space"},
    "views": {"trial", "space", "study"},
    "final": {"trial", "space", "study", "views"},
    "execution": {"trial", "space", "study", "views"},
}
OPTUNA = {f"search/study/{name}.py" for name in ("importance", "journal", "proposer", "samplers")}
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
COMMANDS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FILES
    if '\nif __name__ == "__main__":' in path.read_text("utf-8")
}


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_what_the_table_allows(path):
    package = path.relative_to(ROOT).parts[0]

    roots = {name.split(".")[0] for name in imports(path)}

    assert roots & OURS <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_ray_lives_in_one_room_and_optuna_in_the_study(path):
    where = path.relative_to(ROOT).as_posix()

    roots = {name.split(".")[0] for name in imports(path)}

    assert "ray" not in roots or where.startswith("search/execution/")
    assert "optuna" not in roots or where in OPTUNA


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "search").glob("*/**/*.py")),
    ids=lambda path: str(path.relative_to(ROOT / "search")),
)
def test_rooms_import_only_rooms_below_them(path):
    room = path.relative_to(ROOT / "search").parts[0]

    used = {name.split(".")[1] for name in imports(path) if name.startswith("search.")} - {room, "errors", "testing"}

    assert used <= ROOMS[room]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_imports_a_command(path):
    assert "search.run" in COMMANDS
    assert not imports(path) & COMMANDS


def test_no_file_is_too_long_to_read():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in FILES}

    assert {name: n for name, n in lengths.items() if n > 450} == {}
