"""The rules of the house: who imports whom, where a test stands, and how long a cell may be."""

import ast
import statistics
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[2]
ROOMS = ("helpers", "tools", "_ext")
CHAPTERS = sorted((BOOK / "chapters").glob("*.ipynb"))
HIDDEN = {"remove-cell", "remove-input", "hide-cell", "hide-input"}


def modules(room):
    return {path.stem: path for path in sorted((BOOK / room).glob("*.py"))}


def imported(source):
    """What a piece of code imports, as dotted names: ``helpers.vae``, and ``helpers`` with it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = "helpers" if node.level else None  # ``from .scans import`` within helpers
            base = ".".join(filter(None, (package, node.module)))
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def helpers_in(source):
    """The files of helpers that a piece of code imports."""
    names = {name.split(".")[1] for name in imported(source) if name.startswith("helpers.")}
    return names & set(modules("helpers"))


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


ARROWS = {
    name: helpers_in(path.read_text(encoding="utf-8")) - {name}
    for name, path in modules("helpers").items()
}


def test_the_rules_see_what_they_judge():
    assert "scans" in ARROWS["cohort"] and "vae" in ARROWS["batches"]
    assert "scans" in ARROWS["phantom"]
    assert helpers_in("from helpers import plots, vae") == {"plots", "vae"}
    assert helpers_in("def f():\n    import helpers.vae as v") == {"vae"}


def test_helpers_import_neither_tools_nor_what_sphinx_loads():
    others = {*modules("_ext"), "tools", "_ext", "chapters", "tests"}
    for name, path in modules("helpers").items():
        roots = {found.split(".")[0] for found in imported(path.read_text(encoding="utf-8"))}
        assert not roots & others, name


def test_tools_and_extensions_do_not_import_each_other():
    for room, other in (("tools", {"_ext", *modules("_ext")}), ("_ext", {"tools"})):
        for name, path in modules(room).items():
            roots = {found.split(".")[0] for found in imported(path.read_text(encoding="utf-8"))}
            assert not roots & other, name


def test_helpers_import_in_no_circle():
    assert set(TopologicalSorter(ARROWS).static_order()) == set(ARROWS)


def test_every_helper_is_reached_from_a_chapter():
    reached = set()
    for path in CHAPTERS:
        for cell in code_cells(path):
            lines = [line for line in cell.source.splitlines() if line.lstrip()[:1] not in "%!"]
            reached |= helpers_in("\n".join(lines))
    waiting = list(reached)
    while waiting:
        new = ARROWS[waiting.pop()] - reached
        reached |= new
        waiting += new
    assert reached | {"__init__"} == set(ARROWS)


def test_helpers_stay_few_and_flat():
    found = [path for path in (BOOK / "helpers").iterdir() if path.name != "__pycache__"]
    assert all(path.suffix == ".py" for path in found)
    assert len(found) <= 18


@pytest.mark.parametrize("room", ["helpers", "tools"])
def test_each_file_has_its_test_and_each_test_its_file(room):
    tests = {path.stem.removeprefix("test_") for path in (BOOK / "tests" / room).glob("*.py")}
    files = set(modules(room)) - {"__init__"}
    assert files <= tests
    assert tests - files <= {"init"}, "a test stands beside what it tests"


def test_each_extension_has_its_test_among_those_of_the_book():
    tests = {path.stem.removeprefix("test_") for path in (BOOK / "tests" / "book").glob("*.py")}
    assert set(modules("_ext")) <= tests
    assert not list((BOOK / "tests").glob("test_*.py")), "a test stands in one of the rooms"


def visible(path):
    """How many lines each cell has that a reader sees, up to the questions at the end."""
    lines = []
    for cell in nbformat.read(path, 4).cells:
        if cell.source.startswith("## Check yourself"):
            break
        if cell.cell_type == "code" and not HIDDEN & set(cell.metadata.get("tags", [])):
            lines.append(len(cell.source.splitlines()))
    return lines


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_code_is_read_without_scrolling(path):
    lines = visible(path)
    assert max(lines) <= 20 and statistics.median_low(lines) <= 9, sorted(lines)
