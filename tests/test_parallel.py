"""Calls run side by side, in order, and say how far they are."""

import os

import pytest
from joblib import delayed
from joblib.externals.loky import get_reusable_executor

from helpers.parallel import in_parallel


def fail(number):
    raise ValueError(f"{number} is one too many")


@pytest.fixture(autouse=True)
def own_processes():
    """Processes that are kept would stop some tests later, and their warning would be an error."""
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(params=["book", "rehearsal"])
def kind(request, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1" if request.param == "rehearsal" else "0")
    return request.param


def test_results_come_in_the_order_of_the_calls(kind):
    assert in_parallel(delayed(divmod)(n, 3) for n in (9, 7, 8)) == [(3, 0), (2, 1), (2, 2)]


def test_how_many_are_done_is_shown_and_then_wiped_away(kind, capsys):
    in_parallel([delayed(abs)(n) for n in (1, 2)], unit="network")
    shown = capsys.readouterr().err
    assert "0/2" in shown and "network" in shown and shown.endswith("\r")


def test_an_error_arrives_as_it_was_raised(kind):
    with pytest.raises(ValueError, match="2 is one too many"):
        in_parallel([delayed(abs)(1), delayed(fail)(2)])


def test_only_a_rehearsal_stays_in_this_process(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")  # so also where there is one core
    monkeypatch.setenv("VAE_BOOK_QUICK", "0")
    assert os.getpid() not in in_parallel(delayed(os.getpid)() for _ in range(4))
    monkeypatch.setenv("VAE_BOOK_QUICK", "1")
    assert in_parallel(delayed(os.getpid)() for _ in range(4)) == [os.getpid()] * 4
