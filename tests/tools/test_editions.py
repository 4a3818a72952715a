"""What a student gets, and what a teacher gets, made from the real chapters."""

import ast

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
