"""What JupyterLab makes of the notebooks, read and worked in with the keyboard."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).parents[2]
NOTEBOOKS = sorted((BOOK / "chapters").glob("*.ipynb"))
# MyST that nothing has made into a formula, a box, an exercise or a link.
RAW = re.compile(r"^:\w+:|`{3}|\{(math|term|numref|eq|cite:\w|exercise|dropdown)\}", re.MULTILINE)
FORMULA = re.compile(r"`{3}\{math\}|^\$\$$.*?^\$\$$", re.MULTILINE | re.DOTALL)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # draw also what is out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that nobody has set up before, over a copy of the chapters."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(BOOK / "chapters", home / "chapters")
    for name, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", str(home / "chapters"), "--no-browser"]
    command += [f"--port={port}", "--ip=127.0.0.1", "--allow-root", "--IdentityProvider.token="]
    folders = {
        "HOME": home,
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "PYTHONPATH": BOOK,
    }
    environment = {**os.environ, **{name: str(folder) for name, folder in folders.items()}}
    with (home / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                assert server.poll() is None, (home / "lab.log").read_text()
                with socket.socket() as door:
                    if door.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/lab"
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def open_notebook(chromium, lab):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)  # a busy machine is no failure
    tab = context.new_page()

    def open_notebook(path):
        tab.goto(f"{lab}/tree/{path.name}?reset")
        n_cells = len(nbformat.read(path, 4).cells)
        tab.wait_for_function(
            f"document.querySelectorAll('.jp-Notebook .jp-Cell').length == {n_cells}"
        )
        tab.wait_for_function("document.querySelector('.jp-Notebook .myst')")
        return tab

    yield open_notebook
    context.close()


def rendered(tab):
    """The text of each Markdown cell as it is shown, and how many formulas stand on lines."""
    cells = tab.locator(".jp-MarkdownCell .myst")
    return cells.all_inner_texts(), tab.locator(".jp-MarkdownCell .katex-display").count()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_as_its_page_does(open_notebook, path):
    tab = open_notebook(path)
    sources = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]
    tab.wait_for_function(
        f"document.querySelectorAll('.jp-MarkdownCell .myst').length == {len(sources)}"
    )
    texts, n_formulas = rendered(tab)
    assert not [raw for text in texts for raw in RAW.findall(text)]
    assert n_formulas == sum(len(FORMULA.findall(source)) for source in sources)
    for source in sources:
        for title in re.findall(r"\{exercise\} (.+)", source):
            assert any(title in text for text in texts), title


def test_an_exercise_is_solved_with_the_keyboard(open_notebook):
    notebook = nbformat.read(NOTEBOOKS[0], 4)
    check = next(i for i, c in enumerate(notebook.cells) if "check" in c.metadata.get("tags", []))
    tab = open_notebook(NOTEBOOKS[0])
    tab.wait_for_function("document.activeElement.closest('.jp-Notebook')")
    active = "[...document.querySelectorAll('.jp-Notebook .jp-Cell')].findIndex("
    active += "cell => cell.classList.contains('jp-mod-active'))"
    for _ in notebook.cells:
        if tab.evaluate(active) < check - 1:
            tab.keyboard.press("ArrowDown")
    tab.keyboard.press("b")  # a new cell below the book's solution, above the check
    checks = tab.locator(".jp-CodeCell").filter(has_text="cluster_accuracy(labels, mostly)")
    said = checks.locator(".jp-OutputArea-output")

    def answer(lines):
        """Write the function, run it and the check, and go back to where it is written."""
        tab.keyboard.press("Enter")
        tab.keyboard.press("Control+a")
        tab.keyboard.insert_text("import numpy as np\n\n" + lines)
        tab.keyboard.press("Shift+Enter")
        tab.keyboard.press("Shift+Enter")
        tab.keyboard.press("ArrowUp")
        tab.keyboard.press("ArrowUp")

    answer("def two_cluster_accuracy(labels, clusters):\n    return np.mean(labels == clusters)")
    said.filter(has_text="should stay").wait_for()
    answer(
        "def two_cluster_accuracy(labels, clusters):\n"
        "    share = np.mean(labels == clusters)\n"
        "    return max(share, 1 - share)"
    )
    said.filter(has_text="Right: ").wait_for()
