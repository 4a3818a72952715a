"""A rehearsal takes less of everything."""

import pytest

from helpers import data, rehearsal


@pytest.fixture(params=[None, "", "0"])
def full(request, monkeypatch):
    monkeypatch.delenv("VAE_BOOK_QUICK", raising=False)
    if request.param is not None:
        monkeypatch.setenv("VAE_BOOK_QUICK", request.param)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")


def test_unasked_nothing_is_less(full):
    assert [rehearsal.fewer(n, at_least=3) for n in (1, 30, 100)] == [1, 30, 100]


def test_a_rehearsal_takes_a_tenth_but_enough_and_never_more(quick):
    assert [rehearsal.fewer(n) for n in (100, 34, 4, 1)] == [10, 3, 1, 1]
    assert rehearsal.fewer(30, at_least=10) == 10
    assert rehearsal.fewer(5, at_least=10) == 5


def test_another_value_is_refused_with_both_values(monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "yes")
    with pytest.raises(ValueError, match="VAE_BOOK_QUICK must be 0 or 1, found 'yes'"):
        rehearsal.fewer(10)


def test_a_result_of_a_rehearsal_is_not_taken_for_the_book_s(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "data_folder", lambda: tmp_path)
    monkeypatch.delenv("VAE_BOOK_QUICK", raising=False)

    def epochs():
        return rehearsal.fewer(30)

    assert data.cached(epochs) == 30
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    assert data.cached(epochs) == 3
