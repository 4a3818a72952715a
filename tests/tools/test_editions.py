"""What a student gets, and what a teacher gets, made from the real chapters."""

import ast
import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
import yaml
from conftest import missing

from helpers.phantom import write_cohort
from tools import editions

CHAPTERS = sorted((editions.BOOK / "chapters").glob("*.ipynb"))
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def functions(source):
    """Signature, docstring and number of statements of each function."""
    return [
        (ast.unparse(node.args), node.name, ast.get_docstring(node), len(node.body))
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    ]


@each_chapter
def test_a_stub_keeps_everything_but_the_body(path):
    for cell in tagged(nbformat.read(path, 4), "solution"):
        empty = editions.stub(cell.source)
        whole = functions(cell.source)
        assert functions(empty) == [(*known, 2) for *known, _ in whole]
        assert empty.count("    ...") == len(whole)
        imports = [line for line in cell.source.splitlines() if line.startswith(("import", "from"))]
        assert [line for line in empty.splitlines() if line in imports] == imports


def test_what_cannot_be_emptied_is_refused():
    with pytest.raises(ValueError, match="imports and functions only, found 'x = 1'"):
        editions.stub("x = 1")
    with pytest.raises(ValueError, match="double must have a docstring"):
        editions.stub("def double(x):\n    return 2 * x")


@each_chapter
def test_a_student_finds_no_solution(path):
    book = nbformat.read(path, 4)
    handed_out = editions.student(book)
    nbformat.validate(handed_out)
    text = "\n".join(cell.source for cell in handed_out.cells)
    assert "{solution-" not in text and not tagged(handed_out, "solution")
    assert [cell.source for cell in tagged(handed_out, "stub")] == [
        editions.stub(cell.source) for cell in tagged(book, "solution")
    ]
    # A stub fails its check, so neither is executed when the book is built.
    for cell in tagged(handed_out, "stub") + tagged(handed_out, "check"):
        assert cell.metadata == {"tags": [cell.metadata["tags"][0], "skip-execution"]}


@each_chapter
def test_all_else_of_a_chapter_stays(path):
    book = nbformat.read(path, 4)
    handed_out = {cell.id: cell for cell in editions.student(book).cells}
    for cell in book.cells:
        if "{solution-" in cell.source:
            assert cell.id not in handed_out
        elif not {"solution", "check"} & set(cell.metadata.get("tags", [])):
            assert handed_out.pop(cell.id) == cell
    assert {cell.metadata["tags"][0] for cell in handed_out.values()} == {"stub", "check"}


@each_chapter
def test_a_teacher_sees_every_solution_at_once(path):
    book, taught = nbformat.read(path, 4), editions.instructor(nbformat.read(path, 4))
    nbformat.validate(taught)
    starts = [cell.source for cell in taught.cells if "{solution-start}" in cell.source]
    assert len(starts) == len(tagged(taught, "solution")) > 0
    assert not any("dropdown" in start for start in starts)
    assert not any("jupyter" in cell.metadata for cell in tagged(taught, "solution"))
    assert [cell.source for cell in tagged(taught, "solution")] == [
        cell.source for cell in tagged(book, "solution")
    ]


def test_an_edition_is_a_complete_book(tmp_path):
    folder = editions.write("student", tmp_path / "student")
    toc = yaml.safe_load((folder / "_toc.yml").read_text(encoding="utf-8"))
    pages = [toc["root"]] + [page["file"] for part in toc["parts"] for page in part["chapters"]]
    for page in pages:
        assert any((folder / page).with_suffix(end).exists() for end in (".md", ".ipynb")), page
    for helper in (editions.BOOK / "helpers").glob("*.py"):
        assert (folder / "helpers" / helper.name).read_bytes() == helper.read_bytes()
    assert (folder / "requirements.txt").exists()
    built_from = {path.name for path in editions.BOOK.glob("_*")} - {"_build"}
    assert built_from == {path.name for path in folder.glob("_*")}
    # Where the chapter on one's own scans finds what was measured.
    assert (folder / "tests" / "benchmarks" / "results" / "scaling.json").exists()
    assert not list(folder.rglob("__pycache__"))
    first = sorted((folder / "chapters").glob("*.ipynb"))[0]
    assert first.read_text(encoding="utf-8").count("skip-execution") > 0


def test_an_edition_does_not_lead_to_the_book_with_its_solutions(tmp_path, monkeypatch):
    book = editions.write("student", tmp_path / "book")
    config = (book / "_config.yml").read_text(encoding="utf-8")
    published = config.replace('  url: ""', '  url: "https://github.com/someone/a-book"')
    assert published != config
    (book / "_config.yml").write_text(published, encoding="utf-8")
    monkeypatch.setattr(editions, "BOOK", book)
    folder = editions.write("student", tmp_path / "student")
    assert (folder / "_config.yml").read_text(encoding="utf-8") == config


def test_writing_again_leaves_no_chapter_behind_that_is_gone(tmp_path):
    editions.write("instructor", tmp_path)
    (tmp_path / "chapters" / "99_gone.ipynb").write_text("{}")
    (tmp_path / "_build").mkdir()
    editions.write("instructor", tmp_path)
    assert not (tmp_path / "chapters" / "99_gone.ipynb").exists()
    assert (tmp_path / "_build").exists()


def test_an_edition_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        editions.main(["pocket"])
    assert "invalid choice: 'pocket'" in capsys.readouterr().err


def test_writing_again_keeps_what_a_student_has_written(tmp_path, capsys):
    chapters = editions.write("student", tmp_path) / "chapters"
    mine = sorted(chapters.glob("*.ipynb"))[0]
    for answer in ("first", "second"):
        notebook = nbformat.read(mine, 4)
        tagged(notebook, "stub")[0].source = answer
        nbformat.write(notebook, mine)
        editions.write("student", tmp_path)
        assert answer not in [cell.source for cell in nbformat.read(mine, 4).cells]
    kept = sorted(tmp_path.glob("kept-*/*"))
    assert [path.relative_to(tmp_path).parts for path in kept] == [
        ("kept-1", mine.name),
        ("kept-2", mine.name),
    ]
    told = capsys.readouterr().out
    for path, answer in zip(kept, ("first", "second"), strict=True):
        assert tagged(nbformat.read(path, 4), "stub")[0].source == answer
        assert f"{mine} said something else; it is kept as {path}" in told


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The students' edition, whole."""
    return editions.write("student", tmp_path_factory.mktemp("written"))


@pytest.fixture
def edition(written, tmp_path):
    """The students' edition, to damage."""
    folder = tmp_path / "student"
    (folder / "chapters").mkdir(parents=True)
    for path in CHAPTERS[:3]:
        shutil.copy2(written / "chapters" / path.name, folder / "chapters" / path.name)
    return folder


MERGED = b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> theirs\n"
UNREADABLE = {
    "empty": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2],
    "merge marks": lambda content: MERGED.replace(b"{}", content),
    "a web page": lambda content: b"<!DOCTYPE html><html></html>",
    "Latin-1": lambda content: content.replace(b"import", "für".encode("latin-1")),
    "a byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "zeros": lambda content: bytes(99),
    "a list": lambda content: b"[1, 2]",
    "a number": lambda content: b"3",
    "cells that are none": lambda content: b'{"cells": ["x"]}',
    "no cells but null": lambda content: b'{"cells": null}',
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_somebody_s_work(edition, capsys, damage):
    mine = edition / "chapters" / CHAPTERS[1].name
    whole = mine.read_bytes()
    mine.write_bytes(damage(whole))
    editions.write("student", edition)
    kept = edition / "kept-1" / mine.name
    assert kept.read_bytes() == damage(whole)
    told = capsys.readouterr().out
    assert f"{mine} cannot be read as a notebook (" in told and f"it is kept as {kept}" in told
    assert [path.name for path in edition.glob("kept-*/*")] == [mine.name]  # of the others nothing
    assert mine.read_bytes() == whole
    assert len(list((edition / "chapters").glob("*.ipynb"))) == len(CHAPTERS)


@pytest.mark.parametrize(
    "name", ["notes.md", "my data.csv", "own/exercise.ipynb", "own/helper.py", "index.md"]
)
def test_what_a_student_put_beside_the_chapters_is_kept(edition, capsys, name):
    (edition / "chapters" / name).parent.mkdir(exist_ok=True)
    (edition / "chapters" / name).write_text("mine")
    checkpoint = edition / "chapters/.ipynb_checkpoints" / f"{CHAPTERS[0].stem}-checkpoint.ipynb"
    compiled = edition / "chapters" / "__pycache__" / "a.pyc"
    for unimportant in (checkpoint, compiled):
        unimportant.parent.mkdir()
        shutil.copy2(edition / "chapters" / CHAPTERS[0].name, unimportant)
    editions.write("student", edition)
    assert (edition / "kept-1" / name).read_text() == "mine"
    assert f"it is kept as {edition / 'kept-1' / name}" in capsys.readouterr().out
    assert [path for path in edition.glob("kept-*/**/*") if path.is_file()] == [
        edition / "kept-1" / name
    ]


def test_a_folder_named_like_a_notebook_is_kept_whole(edition):
    odd = edition / "chapters" / CHAPTERS[0].name
    odd.unlink()
    odd.mkdir()
    (odd / "inside.txt").write_text("mine")
    editions.write("student", edition)
    assert (edition / "kept-1" / odd.name / "inside.txt").read_text() == "mine"
    assert odd.is_file()


def test_writing_twice_moves_nothing(written, capsys):
    editions.write("student", written)
    assert not list(written.glob("kept-*")) and capsys.readouterr().out == ""


CHANGED = ("helpers/metrics.py", "_config.yml", "requirements.txt", "README.md", "data/README.md")
NEW = """helpers/mine.py _static/mine.png tools/mine.py chapters/.mine helpers/.env _ext/own/mine.py
chapters/.ipynb_checkpoints/mine.md chapters/instructor/mine.md helpers/__pycache__/mine.txt
tests/benchmarks/results/mine.json""".split()


@pytest.fixture
def whole_edition(written, tmp_path):
    """The students' edition with all its files, to work in."""
    return shutil.copytree(written, tmp_path / "student")


def kept_in(folder):
    kept = sorted(path for path in folder.glob("kept-*/**/*") if not path.is_dir())
    return [path.relative_to(folder).as_posix() for path in kept]


@pytest.mark.parametrize("name", [*CHANGED, *NEW])
def test_work_anywhere_in_an_edition_is_kept(whole_edition, capsys, name):
    mine = whole_edition / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine")
    editions.write("student", whole_edition)
    kept = whole_edition / "kept-1" / name.removeprefix("chapters/")
    assert kept.read_text() == "mine"
    assert kept_in(whole_edition) == [kept.relative_to(whole_edition).as_posix()]
    said = "said something else" if name in CHANGED else "is not of this edition"
    assert capsys.readouterr().out == f"{mine} {said}; it is kept as {kept}\n"
    assert mine.exists() == (name in CHANGED) and (not mine.exists() or mine.read_text() != "mine")


def test_what_is_only_older_is_no_work(whole_edition, tmp_path, monkeypatch, capsys):
    book = shutil.copytree(editions.BOOK / "chapters", tmp_path / "book" / "chapters").parent
    for part in ("helpers", "tools"):
        shutil.copytree(editions.BOOK / part, book / part)
    for part in ("_config.yml", "_toc.yml", "requirements.txt"):
        shutil.copy2(editions.BOOK / part, book / part)
    monkeypatch.setattr(editions, "BOOK", book)
    parts = ("_config.yml", "_toc.yml", "chapters", "helpers", "tools", "requirements.txt")
    monkeypatch.setattr(editions, "PARTS", parts)
    # The book goes on, with a chapter and a helper more and one less; somebody ran a chapter.
    chapters = [book / "chapters" / path.name for path in CHAPTERS]
    newer = nbformat.read(chapters[0], 4)
    newer.cells[0].source += " Newer."
    nbformat.write(newer, chapters[0])
    chapters[1].rename(book / "chapters" / "99_last.ipynb")
    (book / "helpers" / "metrics.py").rename(book / "helpers" / "measures.py")
    (book / "requirements.txt").write_text("newer\n")
    run = whole_edition / "chapters" / chapters[0].name
    notebook = nbformat.read(run, 4)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("stream", text="printed")]
    code.execution_count = 3
    nbformat.write(notebook, run)
    editions.write("student", whole_edition)
    assert not kept_in(whole_edition) and capsys.readouterr().out == ""
    assert "Newer." in run.read_text(encoding="utf-8") and "printed" not in run.read_text("utf-8")
    assert not (whole_edition / "helpers" / "metrics.py").exists()
    assert not (whole_edition / "chapters" / chapters[1].name).exists()


@pytest.mark.parametrize("record", ["none", "{", "[1]", "a folder", "a pipe"])
def test_without_a_record_what_is_written_now_is_no_work(whole_edition, record):
    path = whole_edition / editions.RECORD
    path.unlink()
    if record in ("{", "[1]"):
        path.write_text(record)
    elif record == "a folder":
        path.mkdir()
    elif record == "a pipe":
        os.mkfifo(path)
    (whole_edition / "helpers" / "metrics.py").write_text("older, or mine")
    editions.write("student", whole_edition)
    odd = [f"kept-1/{editions.RECORD}"] if record == "a pipe" else []
    assert kept_in(whole_edition) == [*odd, "kept-1/helpers/metrics.py"]
    assert "helpers/metrics.py" in json.loads(path.read_text())


def test_a_checkpoint_is_kept_only_if_it_is_of_no_notebook_there(whole_edition):
    mine = whole_edition / "chapters" / CHAPTERS[0].name
    checkpoints = mine.parent / ".ipynb_checkpoints"
    checkpoints.mkdir()
    notebook = nbformat.read(mine, 4)
    tagged(notebook, "stub")[0].source = "answer"
    nbformat.write(notebook, mine)
    shutil.copy2(mine, checkpoints / f"{mine.stem}-checkpoint.ipynb")  # of what is kept anyhow
    other = CHAPTERS[1]
    shutil.copy2(mine.parent / other.name, checkpoints / f"{other.stem}-checkpoint.ipynb")
    lost = checkpoints / f"{CHAPTERS[2].stem}-checkpoint.ipynb"
    nbformat.write(notebook, lost)
    editions.write("student", whole_edition)
    assert kept_in(whole_edition) == [
        f"kept-1/.ipynb_checkpoints/{lost.name}",
        f"kept-1/{mine.name}",
    ]


WITHOUT_CELLS = {
    "nbformat 3": {"nbformat": 3, "worksheets": [{"cells": [{"cell_type": "code", "input": "x"}]}]},
    "any object": {"answers": [1, 2]},
    "an empty object": {},
    "cells that are an object": {"cells": {}},
    "no cell": {"cells": []},
}


@pytest.mark.parametrize("content", WITHOUT_CELLS.values(), ids=WITHOUT_CELLS)
@pytest.mark.parametrize("name", ["mine.ipynb", CHAPTERS[0].name])
def test_a_notebook_without_cells_is_somebody_s_work(edition, content, name):
    (edition / "chapters" / name).write_text(json.dumps(content))
    editions.write("student", edition)
    assert json.loads((edition / "kept-1" / name).read_text()) == content
    assert kept_in(edition) == [f"kept-1/{name}"]


@pytest.mark.parametrize("change", ["a kind of cell", "an attachment", "a cell less", "an output"])
def test_what_a_notebook_says_is_work_and_what_it_printed_is_not(edition, change):
    mine = edition / "chapters" / CHAPTERS[0].name
    notebook = nbformat.read(mine, 4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if change == "a kind of cell":
        at = notebook.cells.index(cell)
        notebook.cells[at] = nbformat.v4.new_raw_cell(cell.source)
    elif change == "an attachment":
        notebook.cells[0].attachments = {"mine.png": {"image/png": "AAAA"}}
    elif change == "a cell less":
        notebook.cells.pop()
    else:
        cell.outputs = [nbformat.v4.new_output("stream", text="printed")]
    nbformat.write(notebook, mine)
    editions.write("student", edition)
    assert kept_in(edition) == ([] if change == "an output" else [f"kept-1/{mine.name}"])


ODD = {
    "a link to a folder": lambda path, other: path.symlink_to(other),
    "a link to nothing": lambda path, other: path.symlink_to(other / "nothing"),
    "a link to itself": lambda path, other: path.symlink_to(path),
    "a file": lambda path, other: path.write_text("mine"),
    "a pipe": lambda path, other: os.mkfifo(path),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize(
    "name", ["chapters", "helpers", "chapters/mine", "chapters/mine.ipynb", "data", "README.md"]
)
def test_what_stands_in_the_place_of_an_edition_s_is_moved_aside(
    whole_edition, tmp_path, capsys, odd, name
):
    place, other = whole_edition / name, tmp_path / "other"
    other.mkdir()
    (other / "work.txt").write_text("mine")
    if place.exists():
        place.rename(tmp_path / "away")
    odd(place, other)
    linked = name == "data" and place.is_dir()  # where somebody has the data elsewhere
    editions.write("student", whole_edition)
    inside = name.removeprefix("chapters/")
    assert os.path.lexists(whole_edition / "kept-1" / inside) == (not linked)
    assert (f"it is kept as {whole_edition / 'kept-1' / inside}\n" in capsys.readouterr().out) == (
        not linked
    )
    assert [path.name for path in other.iterdir() if path.name != "README.md"] == ["work.txt"]
    assert (whole_edition / "chapters" / CHAPTERS[0].name).is_file()
    assert (whole_edition / "data" / "README.md").is_file()
    assert (whole_edition / "README.md").is_file()


def test_a_file_called_like_the_place_for_what_is_kept_stays(edition):
    (edition / "kept-1").write_text("mine")
    (edition / "kept-2").mkdir()
    (edition / "kept-2" / "own").write_text("mine, too")
    (edition / "chapters" / "own").mkdir()
    (edition / "chapters" / "own" / "notes.md").write_text("notes")
    editions.write("student", edition)
    assert (edition / "kept-1").read_text() == "mine"
    assert (edition / "kept-2" / "own").read_text() == "mine, too"
    assert (edition / "kept-3" / "own" / "notes.md").read_text() == "notes"


@pytest.mark.parametrize("edition_", ["student", "nbgrader", "cards"])
@pytest.mark.parametrize("where", ["_build", "_build/it"])
@pytest.mark.parametrize("odd", ["a file", "a link to itself", "a link to nothing"])
def test_a_file_where_the_folder_goes_is_refused(
    tmp_path, monkeypatch, capsys, edition_, where, odd
):
    shutil.copytree(editions.BOOK / "chapters", tmp_path / "chapters")
    monkeypatch.setattr(editions, "BOOK", tmp_path)
    monkeypatch.setattr(editions, "PARTS", ("chapters",))
    place = tmp_path / where.replace("it", edition_)
    place.parent.mkdir(exist_ok=True)
    ODD[odd](place, tmp_path)
    assert editions.main([edition_, "--no-build"]) == 1
    kind = "a file" if odd == "a file" else "something else"
    assert capsys.readouterr().out == f"{place}: expected a folder, found {kind}\n"
    assert odd != "a file" or place.read_text() == "mine"


def own_book(tmp_path, monkeypatch):
    """A copy of the chapters, to be spoilt, in the place of the book."""
    book = tmp_path / "book"
    shutil.copytree(editions.BOOK / "chapters", book / "chapters")
    for part in ("_config.yml", "_toc.yml"):
        shutil.copy2(editions.BOOK / part, book / part)
    monkeypatch.setattr(editions, "BOOK", book)
    monkeypatch.setattr(editions, "PARTS", ("_config.yml", "_toc.yml", "chapters"))
    return book


def test_what_is_no_file_in_the_book_is_left_out_of_an_edition(tmp_path, monkeypatch, capsys):
    book = own_book(tmp_path, monkeypatch)
    odd = {name: book / "chapters" / f"{n}_odd.ipynb" for n, name in enumerate(ODD)}
    for name in ("a link to nothing", "a link to itself", "a pipe"):
        ODD[name](odd[name], book)
    (book / "chapters" / "around").symlink_to(book)
    folder = editions.write("student", tmp_path / "student")
    told = capsys.readouterr().out.splitlines()
    left_out = [*(path for path in odd.values() if os.path.lexists(path))]
    assert sorted(told) == sorted(
        f"{path}: expected a file or a folder, found neither; it is left out"
        for path in [*left_out, book / "chapters" / "around"]
    )
    assert len(list((folder / "chapters").glob("*.ipynb"))) == len(CHAPTERS)


def test_a_book_that_cannot_be_copied_costs_an_edition_nothing(whole_edition, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in whole_edition.rglob("*")}
    (whole_edition / "helpers" / "mine.py").write_text("mine")
    monkeypatch.setattr(editions, "PARTS", (*editions.PARTS, "no-such-part"))
    with pytest.raises(FileNotFoundError, match="no-such-part"):
        editions.write("student", whole_edition)
    del before[whole_edition / "helpers"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (whole_edition / "helpers" / "mine.py").exists() and not kept_in(whole_edition)


def not_emptied(content):
    notebook = nbformat.reads(content.decode(), 4)
    tagged(notebook, "solution")[0].source = "# Solution\nx = 1"
    return nbformat.writes(notebook).encode()


LOST = {name: UNREADABLE[name] for name in ("empty", "merge marks", "Latin-1", "a list", "zeros")}
LOST["a solution that cannot be emptied"] = not_emptied


@pytest.mark.parametrize("damage", LOST.values(), ids=LOST)
def test_a_damaged_chapter_costs_that_chapter_alone(written, tmp_path, monkeypatch, capsys, damage):
    book = own_book(tmp_path, monkeypatch)
    lost = book / "chapters" / CHAPTERS[1].name
    lost.write_bytes(damage(lost.read_bytes()))
    for _ in range(2):  # also over an edition that is there
        assert editions.main(["student", "--no-build"]) == 1
    told = capsys.readouterr().out
    assert f"chapters left out: 1\n{lost}: " in told and "kept" not in told
    made = book / "_build" / "student" / "chapters"
    assert not (made / lost.name).exists()  # with its solutions, it might be
    for path in CHAPTERS:
        if path.name != lost.name:
            assert (made / path.name).read_bytes() == (
                written / "chapters" / path.name
            ).read_bytes()


@each_chapter
def test_what_a_teacher_s_notebook_printed_is_not_handed_out(path):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.v4.new_output("stream", text="Right: 0.9")]
            cell.execution_count = 7
    for change in editions.EDITIONS.values():
        for cell in change(notebook).cells:
            assert not cell.get("outputs") and not cell.get("execution_count")


def test_notebooks_alone_are_written_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(editions.subprocess, "run", lambda *_, **__: pytest.fail("built"))
    written = []
    monkeypatch.setattr(editions, "write", lambda *where: written.append(where) or tmp_path)
    assert editions.main(["student", "--no-build"]) == 0
    assert written == [("student", editions.BOOK / "_build" / "student")]
    assert str(tmp_path / "chapters") in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp850"])
def test_any_console_is_told_where_it_is_written(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(editions, "write", lambda *_: tmp_path / "数据")
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    assert editions.main(["student", "--no-build"]) == 0
    shown.flush()
    assert b"\\u6570\\u636e" in shown.buffer.getvalue()


# --- projects -------------------------------------------------------------------------------------

WORKED = editions.BOOK / "chapters" / "instructor" / "projects.md"
TITLE = "The three projects, worked"


def pages_of(toc):
    toc = yaml.safe_load(toc.read_text(encoding="utf-8"))
    return [page["file"] for part in toc["parts"] for page in part["chapters"]]


def test_only_a_teacher_finds_the_projects_worked(written, tmp_path):
    assert TITLE in WORKED.read_text(encoding="utf-8")
    taught = editions.write("instructor", tmp_path / "instructor")
    page = "chapters/instructor/projects"
    assert pages_of(taught / "_toc.yml") == [*pages_of(editions.BOOK / "_toc.yml"), page]
    assert (taught / page).with_suffix(".md").read_bytes() == WORKED.read_bytes()
    assert pages_of(written / "_toc.yml") == pages_of(editions.BOOK / "_toc.yml")
    texts = [path for path in written.rglob("*") if path.suffix in (".md", ".ipynb", ".py")]
    assert len(texts) > 40
    assert not [path for path in texts if TITLE in path.read_text(encoding="utf-8")]
    editions.write("instructor", taught)  # once more, and nothing is taken for somebody's work
    assert not list(taught.glob("kept-*")) and pages_of(taught / "_toc.yml")[-1] == page


def code_of(page):
    return re.findall(r"```(?:\{code-cell\} ipython3|python)\n(.*?)```", page, flags=re.DOTALL)


def test_every_project_has_its_parts_and_is_worked():
    page = (WORKED.parents[1] / "projects.md").read_text(encoding="utf-8")
    worked = WORKED.read_text(encoding="utf-8")
    projects = page.split("## How it is marked")[1].split("\n## ")[1:]
    assert len(projects) == 3
    for project in projects:
        title = project.splitlines()[0]
        assert f"\n## {title}\n" in worked
        parts = "The question.", "Needs", "The data.", "What to do.", "Pitfalls.", "A plain start."
        places = [project.index(f"**{part}**") for part in parts]
        assert places == sorted(places)
        assert set(re.findall(r"`ch-[\w-]+`", project))
        assert len(code_of(project)) == 1
    points = re.findall(r"^\| [^|]+ \| (\d+) \|", page, flags=re.MULTILINE)
    rubric = [int(n) for n in points[-6:]]
    assert sum(rubric) == 20 and "Twenty points" in page


def test_the_plain_starts_of_the_projects_run(monkeypatch, tmp_path):
    digits, window, soop = code_of((WORKED.parents[1] / "projects.md").read_text(encoding="utf-8"))
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    namespace = {}
    exec(digits.replace("(4, 9)", '(4, 9), source="sklearn"'), namespace)
    assert namespace["codes"].shape == (len(namespace["digits"].y_test), 2)
    exec(window, namespace)
    assert namespace["unexplained"][namespace["scan"].lesion].mean() > 0
    case = write_cohort(tmp_path / "soop", 1)[0]
    monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
    exec(soop, namespace)
    assert namespace["scan"].subject_id == case.subject_id and namespace["scan"].lesion.any()


def test_the_worked_projects_run_on_a_few(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
    monkeypatch.setenv("VAE_BOOK_OUTPUT", str(tmp_path / "made"))
    code = "\n".join(code_of(WORKED.read_text(encoding="utf-8")))
    fewer = {
        "load_mnist((4, 9))": 'load_mnist((4, 9), source="sklearn")',
        "SEEDS = range(5)": "SEEDS = range(1)",
        "range(7000, 7060)": "range(7000, 7006)",
        "n_synthetic=28": "n_synthetic=3",
    }
    for all_of_them, few in fewer.items():
        assert code.count(all_of_them) == 1
        code = code.replace(all_of_them, few)
    namespace = {}
    exec(code, namespace)
    assert list(namespace["runs"]["likelihood"]) == list(namespace["likelihoods"])
    assert namespace["runs"][["clusters", "line"]].min(axis=None) >= 0.4
    assert set(namespace["found"]) == {"ml", "brightness"} | {
        f"{reach} mm" for reach in namespace["REACHES"]
    }
    assert namespace["in_pairs"]("6 mm")["high"] == 0  # from itself
    chosen = namespace["choosing"][namespace["windows"]].mean()
    assert chosen[namespace["chosen"]] == chosen.max() and len(namespace["found"]) == 3
    assert (namespace["seen"]["fault"] == "").all() and len(namespace["seen"]) >= 3
    assert "0 left out" in capsys.readouterr().out


# --- a course for nbgrader ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return editions.write_course(tmp_path_factory.mktemp("course"))


def assignment(course, path):
    return nbformat.read(course / "source" / path.stem / path.name, 4)


def of_kind(notebook, **wanted):
    """The cells of which nbgrader is told so."""
    told = [(cell, cell.metadata["nbgrader"]) for cell in notebook.cells]
    return [cell for cell, kind in told if all(kind[key] == wanted[key] for key in wanted)]


@each_chapter
def test_solutions_and_checks_are_nbgrader_s_one_to_one(course, path):
    book, made = nbformat.read(path, 4), assignment(course, path)
    nbformat.validate(made)
    solutions, checks = of_kind(made, solution=True), of_kind(made, grade=True)
    marks = re.compile(r"    ### (BEGIN|END) SOLUTION\n?")
    assert [marks.sub("", cell.source).rstrip("\n") for cell in solutions] == [
        cell.source.removeprefix("# Solution\n").rstrip("\n") for cell in tagged(book, "solution")
    ]
    assert [cell.source for cell in checks] == [cell.source for cell in tagged(book, "check")]
    ids = [cell.metadata["nbgrader"]["grade_id"] for cell in made.cells]
    assert len(set(ids)) == len(ids)
    for solution, check in zip(solutions, checks, strict=True):
        name = solution.metadata["nbgrader"]["grade_id"]
        assert check.metadata["nbgrader"]["grade_id"] == f"{name}-check"
        assert f":label: ex-{name}\n" in "\n".join(cell.source for cell in book.cells)
        at = made.cells.index(solution)
        assert made.cells[at + 1] is check
        assert made.cells[at - 1].metadata["nbgrader"]["grade_id"] == f"{name}-asked"
    # Nobody writes anywhere but into a solution.
    assert of_kind(made, locked=False) == solutions
    assert all(cell.metadata["nbgrader"]["schema_version"] == 3 for cell in made.cells)


@each_chapter
def test_points_go_by_level(course, path):
    text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    found = re.findall(r"\{exercise\} (\w+),[^\n]*\n:label: ex-([\w-]+)", text)
    levels = {name: level for level, name in found}
    made = assignment(course, path)
    points = {
        cell.metadata["nbgrader"]["grade_id"].removesuffix("-check"): cell.metadata["nbgrader"][
            "points"
        ]
        for cell in of_kind(made, grade=True)
    }
    worth = {"Recall": 1, "Apply": 2, "Extend": 3}
    assert points == {name: worth[level] for name, level in levels.items()} and points
    assert f"There are {sum(points.values())} points." in made.cells[0].source


@each_chapter
def test_a_statement_is_read_without_the_book(course, path):
    made = assignment(course, path)
    for cell in of_kind(made, locked=True, grade=False):
        assert not re.search(r"\{\w+\}`|```|:label:", cell.source), cell.source
        for label in re.findall(r"[Ee]quation \(([\w-]+)\)", cell.source):
            assert f"\\tag{{{label}}}" in cell.source


@pytest.mark.parametrize("role", ["{term}`loss`", "{term}`loss <Reconstruction loss>`"])
def test_a_term_in_a_statement_is_its_words(role):
    book = nbformat.read(CHAPTERS[0], 4)
    exercise = next(cell for cell in book.cells if "{exercise}" in cell.source)
    exercise.source = exercise.source.replace("Write `", f"Mind the {role}. Write `", 1)
    (statement,) = (c.source for c in editions.graded(book, {}).cells if "Mind the" in c.source)
    assert "Mind the loss. Write `" in statement


def test_what_cannot_be_shown_outside_the_book_is_refused():
    book = nbformat.read(CHAPTERS[1], 4)
    with pytest.raises(ValueError, match=r"cannot refer to \{eq\}`eq-bernoulli`"):
        editions.graded(book, {})
    book.cells = [cell for cell in book.cells if "{exercise}" not in cell.source]
    with pytest.raises(ValueError, match="expected an exercise before its solution"):
        editions.graded(book, {})


def test_a_course_keeps_what_a_teacher_has_changed(tmp_path, capsys):
    course = editions.write_course(tmp_path)
    (course / "nbgrader_config.py").write_text("mine")
    mine = course / "source" / CHAPTERS[0].stem / CHAPTERS[0].name
    notebook = nbformat.read(mine, 4)
    of_kind(notebook, grade=True)[0].metadata["nbgrader"]["points"] = 7
    nbformat.write(notebook, mine)
    (course / "gradebook.db").write_text("marks")
    editions.write_course(course)
    assert (course / "nbgrader_config.py").read_text() == "mine"
    assert (course / "gradebook.db").read_text() == "marks"
    kept = course / "kept-1" / mine.relative_to(course)
    assert of_kind(nbformat.read(kept, 4), grade=True)[0].metadata["nbgrader"]["points"] == 7
    assert of_kind(nbformat.read(mine, 4), grade=True)[0].metadata["nbgrader"]["points"] == 1
    assert f"{mine} said something else; it is kept as {kept}" in capsys.readouterr().out
    assert len(list(course.glob("kept-*/*/*"))) == 1


def test_a_damaged_chapter_costs_its_own_assignment_alone(tmp_path, monkeypatch, capsys):
    shutil.copytree(editions.BOOK / "chapters", tmp_path / "chapters")
    monkeypatch.setattr(editions, "BOOK", tmp_path)
    broken, not_emptied_here = (tmp_path / "chapters" / path.name for path in CHAPTERS[:2])
    broken.write_bytes(b"[1, 2]")
    not_emptied_here.write_bytes(not_emptied(not_emptied_here.read_bytes()))
    plain = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# No exercises")])
    nbformat.write(plain, tmp_path / "chapters" / "99_plain.ipynb")  # which is no fault
    assert editions.main(["nbgrader"]) == 1
    told = capsys.readouterr().out
    assert "chapters left out: 2\n" in told
    assert f"{broken}: " in told and f"{not_emptied_here}: " in told
    made = {path.stem for path in (tmp_path / "_build/nbgrader/source").glob("*/*.ipynb")}
    assert made == {path.stem for path in CHAPTERS[2:]}


IN_THE_WAY = {
    "a folder": lambda path, other: (path.mkdir(), (path / "mine.txt").write_text("mine")),
    **{name: odd for name, odd in ODD.items() if name != "a file"},
}


@pytest.mark.parametrize("odd", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_stands_in_the_place_of_an_assignment_is_moved_aside(tmp_path, capsys, odd):
    course, other = tmp_path / "course", tmp_path / "other"
    other.mkdir()
    inside = f"source/{CHAPTERS[0].stem}/{CHAPTERS[0].name}"
    (course / inside).parent.mkdir(parents=True)
    odd(course / inside, other)
    editions.write_course(course)
    assert os.path.lexists(course / "kept-1" / inside) and (course / inside).is_file()
    assert f"it is kept as {course / 'kept-1' / inside}" in capsys.readouterr().out
    assert not list(other.iterdir()) and not (course / inside).is_symlink()
    assert len(list(course.glob("source/*/*.ipynb"))) == len(CHAPTERS)


@pytest.mark.parametrize("odd", ["a file", "a link to nothing", "a link to itself"])
@pytest.mark.parametrize("name", ["source", f"source/{CHAPTERS[0].stem}"])
def test_what_stands_in_the_place_of_a_course_s_folder_is_moved_aside(tmp_path, capsys, odd, name):
    course, other = tmp_path / "course", tmp_path / "other"
    other.mkdir()
    (course / name).parent.mkdir(parents=True)
    ODD[odd](course / name, other)
    editions.write_course(course)
    told = f"{course / name} is no folder; it is kept as {course / 'kept-1' / name}\n"
    assert capsys.readouterr().out == told and not list(other.iterdir())
    assert len(list(course.glob("source/*/*.ipynb"))) == len(CHAPTERS)


def test_settings_of_a_course_are_not_written_through_a_link(tmp_path, capsys):
    course = tmp_path / "course"
    course.mkdir()
    (course / "nbgrader_config.py").symlink_to(tmp_path / "elsewhere.py")
    editions.write_course(course)
    assert (course / "nbgrader_config.py").read_text() == editions.NBGRADER_CONFIG
    assert not (tmp_path / "elsewhere.py").exists()
    assert "leads nowhere; it is kept as" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["null", "no source", "a pipe", "a folder"])
def test_a_chapter_without_text_costs_its_own_assignment_alone(
    tmp_path, monkeypatch, capsys, damage
):
    shutil.copytree(editions.BOOK / "chapters", tmp_path / "chapters")
    monkeypatch.setattr(editions, "BOOK", tmp_path)
    lost = tmp_path / "chapters" / CHAPTERS[0].name
    notebook = json.loads(lost.read_text(encoding="utf-8"))
    notebook["cells"][1]["source"] = None
    if damage == "no source":
        del notebook["cells"][1]["source"]
    lost.unlink()
    if damage == "a pipe":
        os.mkfifo(lost)
    elif damage == "a folder":
        lost.mkdir()
    else:
        lost.write_text(json.dumps(notebook))
    assert editions.main(["nbgrader"]) == 1
    assert f"chapters left out: 1\n{lost}: " in capsys.readouterr().out
    made = {path.stem for path in (tmp_path / "_build/nbgrader/source").glob("*/*.ipynb")}
    assert made == {path.stem for path in CHAPTERS[1:]}


#: Generates every assignment, hands in what stands in `submitted`, and prints the marks.
GRADE = """
import json, sys
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config
config = Config()
exec(open("nbgrader_config.py").read(), {"get_config": lambda: config})
api = NbGraderAPI(config=config)
_, chapter, *others = sys.argv
for name in [chapter, *others]:
    assert (made := api.generate_assignment(name))["success"], made["log"]
import hand_in
hand_in.hand_in(chapter)
marks = {}
for student in sorted(api.get_submitted_students(chapter)):
    assert (done := api.autograde(chapter, student, create=True))["success"], done["log"]
with Gradebook("sqlite:///gradebook.db") as book:
    for student in api.get_submitted_students(chapter):
        grades = book.find_submission(chapter, student).notebooks[0].grades
        marks[student] = {grade.name: [grade.score, grade.max_score] for grade in grades}
print("MARKS", json.dumps(marks))
"""
#: What four students make of what they are given.
HAND_IN = """
import re, shutil
from pathlib import Path
import nbformat

def hand_in(chapter):
    inside = Path(chapter) / f"{chapter}.ipynb"
    whole = nbformat.read("source" / inside, 4)
    answers = {c.metadata.nbgrader.grade_id: c.source for c in whole.cells}
    for student in ("right", "wrong", "nothing", "only-the-last", "changed-the-check"):
        given = nbformat.read("release" / inside, 4)
        todo = [c for c in given.cells if c.metadata.nbgrader.solution]
        checks = [c for c in given.cells if c.metadata.nbgrader.grade]
        if student == "right":
            for cell in todo:
                cell.source = answers[cell.metadata.nbgrader.grade_id]
        if student == "wrong":
            for cell in todo:
                cell.source = cell.source.replace("    ...", "    return 0, 0")
        if student == "only-the-last":
            todo[-1].source = answers[todo[-1].metadata.nbgrader.grade_id]
        if student == "changed-the-check":
            for cell in checks:
                cell.source = "print('Right.')"
        path = Path("submitted") / student / inside
        path.parent.mkdir(parents=True)
        nbformat.write(given, path)
"""


def test_nbgrader_hands_out_and_marks_what_was_written(tmp_path):
    if importlib.util.find_spec("nbgrader") is None:
        missing("nbgrader is not installed: the instructor guide says how")
    course = editions.write_course(tmp_path)
    (course / "hand_in.py").write_text(HAND_IN)
    (course / "grade.py").write_text(GRADE)
    chapter = CHAPTERS[1]
    names = [chapter.stem, *(path.stem for path in CHAPTERS if path != chapter)]
    command = [sys.executable, "grade.py", *names]
    done = subprocess.run(command, cwd=course, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for path in CHAPTERS:
        released = nbformat.read(course / "release" / path.stem / path.name, 4)
        assert [cell.source for cell in of_kind(released, solution=True)] == [
            editions.stub(cell.source) for cell in tagged(nbformat.read(path, 4), "solution")
        ]
    marks = json.loads(done.stdout.split("MARKS ")[1])
    made = of_kind(assignment(course, chapter), grade=True)
    worth = {
        cell.metadata["nbgrader"]["grade_id"]: cell.metadata["nbgrader"]["points"] for cell in made
    }
    last = list(worth)[-1]
    earned = {
        "right": worth,
        "wrong": dict.fromkeys(worth, 0),
        "nothing": dict.fromkeys(worth, 0),
        "only-the-last": {**dict.fromkeys(worth, 0), last: worth[last]},
        "changed-the-check": dict.fromkeys(worth, 0),
    }
    assert marks == {
        student: {name: [points[name], worth[name]] for name in worth}
        for student, points in earned.items()
    }
    assert sum(worth.values()) == 8


# --- flash-cards ----------------------------------------------------------------------------------


def read_cards(path):
    """Read a file as Anki does: what begins with # says how, the rest is CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    told = dict(line[1:].split(":", 1) for line in text.splitlines() if line.startswith("#"))
    assert told == {"separator": "Comma", "html": "true", "guid column": "1", "tags column": "4"}
    rows = list(csv.reader(io.StringIO(text.split("\n", len(told))[-1], newline="")))
    assert all(len(row) == 4 for row in rows)
    return rows


class Words(HTMLParser):
    """What a card shows, and whether each tag that is opened is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.words = [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open += [tag] if tag != "br" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_each_term_of_the_glossary_is_a_card(tmp_path):
    rows = read_cards(editions.write_cards(tmp_path / "cards"))
    source = (editions.BOOK / "chapters" / "glossary.md").read_text(encoding="utf-8")
    body = source.split("```{glossary}\n")[1].rsplit("\n```", 1)[0]
    written = [line for line in body.splitlines() if line and not line.startswith(" ")]
    assert [Words(front).words for _, front, _, _ in rows] == written
    names = [name for name, *_ in rows]
    assert len(set(names)) == len(names) == len(written) > 40
    for _, front, back, tag in rows:
        shown = Words(back).words
        assert len(shown) > 20 and not re.search(r"\{\w+\}|`|\$", shown), (front, shown)
        if tag:
            (number,) = re.fullmatch(r"chapter-(\d\d)", tag).groups()
            title = nbformat.read(next(p for p in CHAPTERS if p.stem.startswith(number)), 4)
            title = re.search(r"^# (.+)", title.cells[0].source, re.MULTILINE)[1]
            assert shown.endswith(f"Chapter {int(number)}: {title}")
    tags = {front: tag for _, front, _, tag in rows}
    assert tags["VAE"] == "chapter-01" and tags["ELBO"] == "chapter-02"


MARKDOWN = """# Glossary

```{glossary}
Über "alles"
  Er sagte: "größer, ½", und \'kleiner\'; a < b & c.

Zwei Zeilen
zwei Namen
  First line.
  Second line.

  A second paragraph, **bold**, with {term}`a link <elsewhere>` to `code`.

Formula
  Inline $a < b \\mid \\hat{x}_i$ and {numref}`ch-vae`:

  ```{math}
  :label: eq-one
  \\frac{1}{2}
  ```

  $$
  x^2
  $$
```

```{glossary}
A list, of things
  - one, two
  - "three"
```
"""


@pytest.fixture
def glossary(tmp_path, monkeypatch):
    """Make cards of another glossary."""
    chapters = tmp_path / "chapters"
    chapters.mkdir()
    shutil.copy2(CHAPTERS[1], chapters)
    monkeypatch.setattr(editions, "BOOK", tmp_path)

    def make(text):
        (chapters / "glossary.md").write_text(text, encoding="utf-8")
        return read_cards(editions.write_cards(tmp_path / "cards"))

    return make


def test_umlauts_quotes_lines_and_formulas_come_through(glossary):
    rows = {front: back for _, front, back, _ in glossary(MARKDOWN)}
    assert list(rows) == [
        "Über &quot;alles&quot;",
        "Zwei Zeilen<br>zwei Namen",
        "Formula",
        "A list, of things",
    ]
    umlauts, lines, formula, listed = rows.values()
    assert Words(umlauts).words == "Er sagte: \"größer, ½\", und 'kleiner'; a < b & c."
    assert "a &lt; b &amp; c" in umlauts  # Anki reads HTML
    assert lines == (
        "<p>First line.\nSecond line.</p>\n"
        "<p>A second paragraph, <strong>bold</strong>, with a link to <code>code</code>.</p>"
    )
    assert "\\(a &lt; b \\mid \\hat{x}_i\\) and Chapter 2:" in formula
    assert "\\[\\frac{1}{2}\\]" in formula and "\\[x^2\\]" in formula and "eq-one" not in formula
    assert Words(listed).words.split() == ["one,", "two", '"three"']


def test_a_card_keeps_its_name_when_its_text_changes(glossary):
    before = glossary(MARKDOWN)
    after = glossary(MARKDOWN.replace("Er sagte", "Sie sagte"))
    assert [row[0] for row in before] == [row[0] for row in after]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True]


@pytest.mark.parametrize(
    "text, told",
    [
        ("See {eq}`eq-one`.", r"cannot show \{eq\}`eq-one`"),
        ("See {numref}`fig-one`.", r"cannot show \{numref\}`fig-one`"),
        ("```{note}\n  Hm.\n  ```", r"cannot show a block of \{note\}"),
    ],
)
def test_what_a_card_cannot_show_is_refused(glossary, text, told):
    with pytest.raises(ValueError, match=told):
        glossary(f"````{{glossary}}\nTerm\n  {text}\n````\n")


@pytest.fixture
def deck(tmp_path, monkeypatch):
    """The book's own chapters, to damage, and the file of its cards."""
    shutil.copytree(editions.BOOK / "chapters", tmp_path / "chapters")
    monkeypatch.setattr(editions, "BOOK", tmp_path)
    return editions.write_cards(tmp_path / "_build" / "cards")


NO_GLOSSARY = {
    "Latin-1": lambda text: text.replace("a", "ä").encode("latin-1", "replace"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "merge marks": lambda text: text.replace("\n\n", "\n<<<<<<< HEAD\n\n", 1).encode(),
    "the end of a merge": lambda text: text.replace("\n\n", "\n>>>>>>> theirs\n\n").encode(),
    "empty": lambda text: b"",
    "no glossary": lambda text: text.replace("{glossary}", "{note}").encode(),
    "a list": lambda text: b"[1, 2]",
    "what no card shows": lambda text: text.replace("\n  ", "\n  {eq}`eq-one` ", 1).encode(),
}


@pytest.mark.parametrize("damage", NO_GLOSSARY.values(), ids=NO_GLOSSARY)
def test_a_damaged_glossary_is_refused_by_name_and_the_old_cards_stay(deck, capsys, damage):
    before, glossary = deck.read_bytes(), editions.BOOK / "chapters" / "glossary.md"
    glossary.write_bytes(damage(glossary.read_text(encoding="utf-8")))
    assert editions.main(["cards"]) == 1
    assert capsys.readouterr().out.startswith(f"{glossary}: ")
    assert deck.read_bytes() == before and list(deck.parent.iterdir()) == [deck]


@pytest.mark.parametrize("how", ["a folder", "a pipe", "missing"])
def test_a_glossary_that_is_no_file_is_refused(deck, capsys, how):
    glossary = editions.BOOK / "chapters" / "glossary.md"
    glossary.unlink()
    {"a folder": os.mkdir, "a pipe": os.mkfifo, "missing": id}[how](glossary)
    assert editions.main(["cards"]) == 1
    assert str(glossary) in capsys.readouterr().out and len(read_cards(deck)) > 40


def test_a_byte_order_mark_costs_no_card(deck):
    before, glossary = deck.read_bytes(), editions.BOOK / "chapters" / "glossary.md"
    glossary.write_bytes(b"\xef\xbb\xbf" + glossary.read_bytes())
    assert editions.write_cards(deck.parent).read_bytes() == before


NO_CHAPTER = {name: UNREADABLE[name] for name in ("empty", "merge marks", "Latin-1", "a list")}
NO_CHAPTER["a byte-order mark"] = UNREADABLE["a byte-order mark"]
NO_CHAPTER["no text"] = lambda content: json.dumps(
    {**json.loads(content), "cells": [{"cell_type": "markdown", "metadata": {}, "source": None}]}
).encode()
NO_CHAPTER["no title"] = lambda content: content.replace(b"# ", b"")


@pytest.mark.parametrize("damage", NO_CHAPTER.values(), ids=NO_CHAPTER)
def test_a_damaged_chapter_costs_the_cards_its_name_alone(deck, capsys, damage):
    before = read_cards(deck)
    lost = editions.BOOK / "chapters" / CHAPTERS[1].name
    lost.write_bytes(damage(lost.read_bytes()))
    glossary = editions.BOOK / "chapters" / "glossary.md"
    text = glossary.read_text(encoding="utf-8")
    glossary.write_text(text.replace("\n  ", "\n  See {numref}`ch-vae`. ", 1), encoding="utf-8")
    assert editions.main(["cards"]) == 1
    assert capsys.readouterr().out.startswith(f"{lost}: this chapter is left out: ")
    after = read_cards(deck)
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert "chapter-02" in {row[3] for row in before} - {row[3] for row in after}
    assert "See another chapter." in after[0][2]


def test_cards_are_written_at_a_word(tmp_path, monkeypatch, capsys):
    shutil.copytree(editions.BOOK / "chapters", tmp_path / "chapters")
    monkeypatch.setattr(editions, "BOOK", tmp_path)
    assert editions.main(["cards"]) == 0
    path = tmp_path / "_build" / "cards" / "terms.csv"
    assert str(path) in capsys.readouterr().out and len(read_cards(path)) > 40
