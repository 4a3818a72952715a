"""More editions of the book: to fill in, to teach from, to grade, and to learn by heart.

Each exercise of a chapter has a code cell tagged ``solution`` and, after it, one tagged ``check``.
The students' edition has an empty function in the place of each solution; the instructors' edition
shows the solutions unfolded, and has the pages of ``chapters/instructor``, which are in no other.
``python -m tools.editions student`` writes and builds the first in ``_build/student``,
``instructor`` the second in ``_build/instructor``; with ``--no-build`` it only writes the
notebooks, which takes a second.

``nbgrader`` writes the exercises as a course that nbgrader hands out and marks, into
``_build/nbgrader``. ``cards`` writes the terms of the glossary as flash-cards that Anki reads,
into ``_build/cards``.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from copy import deepcopy
from html import escape
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import nbformat
import yaml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.myst_role import myst_role_plugin
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers import hear, in_words, tell
from tools import speak_to_any_console
from tools.slides import make_folder

BOOK = Path(__file__).resolve().parents[1]
#: What the book is made of, and what installs it.
PARTS = (
    "_config.yml _toc.yml _ext _static _templates chapters helpers tools data/README.md "
    "requirements.txt pyproject.toml README.md LICENSE tests/benchmarks/results"
).split()
#: Where an edition remembers what was written there, so that what is only older is not kept.
RECORD = ".written.json"


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
    return _in_place_of_bodies(solution, lambda body: ["    ..."])


def _in_place_of_bodies(solution: str, change: Callable[[list[str]], list[str]]) -> str:
    """Put other lines in the place of each function's body, below its docstring."""
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
        body = slice(node.body[0].end_lineno, node.end_lineno)
        lines[body] = change(lines[body])
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
        beside it stays, and what somebody has worked in, or put among the files of the book, or
        what cannot be read, is moved to a folder ``kept-1`` (or the next number that is free). Its
        pages have no buttons that open a notebook elsewhere: what lies at the book's address is the
        book, with its solutions.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ExceptionGroup
        Some chapters of the book could not be changed into this edition, and are left out of it.
        All others are written.
    OSError
        The edition cannot be written there, and what was there is as it was.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     sorted(path.name for path in write("student", Path(folder)).glob("_*"))
    ['_config.yml', '_ext', '_static', '_templates', '_toc.yml']
    """
    make_folder(folder)
    with TemporaryDirectory(dir=folder, prefix=".new-") as new:
        errors = _write_new(edition, Path(new))
        _replace(folder, Path(new))
    _tell(errors)
    return folder


def _write_new(edition: str, folder: Path) -> dict[Path, Exception]:
    """Write an edition into an empty folder; return the chapters left out, each with its error."""
    change = EDITIONS[edition]
    for part in PARTS:
        source, target = BOOK / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=_not_copied)
        else:
            shutil.copy2(source, target)
    own = folder / "chapters" / "instructor"
    if edition != "instructor":
        shutil.rmtree(own, ignore_errors=True)
    elif pages := sorted(path.stem for path in own.glob("*.md")):
        toc = folder / "_toc.yml"
        told = yaml.safe_load(toc.read_text(encoding="utf-8"))
        files = [{"file": f"chapters/instructor/{page}"} for page in pages]
        told["parts"].append({"caption": "For instructors only", "chapters": files})
        toc.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    config = folder / "_config.yml"
    settings = re.sub(r"(?m)^  url: \S+", '  url: ""', config.read_text(encoding="utf-8"))
    config.write_text(settings, encoding="utf-8")
    errors = {}
    for path in sorted((folder / "chapters").glob("*.ipynb")):
        try:
            chapter = change(_read(path))
        except Exception as error:  # whatever it is, it must not cost the other chapters theirs
            # As it is it might give its solutions away.
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            errors[BOOK / "chapters" / path.name] = error
            continue
        nbformat.write(chapter, path)
    return errors


def _not_copied(folder: str, names: list[str]) -> set[str]:
    """What of a folder of the book is in no edition: it is hidden, or no file and no folder."""
    left_out = set(shutil.ignore_patterns("__pycache__", ".*")(folder, names))
    for name in sorted({*names} - left_out):
        path = Path(folder, name)
        # A link to a folder around itself has no end.
        around = path.is_dir() and Path(folder).resolve().is_relative_to(path.resolve())
        if around or not (path.is_dir() or path.is_file()):
            print(f"{path}: expected a file or a folder, found neither; it is left out")
            left_out.add(name)
    return left_out


def _read(path: Path) -> NotebookNode:
    """Read a chapter, or raise what says that it is damaged."""
    if not path.is_file():  # of a pipe one would wait for the other end, without end
        raise ValueError("expected a file, found none")
    notebook = nbformat.read(path, 4)
    for n, cell in enumerate(notebook.cells, 1):
        if not isinstance(cell.source, str):
            raise ValueError(f"expected text in cell {n}, found {cell.source!r}")
    return notebook


def _tell(errors: dict[Path, Exception]) -> None:
    """Raise what was caught, if anything was."""
    if errors:
        listed = "\n".join(f"{path}: {in_words(error)}" for path, error in errors.items())
        raise ExceptionGroup(f"chapters left out: {len(errors)}\n{listed}\n", [*errors.values()])


def _without_outputs(notebook: NotebookNode) -> NotebookNode:
    """Copy a notebook; who has worked in it may have saved what it printed."""
    notebook = deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _replace(folder: Path, new: Path) -> None:
    """Put a new edition in the place of an old one; what the old one did not have is kept."""
    files = (path for part in PARTS for path in _below(new / part, new))
    written = {path.relative_to(new).as_posix(): _fingerprint(path) for path in files}
    record = folder / RECORD
    known = {name: {mark} for name, mark in written.items()}
    for name, mark in _recorded(record).items():
        known.setdefault(name, set()).add(str(mark))
    # All of them are found before the first is moved: a checkpoint may be that of another one.
    work = {
        path: said
        for part in PARTS
        for path in _below(folder / part, folder, known)
        if (said := _something_else(path, path.relative_to(folder).as_posix(), known))
    }
    if os.path.lexists(record) and (said := _no_file(record)):
        work[record] = said
    for path, said in work.items():
        inside = path.relative_to(folder)
        in_chapters = inside.parts[0] == "chapters" and inside.parts[1:]
        _keep(path, folder, Path(*in_chapters) if in_chapters else inside, said)
    for part in PARTS:
        _make_way(folder, Path(part))
    for part in PARTS:
        target = folder / part
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new / part, target)
    _write_whole(record, json.dumps(written, indent=1).encode())


def _recorded(record: Path) -> dict[str, str]:
    """What an edition remembers of its files; nothing where that cannot be read."""
    if _no_file(record):
        return {}
    with suppress(OSError, ValueError):
        known = json.loads(record.read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _below(place: Path, root: Path, but: Container[str] = ()) -> Iterator[Path]:
    """All that is no folder at a place and below it; and what is one, and should be a file."""
    is_file = place.relative_to(root).as_posix() in but
    if place.is_dir() and not place.is_symlink() and not is_file:
        for path in sorted(place.iterdir()):
            yield from _below(path, root, but)
    elif os.path.lexists(place):
        yield place


def _something_else(path: Path, name: str, known: dict[str, set[str]]) -> str:
    """Say what is in an edition's file that was not written there; nothing if nothing is."""
    if said := _no_file(path):
        return said
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        return ""
    expected = known.get(name, set())
    if path.parent.name == ".ipynb_checkpoints":  # where Jupyter puts a copy of what it opens
        copied = path.parents[1] / f"{path.stem.removesuffix('-checkpoint')}{path.suffix}"
        expected = known.get(str(PurePosixPath(name).parents[1] / copied.name), set())
        if not _no_file(copied):
            expected = expected | {_fingerprint(copied)}
    try:
        if _fingerprint(path) in expected:
            return ""
        if path.suffix == ".ipynb":
            _cells(path)
    except Exception as error:  # what cannot be read is somebody's work
        kind = "a notebook" if path.suffix == ".ipynb" else "a file"
        return f"cannot be read as {kind} ({in_words(error)})"
    return "said something else" if expected else "is not of this edition"


def _no_file(path: Path) -> str:
    """Say what stands in the place of a file; nothing if it is one."""
    if path.is_symlink():
        return "is a link"
    if path.is_file():
        return ""
    return "is a folder" if path.is_dir() else "is no file"


def _fingerprint(path: Path) -> str:
    """What tells a file from another one: of a notebook what it says, and not what it printed."""
    try:
        content = _cells(path)
    except ValueError:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _cells(path: Path) -> bytes:
    """What the cells of a notebook say."""
    if path.suffix != ".ipynb":
        raise ValueError("expected a notebook, found another file")
    found = json.loads(path.read_text(encoding="utf-8"))
    try:
        cells = [
            [cell["cell_type"], "".join(cell["source"]), cell.get("attachments") or {}]
            for cell in found["cells"]
        ]
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"expected cells with a source, found {in_words(error)}") from None
    return json.dumps(cells, sort_keys=True).encode()


def _keep(path: Path, folder: Path, inside: Path, said: str) -> None:
    """Move what somebody has worked in out of the way, and say where to."""
    for n in count(1):
        kept = folder / f"kept-{n}" / inside
        with suppress(FileExistsError, NotADirectoryError):  # a file has the name of the folder
            kept.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(kept):
                break
    shutil.move(path, kept)
    print(f"{path} {said}; it is kept as {kept}")


def _make_way(folder: Path, inside: Path) -> None:
    """Keep what stands in the place of a folder that is to be written into."""
    for parent in reversed(inside.parents[:-1]):
        path = folder / parent
        if os.path.lexists(path) and not path.is_dir():
            _keep(path, folder, parent, "is no folder")


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and in the place of a link: not where that leads."""
    temporary = path.with_name(f"._{os.getpid()}_{path.name}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# --- exercises to be marked by nbgrader -----------------------------------------------------------

#: What an exercise is worth, by its level.
POINTS = {"Recall": 1, "Apply": 2, "Extend": 3}
#: What nbgrader is told: to leave the stubs of the book, and to be patient.
NBGRADER_CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "vae-medical-images"
c.ClearSolutions.code_stub = {"python": "..."}  # of which the checks say that it returns nothing
c.ExecutePreprocessor.timeout = 300  # seconds a cell
"""
_EXERCISE = re.compile(
    r"````\{exercise\} (?P<level>\w+), (?P<minutes>\d+) minutes: (?P<title>.+)\n"
    r":label: ex-(?P<name>\S+)\n\n(?P<asked>.+?)\n\n"
    r"```\{dropdown\} Hint\n(?P<hint>.+?)\n```\n````",
    flags=re.DOTALL,
)
_EQUATION = re.compile(r"```\{math\}\n:label: (\S+)\n(.+?)\n```", flags=re.DOTALL)
_ROLE = re.compile(r"\{(\w+)\}`([^`]+)`")


def graded(notebook: NotebookNode, equations: dict[str, str] | None = None) -> NotebookNode:
    r"""Make an assignment for nbgrader of the exercises of a chapter.

    Parameters
    ----------
    notebook : NotebookNode
        A chapter.
    equations : dict of str to str, optional
        The TeX of the equations that the exercises may refer to, by label.

    Returns
    -------
    NotebookNode
        The exercises and nothing else, since they need nothing else: marking them trains no
        network. Each is a statement (locked), the solution (whose bodies nbgrader takes out of what
        it hands out) and the check (locked, and worth the points of its level).

    Raises
    ------
    ValueError
        A solution or a check without a statement, or a statement that refers to what cannot be
        shown outside the book.

    Examples
    --------
    >>> from nbformat.v4 import new_code_cell
    >>> asked = "````{exercise} Apply, 5 minutes: twice\n:label: ex-twice\n\nDouble it.\n\n"
    >>> asked += "```{dropdown} Hint\nAdd.\n```\n````"
    >>> solution = new_code_cell('def double(x):\n    "Twice x."\n    return x + x')
    >>> check = new_code_cell("assert double(1) == 2")
    >>> solution.metadata.tags, check.metadata.tags = ["solution"], ["check"]
    >>> chapter = new_notebook(cells=[new_markdown_cell(asked), solution, check])
    >>> for cell in graded(chapter).cells[1:]:
    ...     print(cell.metadata.nbgrader.grade_id, cell.metadata.nbgrader.get("points"))
    twice-asked None
    twice None
    twice-check 2
    """
    title, cells, exercise = "", [], None
    for cell in _without_outputs(notebook).cells:
        tags = cell.metadata.get("tags", [])
        heading = re.search(r"^# (.+)", cell.source, flags=re.MULTILINE)
        if cell.cell_type == "markdown" and heading and not title:
            title = heading[1]
        if found := _EXERCISE.search(cell.source):
            exercise = found
            cell.source = _in_plain_markdown(exercise, equations or {})
            cells.append(_of_nbgrader(cell, f"{exercise['name']}-asked", locked=True))
        elif {"solution", "check"} & set(tags):
            if exercise is None:
                raise ValueError(f"expected an exercise before its {tags[0]}, found none")
            if "solution" in tags:
                cell.source = _in_place_of_bodies(
                    cell.source,
                    lambda body: ["    ### BEGIN SOLUTION", *body, "    ### END SOLUTION"],
                )
                cells.append(_of_nbgrader(cell, exercise["name"], solution=True))
            else:
                points = POINTS[exercise["level"]]
                name = f"{exercise['name']}-check"
                cells.append(_of_nbgrader(cell, name, grade=True, locked=True, points=points))
                exercise = None
    worth = sum(cell.metadata.nbgrader.get("points", 0) for cell in cells)
    told = (
        f"# Exercises: {title}\n\nWrite your lines in the place of each `...`, and run the cell "
        f"below, which says whether they are right.\nThere are {worth} points."
    )
    first = _of_nbgrader(new_markdown_cell(told, id="exercises"), "exercises", locked=True)
    kernel = {key: notebook.metadata[key] for key in ("kernelspec",) if key in notebook.metadata}
    return new_notebook(cells=[first, *cells], metadata=kernel)


def _of_nbgrader(cell: NotebookNode, name: str, **kind) -> NotebookNode:
    plain = {"grade": False, "solution": False, "locked": False, "task": False}
    told = {**plain, **kind, "grade_id": name, "schema_version": 3}
    cell.metadata = nbformat.from_dict({"nbgrader": told})
    return cell


def _in_plain_markdown(exercise: re.Match, equations: dict[str, str]) -> str:
    """The statement of an exercise as any notebook shows it, without Sphinx."""
    quoted = {}

    def in_words(role: re.Match) -> str:
        kind, label = role.groups()
        if kind == "eq" and label in equations:
            quoted[label] = equations[label]
            return f"equation ({label.removeprefix('eq-')})"
        if kind == "numref" and label.startswith("fig-"):
            return f"the chapter's figure *{label.removeprefix('fig-').replace('-', ' ')}*"
        if kind == "term":
            return label.split(" <")[0]
        raise ValueError(f"a statement outside the book cannot refer to {role[0]}")

    level, title, points = exercise["level"], exercise["title"], POINTS[exercise["level"]]
    asked, hint = (_ROLE.sub(in_words, exercise[part]) for part in ("asked", "hint"))
    asked = asked[:1].upper() + asked[1:]
    parts = [
        f"## {title[:1].upper() + title[1:]}",
        f"*{level}, {exercise['minutes']} minutes; {points} point{'s' * (points > 1)}*",
        asked,
    ]
    for label, tex in quoted.items():
        tex = tex.rstrip(" ,.\n")  # of the sentence that it stands in
        if r"\\" in tex and r"\begin" not in tex:
            tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
        parts.append(f"$$\n{tex}\n\\tag{{{label.removeprefix('eq-')}}}\n$$")
    parts.append(f"<details><summary>Hint</summary>\n\n{hint}\n\n</details>")
    return "\n\n".join(parts)


def write_course(folder: Path) -> Path:
    """Write the exercises of all chapters as a course of nbgrader's: one assignment a chapter.

    Parameters
    ----------
    folder : Path
        The course. What nbgrader keeps there stays. Of the assignments, one that somebody has
        changed is moved to a folder ``kept-1`` (or the next number that is free), and so is what
        stands in the place of one.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ExceptionGroup
        Some chapters cannot be made into assignments. All others are.
    """
    make_folder(folder)
    config = folder / "nbgrader_config.py"
    if not config.exists():  # a teacher's own is left alone
        if os.path.lexists(config):
            _keep(config, folder, Path(config.name), "is a link that leads nowhere")
        _write_whole(config, NBGRADER_CONFIG.encode())
    chapters, errors = {}, {}
    for path in sorted((BOOK / "chapters").glob("*.ipynb")):
        try:
            chapters[path] = _read(path)
        except Exception as error:  # whatever it is, it must not cost the other chapters theirs
            errors[path] = error
    equations = {
        label: tex
        for chapter in chapters.values()
        for cell in chapter.cells
        for label, tex in _EQUATION.findall(cell.source)
    }
    for path, chapter in chapters.items():
        try:
            assignment = graded(chapter, equations)
            if len(assignment.cells) > 1:  # there is more to hand in than the heading
                inside = Path("source") / path.stem / path.name
                _write_assignment(folder, inside, nbformat.writes(assignment).encode())
        except Exception as error:
            errors[path] = error
    _tell(errors)
    return folder


def _write_assignment(folder: Path, inside: Path, content: bytes) -> None:
    _make_way(folder, inside)
    target = folder / inside
    if os.path.lexists(target):
        odd = _no_file(target)
        if not odd and target.read_bytes() == content:
            return
        _keep(target, folder, inside, odd or "said something else")
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_whole(target, content)


# --- terms to be learned by heart -----------------------------------------------------------------


class Card(NamedTuple):
    """A term of the glossary: front and back of a flash-card in HTML, and the chapter it is of."""

    name: str
    front: str
    back: str
    tag: str


#: What Anki is told of the file, in the lines that begin it.
ANKI = ("#separator:Comma", "#html:true", "#guid column:1", "#tags column:4")
_GLOSSARY = re.compile(r"^(`{3,})\{glossary\}\n(.*?)^\1$", flags=re.DOTALL | re.MULTILINE)


def terms(glossary: str) -> list[tuple[list[str], str]]:
    r"""Read a glossary as Sphinx does.

    Parameters
    ----------
    glossary : str
        A page in Markdown with one or more ``{glossary}`` directives.

    Returns
    -------
    list of (list of str, str)
        The terms that share a definition, and the definition, both in Markdown.

    Examples
    --------
    >>> terms("```{glossary}\nNat\nnats\n  A unit.\n\n  Of information.\n```")
    [(['Nat', 'nats'], 'A unit.\n\nOf information.')]
    """
    found = []
    for _, body in _GLOSSARY.findall(glossary):
        names, lines = [], []
        for line in [*body.splitlines(), "end"]:
            if not line.strip() or line[0].isspace():
                lines += [line] if names else []
                continue
            if any(map(str.strip, lines)):
                found.append((names, textwrap.dedent("\n".join(lines)).strip()))
                names, lines = [], []
            names += [] if line.startswith(":") else [line.strip()]
    return found


def cards() -> list[Card]:
    """Make a flash-card of each term of the glossary.

    Returns
    -------
    list of Card
        In the order of the glossary. The tag is the first chapter that speaks of the term; its
        title ends the back. A term that no chapter speaks of has neither. A chapter that is
        damaged is told of, and left out.

    Raises
    ------
    ValueError
        The glossary is damaged or holds no term, or a definition holds what cannot be shown outside
        the book.
    """
    chapters, titles, labels, whole = {}, {}, {}, True
    for path in sorted((BOOK / "chapters").glob("[0-9][0-9]_*.ipynb")):
        number = path.stem[:2]
        try:
            prose = "\n".join(c.source for c in _read(path).cells if c.cell_type == "markdown")
            found = re.search(r"^(?:\((\S+)\)=\n)?# (.+)", prose, flags=re.MULTILINE)
            if found is None:
                raise ValueError("expected a title, found none")
        except Exception as error:  # whatever it is, it must not cost the terms of the others
            tell(f"{path}: this chapter is left out: {in_words(error)}")
            whole = False
            continue
        label, titles[number] = found.groups()
        labels[label] = f"Chapter {int(number)}"
        chapters[number] = prose
    show = _html(labels, None if whole else "another chapter")
    glossary = BOOK / "chapters" / "glossary.md"
    made = []
    for names, definition in terms(_read_glossary(glossary)):
        number = _first_of(names, chapters)
        try:
            back = show.render(definition).strip()
        except ValueError as error:
            raise ValueError(f"{glossary}: {names[0]!r}: {error}") from None
        if back.count("<p>") == 1 and back.startswith("<p>") and back.endswith("</p>"):
            back = back[3:-4]
        if number:
            title = show.renderInline(titles[number])
            back += f"<br><br><small>Chapter {int(number)}: {title}</small>"
        name = hashlib.sha256(f"vae-medical-images {names[0]}".encode()).hexdigest()[:12]
        front = "<br>".join(map(show.renderInline, names))
        made.append(Card(name, front, back, f"chapter-{number}" if number else ""))
    if not made:
        raise ValueError(f"{glossary}: expected terms in a {{glossary}}, found none")
    return made


def _read_glossary(path: Path) -> str:
    """The text of the glossary, or an error that names it."""
    if path.exists() and not path.is_file():  # of a pipe one would wait without end
        raise ValueError(f"{path}: expected a file, found something else")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, found other bytes: {error}") from None
    if mark := re.search(r"^(<{7}|>{7}) ", text, flags=re.MULTILINE):
        raise ValueError(f"{path}: expected one text, found the marks of a merge: {mark[0]}")
    return text


def _first_of(names: list[str], chapters: dict[str, str]) -> str | None:
    """The number of the first chapter that links to a term, or else has its words."""
    wanted = "|".join(re.escape(name) for name in names)
    for pattern in (rf"\{{term\}}`(?:[^`<]*<)?(?:{wanted})>?`", rf"(?<!\w)(?:{wanted})s?(?!\w)"):
        for number, prose in chapters.items():
            if re.search(pattern, prose, flags=re.IGNORECASE):
                return number
    return None


def _html(labels: dict[str, str], unknown: str | None) -> MarkdownIt:
    """What turns Markdown into the HTML that Anki shows, with its own marks around formulas.

    What is said of a chapter whose label is unknown may be given, where some cannot be read.
    """
    show = MarkdownIt("commonmark").use(dollarmath_plugin).use(myst_role_plugin)

    def formula(renderer, tokens, i, options, env):
        return rf"\({escape(tokens[i].content.strip(), quote=False)}\)"

    def display(renderer, tokens, i, options, env):
        return rf"\[{escape(tokens[i].content.strip(), quote=False)}\]"

    def role(renderer, tokens, i, options, env):
        name, text = tokens[i].meta["name"], tokens[i].content
        if name == "math":
            return rf"\({escape(text, quote=False)}\)"
        explicit = re.fullmatch(r"(.+?)\s*<[^<>]+>", text, flags=re.DOTALL)
        if explicit or name == "term":
            return escape(explicit[1] if explicit else text, quote=False)
        if name in ("numref", "ref") and (text in labels or (unknown and text[:3] == "ch-")):
            return labels.get(text, unknown)
        raise ValueError(f"a card cannot show {{{name}}}`{text}`")

    def fence(renderer, tokens, i, options, env):
        if tokens[i].info.strip() != "{math}":
            raise ValueError(f"a card cannot show a block of {tokens[i].info or 'code'}")
        lines = [line for line in tokens[i].content.splitlines() if not line.startswith(":")]
        return rf"\[{escape(' '.join(lines).strip(), quote=False)}\]"

    for rule, shown in {
        "math_inline": formula,
        "math_inline_double": display,
        "math_block": display,
        "myst_role": role,
        "fence": fence,
    }.items():
        show.add_render_rule(rule, shown)
    return show


def write_cards(folder: Path) -> Path:
    """Write the flash-cards as one file for Anki.

    Parameters
    ----------
    folder : Path
        Where to put it; it is made if it is missing.

    Returns
    -------
    Path
        A CSV file in UTF-8: name, front, back and tag of each card. The name is the same each time,
        so that Anki, given the file again, changes the cards it has and keeps what was learned.

    Raises
    ------
    OSError, ValueError
        No cards can be made or written; those of an earlier time stay.
    """
    file = io.StringIO(newline="")
    file.writelines(f"{line}\n" for line in ANKI)
    csv.writer(file, lineterminator="\n").writerows(cards())
    make_folder(folder)
    path = folder / "terms.csv"
    _write_whole(path, file.getvalue().encode())
    return path


def main(arguments: list[str] | None = None) -> int:
    """Write an edition into ``_build``, build it, and return jupyter-book's exit status.

    It is 1 where a chapter was left out, or nothing can be written. Of cards and of a course for
    nbgrader nothing is built.
    """
    speak_to_any_console()
    parser = argparse.ArgumentParser(prog="python -m tools.editions", description=__doc__)
    parser.add_argument("edition", choices=[*EDITIONS, "nbgrader", "cards"])
    parser.add_argument("--no-build", action="store_true", help="write the notebooks only")
    chosen = parser.parse_args(arguments)
    folder, lost = BOOK / "_build" / chosen.edition, 0
    try:
        if chosen.edition == "cards":
            path, left_out = hear(write_cards, folder)
            print(*left_out, f"Written: {path}; in Anki: File, Import", sep="\n")
            return int(bool(left_out))
        if chosen.edition == "nbgrader":
            folder = write_course(folder)
        else:
            folder = write(chosen.edition, folder)
    except ExceptionGroup as errors:
        print(errors.message)
        lost = 1
    except (OSError, ValueError) as error:
        print(in_words(error))
        return 1
    if chosen.edition == "nbgrader":
        print(f"Written: {folder}; in it: nbgrader generate_assignment NAME_OF_A_CHAPTER")
        return lost
    if chosen.no_build:
        print(f"Written: {folder / 'chapters'}")
        return lost
    return subprocess.run(["jupyter-book", "build", folder]).returncode or lost


if __name__ == "__main__":
    sys.exit(main())
