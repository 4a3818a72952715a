"""The buttons that open a notebook elsewhere, and the notebooks that they open."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager

import launch_buttons

BOOK = Path(__file__).parents[2]
URL = "https://github.com/someone/a-book"
PAGE = "chapters/01_why_unsupervised"
HOSTS = re.compile("binder|colab|git-pull")


def build(folder, url, hub=""):
    """Build one chapter, not executed, with the book's own settings but for the two addresses."""
    (folder / "chapters").mkdir(exist_ok=True)
    settings = (BOOK / "_config.yml").read_text(encoding="utf-8")
    for name, value in (
        ("url", url),
        ("jupyterhub_url", hub),
        ("execute_notebooks", "off"),
    ):
        settings, n = re.subn(rf"(?m)^(  {name}:) \S+", rf'\1 "{value}"', settings)
        assert n == 1, name
    (folder / "_config.yml").write_text(settings, encoding="utf-8")
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: {PAGE}\n")
    for part in (f"{PAGE}.ipynb", "chapters/references.bib"):
        shutil.copy2(BOOK / part, folder / part)
    for part in ("_ext", "_static", "_templates"):
        shutil.copytree(BOOK / part, folder / part, dirs_exist_ok=True)
    command = ["jupyter-book", "build", folder, "-q"]
    subprocess.run(command, check=True, capture_output=True, cwd=BOOK)
    return folder / "_build" / "html"


def links(built):
    soup = BeautifulSoup((built / f"{PAGE}.html").read_text(encoding="utf-8"), "html.parser")
    return {a["href"] for a in soup.find_all("a", href=HOSTS)}


def published(built):
    return nbformat.read(built / "_sources" / f"{PAGE}.ipynb", 4)


def test_without_an_address_nothing_leads_elsewhere(tmp_path):
    built = build(tmp_path, "")
    assert links(built) == set()
    assert published(built).cells == nbformat.read(BOOK / f"{PAGE}.ipynb", 4).cells


def test_one_address_is_enough_for_every_host(tmp_path):
    built = build(tmp_path, URL, hub="https://hub.example.org")
    assert links(built) == {
        f"https://mybinder.org/v2/gh/someone/a-book/main?urlpath=lab/tree/{PAGE}.ipynb",
        "https://colab.research.google.com/github/someone/a-book/blob/"
        f"gh-pages/_sources/{PAGE}.ipynb",
        f"https://hub.example.org/hub/user-redirect/git-pull?repo=https%3A//github.com/someone/"
        f"a-book&urlpath=lab/tree/a-book/{PAGE}.ipynb&branch=main",
    }
    first, *others = published(built).cells
    assert f"git clone --quiet --depth 1 {URL} book" in first.source
    assert others == nbformat.read(BOOK / f"{PAGE}.ipynb", 4).cells
    build(tmp_path, URL, hub="https://hub.example.org")
    assert len(published(built).cells) == len(others) + 1, "a second build fetches no second time"


def test_a_notebook_that_has_its_book_fetches_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = sys.path.copy()
    exec(TransformerManager().transform_cell(launch_buttons.FETCH.format(url=URL)), {})
    assert (Path.cwd(), sys.path, list(tmp_path.iterdir())) == (tmp_path, path, [])


def test_a_network_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/book"
    clone, limits = (
        re.search(pattern, launch_buttons.FETCH.format(url=url))[1]
        for pattern in (r"!(git .*)", r"os.environ.update\((.*)\)")
    )
    limits = dict(re.findall(r'(\w+)="(\d+)"', limits))
    assert limits["GIT_HTTP_LOW_SPEED_TIME"] == "30"
    limits["GIT_HTTP_LOW_SPEED_TIME"] = "1"  # soon
    run = subprocess.run(
        clone.split(), cwd=tmp_path, env={**os.environ, **limits}, timeout=60, capture_output=True
    )
    assert run.returncode != 0 and list(tmp_path.iterdir()) == []
    silent.close()


def test_an_empty_notebook_fetches_its_book_too():
    notebook = nbformat.v4.new_notebook()
    for _ in range(2):
        launch_buttons.fetching(notebook, URL)
    assert len(notebook.cells) == 1 and URL in notebook.cells[0].source


def test_the_workflow_publishes_where_colab_looks():
    workflow = (BOOK / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
    assert f"--branch {launch_buttons.PAGES}" in workflow
