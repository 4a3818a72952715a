"""Buttons that open a page's notebook on Binder, on a JupyterHub or on Colab.

Named in ``_config.yml`` as an extension of Sphinx. Where to open notebooks stands there under
``launch_buttons``; whose they are, under ``repository.url``, the one setting to change in a copy of
the book. While it is empty there are no buttons.

Binder and JupyterHub fetch the repository. Colab opens one notebook, and whoever downloads a page's
notebook has no more than that: so the published notebooks begin with a cell that fetches the rest.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

#: Where the workflow publishes the pages, and with them the notebooks for Colab.
PAGES = "gh-pages"
FETCH = """\
# On its own, as on Colab, this notebook fetches the book it belongs to.
import importlib.util
import os
import sys

if importlib.util.find_spec("helpers") is None:
    # Git gives up where 30 seconds pass without a byte.
    os.environ.update(GIT_HTTP_LOW_SPEED_LIMIT="1", GIT_HTTP_LOW_SPEED_TIME="30")
    !git clone --quiet --depth 1 {url} book
    %pip install --quiet --editable book
    os.chdir("book/chapters")
    sys.path.insert(0, os.path.abspath(".."))"""


def fetching(notebook: nbformat.NotebookNode, url: str) -> nbformat.NotebookNode:
    """Let a notebook fetch the book around it, if it finds itself alone.

    Parameters
    ----------
    notebook : NotebookNode
        A chapter; it is changed.
    url : str
        The repository of the book.

    Returns
    -------
    NotebookNode
        The chapter, with one cell more at its beginning, if it is not there yet.

    Examples
    --------
    >>> from nbformat.v4 import new_notebook
    >>> notebook = new_notebook(cells=[new_code_cell("import helpers")])
    >>> len(fetching(fetching(notebook, "https://example.org/book"), "https://example.org/book").cells)
    2
    """
    cell = new_code_cell(FETCH.format(url=url), id="fetch-the-book")
    if not notebook.cells or cell.source != notebook.cells[0].source:
        notebook.cells.insert(0, cell)
    return notebook


def setup(app) -> dict[str, bool]:
    """Set the buttons and the published notebooks right; Sphinx calls this."""
    app.connect("config-inited", _no_dead_links)
    app.connect("html-page-context", _colab_opens_what_is_published, priority=900)
    app.connect("build-finished", _publish)
    return {"parallel_read_safe": True}


def _no_dead_links(app, config) -> None:
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)


def _colab_opens_what_is_published(app, pagename, templatename, context, doctree) -> None:
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button["text"] == "Colab":
                repository, _, _ = button["url"].partition("/blob/")
                button["url"] = f"{repository}/blob/{PAGES}/_sources/{pagename}.ipynb"


def _publish(app, error) -> None:
    url = app.config.html_theme_options.get("repository_url")
    if error is None and url and app.builder.format == "html":
        for path in Path(app.outdir, "_sources").rglob("*.ipynb"):
            nbformat.write(fetching(nbformat.read(path, 4), url), path)
