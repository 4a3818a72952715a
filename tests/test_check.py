"""The set-up check sees what is wrong."""

import sys
from importlib.metadata import PackageNotFoundError

import pytest

from helpers import check


def findings():
    return {name: (good, found) for good, name, found in check.check()}


def test_the_environment_that_runs_the_tests_is_ready(capsys):
    assert all(good for good, _ in findings().values())
    assert check.main() == 0
    assert "Ready." in capsys.readouterr().out


def test_an_old_python_is_named_with_the_cure(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    good, found = findings()["Python"]
    assert not good and found == "3.9.1; install Python 3.11, 3.12 or 3.13"


def test_a_missing_and_a_wrong_package_are_counted(monkeypatch, capsys):
    def version(name):
        if name == "nibabel":
            raise PackageNotFoundError(name)
        return "0.0" if name == "keras" else check._locked_versions()[name.lower()]

    monkeypatch.setattr(check, "version", version)
    assert findings()["nibabel"][1].startswith("not installed")
    assert findings()["keras"][1].startswith("0.0, the book was made with")
    assert check.main() == 2
    assert "2 to mend" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("theano", "theano; set KERAS_BACKEND to tensorflow, jax or torch"),
        ("torch", "torch is not installed\npip install torch"),
    ],
)
def test_a_backend_that_is_not_there_is_named_with_the_cure(name, told, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", name)
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    assert findings()["Keras backend"] == (False, told)


def test_data_that_is_missing_is_told_in_two_lines_with_the_command_whole(monkeypatch, capsys):
    monkeypatch.setattr(check, "find_data", lambda name: None)
    assert check.main() == 0  # nothing has to be fetched
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if "data: isles2022" in line)
    assert lines[first].endswith("not here; a synthetic cohort is used")
    assert lines[first + 1].strip() == "python -m helpers.download isles2022 gets it"


def test_more_cores_promise_fewer_minutes(monkeypatch):
    def minutes(cores):
        monkeypatch.setattr(check.os, "cpu_count", lambda: cores)
        good, found = findings()["minutes for book"]
        assert good
        return float(found.removeprefix("about "))

    # Four times as many cores leave room for a busy moment.
    assert minutes(1) > minutes(4) > 0


def test_a_slow_processor_is_told_to_wait_longer(monkeypatch):
    clock = iter(range(1000))  # each product takes a second
    monkeypatch.setattr(check.time, "perf_counter", lambda: next(clock))
    slow = check._expected_minutes(2)
    assert slow == check._BOOK_MINUTES / check._PRODUCT_SECONDS
