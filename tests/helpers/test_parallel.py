"""Calls run side by side, in order, and say how far they are."""

import builtins
import os
import re
import time

import numpy as np
import pytest
from joblib import delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from helpers import tell
from helpers.cohort import load_descriptors
from helpers.parallel import in_parallel, map_cases
from helpers.scans import Case


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


@pytest.mark.parametrize("on_a_cluster", [False, True])
def test_a_patient_that_fails_is_named_after_all_others_were_gone_through(
    tmp_path, on_a_cluster, request
):
    client = request.getfixturevalue("client") if on_a_cluster else None

    def touch(case):
        if case.subject_id in "bd":
            raise ZeroDivisionError("what a score may well do")
        (tmp_path / case.subject_id).touch()

    cases = [Case(name, tmp_path / "scan.nii") for name in "abcd"]
    message = r"2 of 4 patients.*\nb: what a score may well do\nd: what a score"
    with pytest.raises(ExceptionGroup, match=message) as caught:
        map_cases(touch, cases, client=client)
    assert [type(error) for error in caught.value.exceptions] == 2 * [ZeroDivisionError]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (EOFError(), "EOFError"),
        (KeyError("0"), "KeyError: '0'"),
        (MemoryError(), "MemoryError"),
        (AssertionError(""), "AssertionError"),
        (ValueError("0.99999994 is neither 0 nor 1"), "0.99999994 is neither 0 nor 1"),
    ],
)
def test_no_patient_is_blamed_without_a_reason(error, words):
    def fails(case):
        raise error

    with pytest.raises(ExceptionGroup) as caught, parallel_config(backend="threading"):
        map_cases(fails, [Case("sub-1", "scan.nii")])
    assert f"\nsub-1: {words}\n" in str(caught.value)


def complain(number):
    tell("the folder is read-only")
    tell(f"{number % 2} is damaged")
    return number


@pytest.mark.parametrize("how", ["processes", "threads", "one by one", "a cluster"])
def test_what_calls_tell_is_told_once_where_the_reader_is(how, request, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_QUICK", "1" if how == "one by one" else "0")
    backend = "threading" if how == "threads" else "loky"
    with pytest.warns(UserWarning) as told, parallel_config(backend=backend):
        if how == "a cluster":
            client = request.getfixturevalue("client")
            cases = [Case(number, "scan.nii") for number in range(4)]
            found = map_cases(lambda case: complain(case.subject_id), cases, client=client)
        else:
            found = in_parallel(delayed(complain)(number) for number in range(4))
    assert found == [0, 1, 2, 3]
    assert [str(warning.message) for warning in told] == [
        "the folder is read-only",
        "0 is damaged",
        "1 is damaged",
    ]


def test_the_clusters_own_page_is_on_this_machine_only_and_not_where_everybody_has_it(client):
    assert re.match(r"http://127\.0\.0\.1:(?!8787/)\d+/", client.dashboard_link)


@pytest.mark.parametrize("of_nobody", [load_descriptors, lambda cases: map_cases(str, cases)])
def test_no_patient_at_all_is_refused(of_nobody):
    with pytest.raises(ValueError, match=r"^cases must name at least one patient"):
        of_nobody([])


@pytest.mark.skipif(os.cpu_count() == 1, reason="there is one core only")
def test_other_processes_do_the_work(tmp_path):
    cases = [Case(name, tmp_path / "scan.nii") for name in "abc"]
    assert os.getpid() not in map_cases(lambda case: os.getpid(), cases)


def test_a_bar_says_how_far_it_is_and_leaves_nothing_on_the_page(tmp_path, capsys):
    with parallel_config(backend="threading"):
        map_cases(str, [Case(name, tmp_path / "scan.nii") for name in "abc"])
    shown = capsys.readouterr().err
    assert "0/3" in shown and "scan/s" in shown
    assert shown.endswith("\r")


def grow(n):
    hoard = vars(builtins).setdefault("hoard_of_a_test", [])
    hoard.append(np.ones(50_000_000))  # 400 MB, of which joblib takes note after a second
    time.sleep(1.1)
    return n


def test_a_process_that_has_grown_is_replaced_and_nobody_waits_for_ever():
    # Where pytest made an error of joblib's warning, the thread that it came from ended, and this
    # never did.
    assert in_parallel(delayed(grow)(n) for n in range(6)) == list(range(6))
