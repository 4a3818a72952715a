"""The set-up check sees what is wrong."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from helpers.phantom import write_cohort
from tools import check


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
    assert lines[first + 1].strip() == "python -m tools.download isles2022 gets it"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A data folder of a class."""
    monkeypatch.setenv("VAE_BOOK_DATA", str(tmp_path))
    return tmp_path


def test_it_is_said_where_data_are_looked_for(shelf):
    good, told = findings()["data folder"]
    assert good and told == f"…/{shelf.parent.name}/{shelf.name} (VAE_BOOK_DATA)\nthen data/"


def test_a_folder_that_is_not_there_is_named(shelf, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_DATA", str(shelf / "nowhere"))
    good, told = findings()["data folder"]
    assert not good and "nowhere', which is not a folder\nset it to" in told


def test_data_that_cannot_be_used_are_to_mend(shelf):
    (shelf / "mnist.npz").write_text("Error 404: not found")
    (shelf / "isles2022").mkdir()
    told = findings()
    assert told["data: mnist.npz"] == (
        False,
        f"{shelf / 'mnist.npz'} is not a readable MNIST archive\n"
        "fetch it again: python -m tools.download mnist",
    )
    good, words = told["data: isles2022"]
    assert not good and words.endswith(
        "found 0 other volumes\npython -m tools.download isles2022 fetches it again"
    )


def test_scans_are_counted(shelf):
    write_cohort(shelf / "isles2022", 1)
    assert findings()["data: isles2022"] == (
        True,
        "scans: 1, with a lesion mask: 1\nshown; to judge methods, ten are needed",
    )
    next(shelf.rglob("*_msk.nii.gz")).unlink()
    good, told = findings()["data: isles2022"]
    assert not good and told.startswith("scans: 1, with a lesion mask: 0\nnot used: no file")


def test_slices_are_counted_and_opened(shelf):
    slices = shelf / "soop_flair" / "axial_slices.npz"
    good, told = findings()["data: soop slices"]
    assert good and told.endswith(
        "\npython -m tools.download soop-slices puts real patients on the pages"
    )
    slices.parent.mkdir()
    np.savez_compressed(slices, subject_id=np.arange(1449))
    assert findings()["data: soop slices"] == (True, "real patients, one slice of each: 1,449")
    whole = slices.read_bytes()
    for damaged in (whole[:-9], b"Error 404: not found", b"", whole[:40] + b"?" + whole[41:]):
        slices.write_bytes(damaged)
        good, told = findings()["data: soop slices"]
        assert not good and str(slices) in told and "tools.download soop-slices fetches" in told


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", (True, "no")),
        ("1", (True, "yes; unset VAE_BOOK_QUICK for the book's numbers")),
        ("yes", (False, "VAE_BOOK_QUICK must be 0 or 1, found 'yes'")),
    ],
)
def test_a_rehearsal_is_not_forgotten(monkeypatch, value, expected):
    monkeypatch.setenv("VAE_BOOK_QUICK", value)
    assert findings()["rehearsal"] == expected


def test_it_runs_where_no_package_is_installed():
    # -S and -E leave out all that was installed.
    run = subprocess.run(
        [sys.executable, "-S", "-E", "-m", "tools.check"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert "NO  numpy" in run.stdout and "not installed, the book was made with" in run.stdout
    assert "to mend, marked NO above." in run.stdout and not run.stderr


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
