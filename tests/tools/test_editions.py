"""What a student gets, and what a teacher gets, made from the real chapters."""

import ast
import io
import shutil
import sys

import nbformat
import pytest
import yaml

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
    for unimportant in (".ipynb_checkpoints/a.ipynb", "__pycache__/a.pyc"):
        (edition / "chapters" / unimportant).parent.mkdir()
        (edition / "chapters" / unimportant).touch()
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


def not_emptied(content):
    notebook = nbformat.reads(content.decode(), 4)
    tagged(notebook, "solution")[0].source = "# Solution\nx = 1"
    return nbformat.writes(notebook).encode()


LOST = {name: UNREADABLE[name] for name in ("empty", "merge marks", "Latin-1", "a list", "zeros")}
LOST["a solution that cannot be emptied"] = not_emptied


@pytest.mark.parametrize("damage", LOST.values(), ids=LOST)
def test_a_damaged_chapter_costs_that_chapter_alone(written, tmp_path, monkeypatch, capsys, damage):
    book = tmp_path / "book"
    shutil.copytree(editions.BOOK / "chapters", book / "chapters")
    for part in ("_config.yml", "_toc.yml"):
        shutil.copy2(editions.BOOK / part, book / part)
    monkeypatch.setattr(editions, "BOOK", book)
    monkeypatch.setattr(editions, "PARTS", ("_config.yml", "_toc.yml", "chapters"))
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
