"""The notebooks of the book run side by side, and each of them once."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from joblib import cpu_count
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbformat.v4 import writes as as_json

import side_by_side

BOOK = Path(__file__).parents[2]
MEET = """import pathlib, time

open("NAME.ran", "a").write("x")
for _ in range(600):
    if pathlib.Path("OTHER.ran").exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("OTHER did not come")
print("NAME met", "OTHER")
"""
SECOND = "Path('each.ran').read_text() == 'xx'"
ALONE = """open("NAME.ran", "a").write("x")
print("NAME ran", "alone")
"""
THREADS_ARE_SET_BY = ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
THREADS = """import os

names = "OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"
print("threads", *(os.environ.get(name) for name in names))
"""


def write_book(folder, mode="cache", **pages):
    """Write a book of a page of text and of notebooks, each with one cell of code."""
    names = "\n".join(pages)
    (folder / "conf.py").write_text(
        f"extensions = ['myst_nb', 'side_by_side']\nnb_execution_mode = {mode!r}\n"
        "nb_execution_raise_on_error = True\nnb_execution_show_tb = True\n"
        "nb_execution_timeout = 120\n"
    )
    (folder / "index.md").write_text(f"# A book\n\n```{{toctree}}\n{names}\n```\n")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    for name, code in pages.items():
        cells = [new_markdown_cell(f"# {name}"), new_code_cell(code.replace("NAME", name))]
        for cell in cells:
            cell["id"] = cell["cell_type"]
        text = as_json(new_notebook(cells=cells, metadata=kernel))
        (folder / f"{name}.ipynb").write_text(text)
    return folder


def build(book, **variables):
    command = [sys.executable, "-m", "sphinx", "-b", "html", book, book / "_build" / "html"]
    paths = os.pathsep.join([str(BOOK / "_ext"), str(BOOK)])
    env = {name: value for name, value in os.environ.items() if name not in THREADS_ARE_SET_BY}
    env |= {"PYTHONPATH": paths, "NO_COLOR": "1", **variables}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def shown(book, name):
    return (book / "_build" / "html" / f"{name}.html").read_text(encoding="utf-8")


def written(book, name):
    """What the executed notebook printed, as it is written beside the pages."""
    (_, code) = nbformat.read(book / "_build" / "jupyter_execute" / f"{name}.ipynb", 4).cells
    return "".join(output.text for output in code.outputs)


def runs(book):
    return {path.stem: len(path.read_text()) for path in book.glob("*.ran")}


two_cores = pytest.mark.skipif(cpu_count() < 2, reason="there is one core only")


@two_cores
def test_two_pages_run_at_once_and_each_of_them_once(tmp_path):
    a, b = MEET.replace("OTHER", "b"), MEET.replace("OTHER", "a")
    book = write_book(tmp_path, a=a, b=b)
    run = build(book)
    assert run.returncode == 0, run.stderr
    both = {"a": "a met b", "b": "b met a"}
    assert all(
        said in shown(book, page) and said in written(book, page) for page, said in both.items()
    )
    write_book(book, a="# no outputs\n" + a, b=b)
    for page in both:
        (book / f"{page}.ipynb").touch()  # Sphinx reads it again, and finds what it printed
    assert build(book).returncode == 0 and runs(book) == {"a": 2, "b": 1}
    assert all(
        said in shown(book, page) and said in written(book, page) for page, said in both.items()
    )


@two_cores
def test_pages_share_the_cores(tmp_path):
    pages = {f"page_{n}": THREADS for n in range(min(cpu_count(), side_by_side.AT_MOST))}
    book = write_book(tmp_path, **pages)
    run = build(book)
    assert run.returncode == 0, run.stderr
    each = cpu_count() // len(pages)
    assert all(f"threads {each} {each}\n" in shown(book, page) for page in pages)


@two_cores
def test_pages_of_the_same_cells_are_not_in_each_others_way(tmp_path):
    """They are kept in one place: two that ended at once used to remove each other's outputs."""
    together = MEET.replace("NAME", "each").replace('Path("OTHER.ran").exists()', SECOND)
    for _ in range(3):
        book = write_book(tmp_path, one=together, two=together)
        run = build(book)
        assert run.returncode == 0, run.stderr
        assert all("each met" in shown(book, page) for page in ("one", "two"))
        shutil.rmtree(book / "_build")
        (book / "each.ran").unlink()


@two_cores
def test_an_error_is_told_once_and_costs_no_other_page_its_work(tmp_path):
    broken = ALONE + "raise ArithmeticError('a sum that is not')\n"
    slow = "import time\n\ntime.sleep(15)\n" + ALONE
    book = write_book(tmp_path, broken=broken, good=slow)
    run = build(book)
    assert run.returncode != 0
    at_once = run.stdout.index("broken.ipynb: failed: ")
    assert at_once < run.stdout.index("good.ipynb: executed in"), "the others were waited for"
    told = re.sub(r"\x1b\[[\d;]*m", "", run.stderr)
    assert re.search(r"broken\.ipynb: WARNING: Executing notebook failed", told)
    assert told.count("ArithmeticError: a sum that is not") == 1 and "UserWarning" not in told
    assert runs(book)["broken"] == 1, "it was not tried again"
    write_book(book, broken=ALONE, good=slow)
    assert build(book).returncode == 0 and runs(book) == {"broken": 2, "good": 1}


@two_cores
def test_a_kernel_that_dies_is_told_of_by_its_notebook(tmp_path):
    book = write_book(tmp_path, broken="import os\n\nos._exit(1)\n", good=ALONE)
    run = build(book)
    assert run.returncode != 0 and runs(book) == {"good": 1}
    assert re.search(r"broken\.ipynb: WARNING: Executing notebook failed", run.stderr)
    assert "DeadKernelError" in run.stderr


@two_cores
@pytest.mark.parametrize("n_deaths", [1, 2, 9])
def test_a_kernel_that_dies_before_it_begins_is_started_again(tmp_path, n_deaths):
    """As when two want the same port; and nine times, as when it never comes up."""
    book = write_book(tmp_path, a=ALONE, b=ALONE)
    begin = tmp_path / "ipython" / "profile_default" / "startup" / "begin.py"
    begin.parent.mkdir(parents=True)
    begin.write_text(
        "import os, pathlib\n\ntries = pathlib.Path('tries')\ntries.mkdir(exist_ok=True)\n"
        f"for death in range({n_deaths}):\n    try:\n        (tries / str(death)).mkdir()\n"
        "    except FileExistsError:\n        continue\n    os._exit(1)\n"
    )
    run = build(book, IPYTHONDIR=str(tmp_path / "ipython"))
    if n_deaths < 9:
        assert run.returncode == 0 and runs(book) == {"a": 1, "b": 1}, run.stderr
    else:
        assert run.returncode != 0 and "Kernel died before replying" in run.stderr


@two_cores
def test_a_notebook_that_cannot_be_read_is_named(tmp_path):
    book = write_book(tmp_path, a=ALONE, b=ALONE, broken=ALONE)
    (book / "broken.ipynb").write_text("<<<<<<< HEAD\n")
    run = build(book)
    assert "broken.ipynb" in run.stderr and runs(book) == {"a": 1, "b": 1}


def test_on_one_core_pages_run_one_after_the_other(tmp_path):
    book = write_book(tmp_path, a=ALONE, b=THREADS)
    run = build(book, LOKY_MAX_CPU_COUNT="1")
    assert run.returncode == 0, run.stderr
    assert runs(book) == {"a": 1} and "a ran alone" in shown(book, "a")
    assert "threads None 1" in shown(book, "b"), "nothing was set for it"


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_who_does_not_keep_outputs_gets_what_myst_nb_does(mode, tmp_path):
    book = write_book(tmp_path, mode, a=ALONE, b=ALONE)
    run = build(book)
    assert run.returncode == 0, run.stderr
    assert runs(book) == ({} if mode == "off" else {"a": 1, "b": 1})


def test_the_chapters_to_begin_with_are_there():
    chapters = [path.name for path in (BOOK / "chapters").glob("*.ipynb")]
    for start in side_by_side.ORDER:
        assert sum(name.startswith(f"{start}_") for name in chapters) == 1, start
