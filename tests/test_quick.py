"""A rehearsal takes less of everything, and says so."""

from types import SimpleNamespace

import pytest
from sphinx.extension import Extension

from helpers import cache, quick


@pytest.fixture(params=[None, "", "0"])
def full(request, monkeypatch):
    monkeypatch.delenv("VAE_BOOK_QUICK", raising=False)
    if request.param is not None:
        monkeypatch.setenv("VAE_BOOK_QUICK", request.param)


@pytest.fixture
def rehearsal(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")


def test_unasked_nothing_is_less(full):
    assert [quick.fewer(n, at_least=3) for n in (1, 30, 100)] == [1, 30, 100]


def test_a_rehearsal_takes_a_tenth_but_enough_and_never_more(rehearsal):
    assert [quick.fewer(n) for n in (100, 34, 4, 1)] == [10, 3, 1, 1]
    assert quick.fewer(30, at_least=10) == 10
    assert quick.fewer(5, at_least=10) == 5


def test_another_value_is_refused_with_both_values(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "yes")
    with pytest.raises(ValueError, match="VAE_BOOK_QUICK must be 0 or 1, found 'yes'"):
        quick.fewer(10)


def configured():
    """What Sphinx would announce, and where it would keep results, after the extension's hook."""
    hooks = {}
    metadata = quick.setup(SimpleNamespace(connect=hooks.__setitem__))
    # Else Sphinx would build the whole book a page at a time.
    assert Extension("quick", quick, **metadata).parallel_read_safe
    config = SimpleNamespace(
        html_theme_options={"search_bar_text": "kept"}, nb_execution_cache_path="kept"
    )
    hooks["config-inited"](None, config)
    assert config.html_theme_options.pop("search_bar_text") == "kept"
    return config.html_theme_options, config.nb_execution_cache_path


def test_every_page_of_a_rehearsal_says_so_and_its_results_are_kept_apart(rehearsal):
    assert configured() == ({"announcement": quick.NOTICE}, "kept_quick")


def test_no_page_of_the_book_does(full):
    assert configured() == ({}, "kept")


def test_a_result_of_a_rehearsal_is_not_taken_for_the_book_s(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "data_folder", lambda: tmp_path)
    monkeypatch.delenv("VAE_BOOK_QUICK", raising=False)

    def epochs():
        return quick.fewer(30)

    assert cache.cached(epochs) == 30
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    assert cache.cached(epochs) == 3
