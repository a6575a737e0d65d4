"""What the documents say is what the code does."""

import re
from pathlib import Path

import pytest

from search.space.reference import write_reference

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_key_reference_is_written_from_the_models():
    written = (ROOT / "docs" / "configuration.md").read_text("utf-8")

    assert written == write_reference(), "run `python -m search.space.reference`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text("utf-8"))

    missing = [link for link in links if not (document.parent / link).exists()]

    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_the_documents_are_there(document):
    modules = set(re.findall(r"python -m ((?:search|data_pipeline|benchmarks)[\w.]*\w)", document.read_text("utf-8")))

    files = {name: ROOT.joinpath(*name.split(".")) for name in modules}
    missing = [name for name, path in files.items() if not (path.with_suffix(".py").is_file() or path.is_dir())]

    assert missing == []


def test_the_readme_names_every_folder():
    tree = (ROOT / "README.md").read_text("utf-8")
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    rooms = [path.parent for path in ROOT.glob("search/*/__init__.py")]

    missing = [folder.name for folder in [*packages, *rooms] if f"{folder.name}/" not in tree]

    assert missing == []


def test_nothing_committed_names_a_machine_or_a_registry():
    texts = {
        path.name: path.read_text("utf-8") for path in [ROOT / "constraints.txt", ROOT / "pyproject.toml", *DOCUMENTS]
    }

    offending = [name for name, text in texts.items() if re.search(r"/root/|/home/|file://|index-url|pypi\.org", text)]

    assert offending == []
