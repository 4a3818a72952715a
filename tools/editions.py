"""Two more editions of the book: one to fill in, one to teach from.

Each exercise of a chapter has a code cell tagged ``solution`` and, after it, one tagged ``check``.
The students' edition has an empty function in the place of each solution; the instructors' edition
shows the solutions unfolded. ``python -m tools.editions student`` writes and builds the first in
``_build/student``, ``instructor`` the second in ``_build/instructor``; with ``--no-build`` it only
writes the notebooks, which takes a second.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from helpers import in_words
from tools import speak_to_any_console

BOOK = Path(__file__).resolve().parents[1]
#: What the book is made of, and what installs it.
PARTS = (
    "_config.yml _toc.yml _ext _static _templates chapters helpers tools data/README.md "
    "requirements.txt pyproject.toml README.md LICENSE tests/benchmarks/results"
).split()


def stub(solution: str) -> str:
    """Empty the functions of a solution: what is left is where a student begins.

    Parameters
    ----------
    solution : str
        Python source: imports, and functions with docstrings, below a line ``# Solution``, which
        is what Jupyter shows of a folded cell.

    Returns
    -------
    str
        The same imports, signatures and docstrings; ``...`` in place of each body.

    Raises
    ------
    ValueError
        For anything but imports and functions, or a function without a docstring.

    Examples
    --------
    >>> print(stub('def double(x):\\n    "Twice x."\\n    return 2 * x'))
    def double(x):
        "Twice x."
        ...
    """
    solution = solution.removeprefix("# Solution\n")
    lines = solution.splitlines()
    for node in reversed(ast.parse(solution).body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if not isinstance(node, ast.FunctionDef):
            raise ValueError(
                f"a solution holds imports and functions only, found {ast.unparse(node)!r}"
            )
        if ast.get_docstring(node) is None:
            raise ValueError(f"the function {node.name} must have a docstring, found none")
        lines[node.body[0].end_lineno : node.end_lineno] = ["    ..."]
    return "\n".join(lines)


def student(notebook: NotebookNode) -> NotebookNode:
    """Put a stub in the place of each solution.

    Parameters
    ----------
    notebook : NotebookNode
        A chapter.

    Returns
    -------
    NotebookNode
        A copy without solutions and remarks on them. Stubs and checks are in plain sight, and are
        not executed when the book is built, since a stub fails its check.

    Examples
    --------
    >>> from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
    >>> start, end = (new_markdown_cell(f"```{{solution-{at}}}\\n```") for at in ("start", "end"))
    >>> solution = new_code_cell('def double(x):\\n    "Twice x."\\n    return 2 * x')
    >>> solution.metadata.tags = ["solution"]
    >>> [cell.source for cell in student(new_notebook(cells=[start, solution, end])).cells]
    ['def double(x):\\n    "Twice x."\\n    ...']
    """
    notebook = _without_outputs(notebook)
    cells, in_solution = [], False
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        in_solution |= "{solution-start}" in cell.source
        if "solution" in tags:
            cell.source = stub(cell.source)
            cell.metadata = {"tags": ["stub", "skip-execution"]}
        elif "check" in tags:
            cell.metadata = {"tags": ["check", "skip-execution"]}
        if cell.cell_type == "code" or not in_solution:
            cells.append(cell)
        in_solution &= "{solution-end}" not in cell.source
    notebook.cells = cells
    return notebook


def instructor(notebook: NotebookNode) -> NotebookNode:
    """Unfold the solutions, on the page and in Jupyter.

    Parameters
    ----------
    notebook : NotebookNode
        A chapter.

    Returns
    -------
    NotebookNode
        A copy in which no solution is a drop-down.

    Examples
    --------
    >>> from nbformat.v4 import new_markdown_cell, new_notebook
    >>> start = new_markdown_cell("```{solution-start} ex-double\\n:class: dropdown\\n```")
    >>> print(instructor(new_notebook(cells=[start])).cells[0].source)
    ```{solution-start} ex-double
    ```
    """
    notebook = _without_outputs(notebook)
    for cell in notebook.cells:
        if "{solution-start}" in cell.source:
            cell.source = cell.source.replace("\n:class: dropdown", "")
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata.pop("jupyter", None)
    return notebook


EDITIONS: dict[str, Callable[[NotebookNode], NotebookNode]] = {
    "student": student,
    "instructor": instructor,
}


def write(edition: str, folder: Path) -> Path:
    """Write the sources of an edition: a complete book, to build, run or hand out.

    Parameters
    ----------
    edition : {"student", "instructor"}
        Which one.
    folder : Path
        Where to put it. What was written there before is replaced, and only that: a build kept
        beside it stays, and what somebody has worked in, or put beside the chapters, or what cannot
        be read, is moved to a folder ``kept-1`` (or the next number that is free). Its pages have
        no buttons that open a notebook elsewhere: what lies at the book's address is the book, with
        its solutions.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ExceptionGroup
        Some chapters of the book could not be changed into this edition, and are left out of it.
        All others are written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     sorted(path.name for path in write("student", Path(folder)).glob("_*"))
    ['_config.yml', '_ext', '_static', '_templates', '_toc.yml']
    """
    change = EDITIONS[edition]
    _keep_work(folder, change)
    for part in PARTS:
        source, target = BOOK / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            unwanted = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, target, ignore=unwanted)
        else:
            shutil.copy2(source, target)
    config = folder / "_config.yml"
    settings = re.sub(r"(?m)^  url: \S+", '  url: ""', config.read_text(encoding="utf-8"))
    config.write_text(settings, encoding="utf-8")
    errors = {}
    for path in sorted((folder / "chapters").glob("*.ipynb")):
        try:
            chapter = change(nbformat.read(path, 4))
        except Exception as error:  # whatever it is, it must not cost the other chapters theirs
            # As it is it might give its solutions away.
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            errors[BOOK / "chapters" / path.name] = error
            continue
        nbformat.write(chapter, path)
    if errors:
        listed = "\n".join(f"{path}: {in_words(error)}" for path, error in errors.items())
        raise ExceptionGroup(f"chapters left out: {len(errors)}\n{listed}\n", [*errors.values()])
    return folder


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Copy a notebook; who has worked in it may have saved what it printed."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _keep_work(folder: Path, change: Callable[[NotebookNode], NotebookNode]) -> None:
    chapters = folder / "chapters"
    for path in sorted(chapters.rglob("*")):
        inside = path.relative_to(chapters)
        hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
        if hidden or (path.is_dir() and path.suffix != ".ipynb") or not path.exists():
            continue
        said = _something_else(path, BOOK / "chapters" / inside, change)
        if said:
            numbered = (folder / f"kept-{n}" / inside for n in count(1))
            kept = next(path for path in numbered if not os.path.lexists(path))
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.rename(kept)
            print(f"{path} {said}; it is kept as {kept}")


def _something_else(path: Path, chapter: Path, change: Callable) -> str:
    """Say what is in an edition's file that was not written there; nothing if nothing is."""
    if path.suffix != ".ipynb":
        same = chapter.is_file() and path.read_bytes() == chapter.read_bytes()
        return "" if same else "said something else"
    try:
        cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
        found = ["".join(cell["source"]) for cell in cells]
    except Exception as error:  # what cannot be read is somebody's work
        return f"cannot be read as a notebook ({in_words(error)})"
    try:
        new = [cell.source for cell in change(nbformat.read(chapter, 4)).cells]
    except Exception:  # there is none, or it is damaged, which is told when it is written
        new = []
    return "" if found == new else "said something else"


def main(arguments: list[str] | None = None) -> int:
    """Write an edition into ``_build``, build it, and return jupyter-book's exit status.

    It is 1 where a chapter was left out.
    """
    speak_to_any_console()
    parser = argparse.ArgumentParser(prog="python -m tools.editions", description=__doc__)
    parser.add_argument("edition", choices=EDITIONS)
    parser.add_argument("--no-build", action="store_true", help="write the notebooks only")
    chosen = parser.parse_args(arguments)
    folder, lost = BOOK / "_build" / chosen.edition, 0
    try:
        folder = write(chosen.edition, folder)
    except ExceptionGroup as errors:
        print(errors.message)
        lost = 1
    if chosen.no_build:
        print(f"Written: {folder / 'chapters'}")
        return lost
    return subprocess.run(["jupyter-book", "build", folder]).returncode or lost


if __name__ == "__main__":
    sys.exit(main())
