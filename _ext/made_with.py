"""Say at the foot of every page when it was built, from which version, and with what.

Named in ``_config.yml`` as an extension of Sphinx.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import helpers

#: Where the helpers lie that computed the numbers, the book lies.
BOOK = Path(helpers.__file__).resolve().parents[1]
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def made_with() -> str:
    """Name the version and commit, the day, and the packages that the numbers come from.

    Returns
    -------
    str
        One sentence. A commit is named where the book lies in a repository of its own. The day is
        that of ``SOURCE_DATE_EPOCH``, if it is set, so that who builds twice gets the same pages.

    Examples
    --------
    >>> made_with()
    'Version ..., built on ... with Keras ..., NumPy ... and ...'
    """
    moment = time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    day = f"{moment.tm_mday} {time.strftime('%B %Y', moment)}"
    commit, backend = _commit(), _backend()
    return (
        f"{_version('vae-medical-images', 'Version')}{commit and f', commit {commit}'}, built on"
        f" {day} with {_version('keras', 'Keras')}, {_version('numpy', 'NumPy')} and"
        f" {_version(backend, NAMES.get(backend, backend))}."
    )


def _version(package: str, name: str) -> str:
    try:
        return f"{name} {version(package)}"
    except PackageNotFoundError:
        return f"{name} (of no known version)"


def _commit() -> str:
    """The short name of the commit, and whether anything is different from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(BOOK), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != BOOK:
            return ""  # somebody else's repository, in which the book was unpacked
        commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit} with changes" if changed else commit


def _backend() -> str:
    """What Keras will compute with, found where it looks; to import it would take seconds."""
    if backend := os.environ.get("KERAS_BACKEND"):
        return backend
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        return json.loads((folder / "keras.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow"  # as Keras does


def setup(app) -> dict[str, bool]:
    """Put the sentence below what stands at the foot of every page; Sphinx calls this."""
    app.connect("config-inited", _say_it)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _say_it(app, config) -> None:
    before = config.html_theme_options.get("extra_footer", "")
    config.html_theme_options = {
        **config.html_theme_options,
        "extra_footer": f'{before}\n<p class="made-with">{made_with()}</p>',
    }
