"""Every page says when, from which version and with what it was built."""

import json
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from sphinx.extension import Extension

import made_with

BOOK = Path(__file__).parents[2]


def foot(**options):
    """What stands at the foot of a page after the extension's hook."""
    hooks = {}
    metadata = made_with.setup(SimpleNamespace(connect=hooks.__setitem__))
    # Else Sphinx would build the whole book a page at a time.
    assert Extension("made_with", made_with, **metadata).parallel_read_safe
    config = SimpleNamespace(html_theme_options=options)
    hooks["config-inited"](None, config)
    assert set(config.html_theme_options) == {*options, "extra_footer"}
    return config.html_theme_options["extra_footer"]


def test_the_sentence_is_below_what_stands_there():
    assert foot(extra_footer="CC BY", search_bar_text="kept").startswith("CC BY\n<p ")
    assert foot().count(made_with.made_with()) == 1


def test_the_book_s_pages_have_it():
    settings = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    assert settings["sphinx"]["local_extensions"]["made_with"] == "_ext"


def test_versions_are_those_of_what_runs(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    asked = (
        "import keras, numpy; print(keras.version(), numpy.__version__, keras.backend.backend())"
    )
    run = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    keras, numpy, backend = run.stdout.split()[-3:]
    said = made_with.made_with()
    assert f"Keras {keras}, NumPy {numpy} and {made_with.NAMES[backend]} " in said
    assert said.startswith(f"Version {version('vae-medical-images')}")


def test_the_day_is_today_or_the_one_that_is_asked_for(monkeypatch):
    before = time.gmtime()
    said = made_with.made_with()
    assert any(
        f"built on {t.tm_mday} " in said and f" {t.tm_year} " in said
        for t in (before, time.gmtime())
    )
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "951782400")
    assert "built on 29 February 2000 with" in made_with.made_with()


@pytest.mark.parametrize(
    ("file", "variable", "said"),
    [
        (None, None, "TensorFlow"),
        ({"backend": "jax"}, None, "JAX"),
        ({"backend": "jax"}, "torch", "PyTorch"),
        ({}, None, "TensorFlow"),
        ("not JSON", None, "TensorFlow"),
        ([], "openvino", "openvino"),
    ],
)
def test_the_backend_is_looked_for_where_keras_looks(tmp_path, monkeypatch, file, variable, said):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if file is not None:
        text = file if isinstance(file, str) else json.dumps(file)
        (tmp_path / "keras.json").write_text(text)
    if variable:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    assert f" and {said} " in made_with.made_with()


def test_a_commit_is_named_where_the_book_has_one(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit():
        return re.findall(r", commit (.*), built on", made_with.made_with())

    inner = tmp_path / "book"
    inner.mkdir()
    monkeypatch.setattr(made_with, "BOOK", tmp_path.resolve())
    assert commit() == []
    git("init", "-q")
    assert commit() == []  # there is none yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "One")
    assert commit() == [git("rev-parse", "--short", "HEAD")]
    (tmp_path / "a").write_text("2")
    assert commit() == [git("rev-parse", "--short", "HEAD") + " with changes"]
    monkeypatch.setattr(made_with, "BOOK", inner.resolve())
    assert commit() == []  # of somebody else's repository
    monkeypatch.setenv("PATH", "")
    assert commit() == []  # where Git is not installed
