"""Every page of a rehearsal says that it is one."""

from types import SimpleNamespace

import pytest
from sphinx.extension import Extension

import rehearsal_notice


def configured():
    """What Sphinx would announce, and where it would keep results, after the extension's hook."""
    hooks = {}
    metadata = rehearsal_notice.setup(SimpleNamespace(connect=hooks.__setitem__))
    # Else Sphinx would build the whole book a page at a time.
    assert Extension("rehearsal_notice", rehearsal_notice, **metadata).parallel_read_safe
    config = SimpleNamespace(
        html_theme_options={"search_bar_text": "kept"}, nb_execution_cache_path="kept"
    )
    hooks["config-inited"](None, config)
    assert config.html_theme_options.pop("search_bar_text") == "kept"
    return config.html_theme_options, config.nb_execution_cache_path


def test_every_page_of_a_rehearsal_says_so_and_its_results_are_kept_apart(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    assert configured() == ({"announcement": rehearsal_notice.NOTICE}, "kept_quick")


@pytest.mark.parametrize("value", ["", "0"])
def test_no_page_of_the_book_does(value, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", value)
    assert configured() == ({}, "kept")
