"""The set-up check sees what is wrong."""

import io
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from helpers import data
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


# --- what Keras goes by ---------------------------------------------------------------------------


@pytest.fixture
def keras_file(tmp_path, monkeypatch):
    """Where Keras looks for its settings: a home of its own, without variables."""
    for variable in [name for name in os.environ if name.startswith("KERAS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()
    return tmp_path / ".keras" / "keras.json"


GOOD = {
    "floatx": "float32",
    "epsilon": 1e-7,
    "backend": "tensorflow",
    "image_data_format": "channels_last",
}


@pytest.mark.parametrize(
    "content", [None, "", "{", json.dumps(GOOD), "{}", '{"floatx": "float32"}']
)
def test_settings_that_keras_can_go_by_are_as_the_book_needs_them(keras_file, content):
    if content is not None:
        keras_file.write_text(content)
    unread = f"\nKeras finds no settings in {keras_file}" if content in ("", "{", "{}") else ""
    assert findings()["Keras backend"] == (True, f"tensorflow{unread}")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"backend": "theano"}, "theano; set KERAS_BACKEND to tensorflow, jax or torch"),
        ({"backend": "cntk"}, "cntk; set KERAS_BACKEND"),
        ({"backend": "Tensorflow"}, "Tensorflow; set KERAS_BACKEND"),
        ({"backend": None}, "None; set KERAS_BACKEND"),
        ({"backend": "torch"}, "torch is not installed\npip install torch"),
        ({"backend": "jax"}, "jax is not installed\npip install jax"),
        (
            {"image_data_format": "channels_first"},
            "says image_data_format 'channels_first'; change",
        ),
        ({"image_data_format": "th"}, "says image_data_format 'th'; change it to 'channels_last'"),
        ({"floatx": "float16"}, "says floatx 'float16'; change it to 'float32'"),
        ({"floatx": "bfloat16"}, "says floatx 'bfloat16'; change it to 'float32'"),
        ({"floatx": ["float32"]}, "says floatx ['float32']; change it to 'float32'"),
        ({"epsilon": "1e-7"}, "says epsilon '1e-7'; change it to 1e-07"),
        ({"epsilon": 0.5}, "says epsilon 0.5; change it to 1e-07"),
        ({"epsilon": -1e-7}, "says epsilon -1e-07; change it to 1e-07"),
        ({"epsilon": float("nan")}, "says epsilon nan; change it to 1e-07"),
        ({"epsilon": 0}, "says epsilon 0; change it to 1e-07"),
        ({"nnx_enabled": True}, "says nnx_enabled True; change it to false"),
        ({"nnx_enabled": "no"}, "says nnx_enabled 'no'; change it to false"),
    ],
    ids=str,
)
def test_a_file_of_keras_that_stops_the_book_is_named(keras_file, monkeypatch, settings, told):
    keras_file.write_text(json.dumps({**GOOD, **settings}))
    monkeypatch.setattr(check, "find_spec", lambda name: name == "tensorflow" or None)
    good, found = findings()["Keras backend"]
    assert not good and told in found and str(keras_file) in found
    assert check.main() > 0


@pytest.mark.parametrize("content", ["[]", "3", '"theano"', None])
def test_a_file_at_which_keras_would_stop_is_named(keras_file, content):
    keras_file.mkdir() if content is None else keras_file.write_text(content)
    good, found = findings()["Keras backend"]
    assert not good and found.startswith(f"{keras_file}: ")
    assert found.endswith("\ncorrect the file, or remove it")


@pytest.mark.parametrize(
    ("in_file", "variable", "expected"),
    [
        ("theano", "tensorflow", (True, "tensorflow")),
        ("theano", "jax", (True, "jax")),
        ("tensorflow", "theano", (False, "theano; set KERAS_BACKEND to tensorflow, jax or torch")),
        ("jax", "", (True, "jax\nas {} says")),
    ],
)
def test_the_variable_comes_before_the_file(keras_file, monkeypatch, in_file, variable, expected):
    keras_file.write_text(json.dumps({**GOOD, "backend": in_file}))
    monkeypatch.setenv("KERAS_BACKEND", variable)
    monkeypatch.setattr(check, "find_spec", lambda name: name)
    good, told = expected
    assert findings()["Keras backend"] == (good, told.format(keras_file))


def test_another_home_of_keras_is_looked_into(keras_file, tmp_path, monkeypatch):
    keras_file.write_text(json.dumps(GOOD))
    (tmp_path / "another").mkdir()
    another = tmp_path / "another" / "keras.json"
    another.write_text('{"floatx": "float16"}')
    monkeypatch.setenv("KERAS_HOME", "~/another")
    good, found = findings()["Keras backend"]
    assert not good and found.startswith(f"{another}\nsays floatx")


@pytest.mark.parametrize("variable", ["KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"])
def test_a_variable_that_cuts_training_short_is_named(keras_file, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert findings()["Keras backend"] == (
        False,
        f"{variable} is set, so training is cut short; unset it",
    )


@pytest.mark.parametrize(
    ("value", "good"), [("1", False), ("True", False), ("0", True), ("", True), ("yes", True)]
)
def test_a_variable_that_asks_keras_for_flax_is_named(keras_file, monkeypatch, value, good):
    keras_file.write_text(json.dumps({**GOOD, "nnx_enabled": True}))  # comes after the variable
    monkeypatch.setenv("KERAS_NNX_ENABLED", value)
    expected = (True, "tensorflow") if good else (False, f"KERAS_NNX_ENABLED is {value}; unset it")
    assert findings()["Keras backend"] == expected


def test_an_empty_home_of_keras_is_no_folder(keras_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", "")
    good, found = findings()["Keras backend"]
    assert not good and found == "KERAS_HOME is set to no folder; name one, or unset it"


@pytest.mark.parametrize(
    "settings",
    [{"backend": "theano"}, {"floatx": "float16"}, {"nnx_enabled": True}, GOOD],
    ids=["bad", "other", "nnx", "good"],
)
def test_what_is_said_of_keras_is_what_keras_does(keras_file, settings):
    keras_file.write_text(json.dumps(settings))
    good, _ = findings()["Keras backend"]
    code = "import keras; assert keras.config.floatx() == 'float32'; import helpers.vae"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert good == (run.returncode == 0)


# --- what is written, and said --------------------------------------------------------------------


def test_it_is_said_where_the_book_writes(tmp_path, monkeypatch):
    monkeypatch.delenv("VAE_BOOK_OUTPUT", raising=False)
    assert findings()["written to"] == (True, "data/")
    own = tmp_path / "own"
    monkeypatch.setenv("VAE_BOOK_OUTPUT", str(own))
    assert findings()["written to"] == (True, f"…/{tmp_path.name}/own (VAE_BOOK_OUTPUT)")
    assert f"{own.name} (VAE_BOOK_OUTPUT)\nthen data/" in findings()["data folder"][1]
    assert list(own.iterdir()) == []


@pytest.mark.parametrize("why", ["read-only", "not permitted", "full", "a file"])
def test_a_folder_in_which_nothing_can_be_written_is_to_mend(tmp_path, monkeypatch, capsys, why):
    place = tmp_path / "data"
    monkeypatch.delenv("VAE_BOOK_OUTPUT", raising=False)
    monkeypatch.setattr(data, "_BOOK_DATA", place)
    if why == "a file":
        place.touch()
    else:
        number = {"read-only": 30, "not permitted": 13, "full": 28}[why]

        def refused(dir):
            raise OSError(number, why)

        monkeypatch.setattr(data.tempfile, "TemporaryFile", refused)
    good, told = findings()["written to"]
    assert not good and told.startswith(f"{place}: nothing can be written there (")
    assert "\ncopy the book to a folder of your own, or set VAE_BOOK_OUTPUT" in told
    assert check.main() == 1 and "Ready." not in capsys.readouterr().out


def test_a_book_that_cannot_be_built_can_be_worked_in(tmp_path, monkeypatch):
    monkeypatch.setenv("VAE_BOOK_OUTPUT", str(tmp_path))
    monkeypatch.setattr(check, "_BOOK", tmp_path / "book")
    (tmp_path / "book").touch()
    good, told = findings()["written to"]
    assert good and "but no pages can be built here: " in told


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp850", "latin-1", "utf-8"])
def test_any_console_is_told(shelf, monkeypatch, encoding):
    class_folder = shelf / "Übungen Ελλάς 数据"
    class_folder.mkdir()
    monkeypatch.setenv("VAE_BOOK_DATA", str(class_folder))
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    assert check.main() == 0
    shown.flush()
    text = shown.buffer.getvalue().decode(encoding)
    assert "(VAE_BOOK_DATA)" in text and text.endswith("\nReady.\n")
    assert ("Übungen Ελλάς 数据" in text) == (encoding == "utf-8")


def test_a_lock_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "_LOCK", tmp_path / "requirements.txt")
    for content in (None, b"", b"\xff\xfe", b"<<<<<<< HEAD"):
        if content is not None:
            check._LOCK.write_bytes(content)
        good, told = findings()["numpy"]
        assert not good and told.endswith(f"{check._LOCK} does not say which version is needed")


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
    arrays = {"image": np.ones((1449, 2, 3), np.uint8), "lesion": np.zeros((1449, 2, 3), bool)}
    np.savez_compressed(slices, **arrays, subject_id=np.arange(1449))
    assert findings()["data: soop slices"] == (True, "real patients, one slice of each: 1,449")
    whole = slices.read_bytes()
    for damaged in (whole[:-9], b"Error 404: not found", b"", whole[:35] + b"?" + whole[36:]):
        slices.write_bytes(damaged)
        good, told = findings()["data: soop slices"]
        assert not good and str(slices) in told and told.endswith("tools.download soop-slices")


@pytest.mark.parametrize(
    "changed",
    [
        {"image": None},
        {"lesion": None},
        {"subject_id": np.arange(4)},
        {"image": np.ones((3, 4, 4))},
        {"image": np.ones((3, 4, 5), "S1")},
        {"lesion": np.full((3, 4, 5), 2)},
    ],
    ids=str,
)
def test_slices_that_the_book_cannot_use_are_to_mend(shelf, changed):
    arrays = {"image": np.ones((3, 4, 5)), "lesion": np.ones((3, 4, 5)), "subject_id": np.arange(3)}
    arrays |= changed
    (shelf / "soop_flair").mkdir()
    np.savez(
        shelf / "soop_flair" / "axial_slices.npz",
        **{name: array for name, array in arrays.items() if array is not None},
    )
    good, told = findings()["data: soop slices"]
    assert not good and told.endswith(
        "\ndelete it and fetch it anew: python -m tools.download soop-slices"
    )


@pytest.mark.parametrize("name", ["mnist.npz", "soop_flair/axial_slices.npz"])
def test_a_pipe_in_place_of_data_is_not_waited_for(shelf, name):
    (shelf / name).parent.mkdir(exist_ok=True)
    os.mkfifo(shelf / name)
    told = findings()
    good, words = told["data: mnist.npz" if name == "mnist.npz" else "data: soop slices"]
    assert not good and str(shelf / name) in words


def test_whoever_stops_reading_early_is_told_nothing_more():
    command = [sys.executable, "-u", "-m", "tools.check"]
    folder = Path(__file__).parents[2]
    run = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run.stdout.close()  # before a line is written
    assert "BrokenPipe" not in (errors := run.stderr.read()) and "Traceback" not in errors
    assert run.wait() == 0
    run.stderr.close()


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
