"""What every helper may use: silence, what is told, and truth values that are none other."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers import as_array, hear, in_words, silent_stderr, tell, yes_or_no
from helpers.brain import find_brain
from helpers.hemispheres import Midline, even_out, find_midline, gather, mirror, relative_to_mode
from helpers.intensity import normalize_intensity
from helpers.patches import extract_patches, reconstruct_from_patches


def test_the_file_descriptor_is_silent_inside_and_speaks_again_after(capfd):
    with silent_stderr():
        os.write(2, b"start-up line\n")
    os.write(2, b"a real message\n")
    assert capfd.readouterr().err == "a real message\n"


def test_an_error_inside_comes_out_and_the_stream_is_given_back(capfd):
    with pytest.raises(RuntimeError, match="told"), silent_stderr():
        raise RuntimeError("told")
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


def test_threads_that_take_turns_give_the_stream_back(capfd):
    def turn(_):
        with silent_stderr():
            os.write(2, b"lost\n")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(turn, range(200)))
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


def test_a_block_within_a_block_gives_the_stream_back_at_the_outer_end(capfd):
    with silent_stderr():
        with silent_stderr():
            os.write(2, b"lost\n")
        os.write(2, b"lost, too\n")
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


RAGGED = [[1.0], [1.0, 2.0]]
HIDDEN = np.ma.masked_less(np.arange(8.0).reshape(2, 2, 2), 1)
MIDLINE, ONES = Midline((0.0, 0.0, 1.0), 0.5, (1.0, 1.0, 1.0)), np.ones((2, 2, 2), bool)
ENTRANCES = {
    "find_brain": ("volume", lambda x: find_brain(x, (1, 1, 1))),
    "relative_to_mode": ("volume", lambda x: relative_to_mode(x, ONES)),
    "find_midline": ("volume", lambda x: find_midline(x, ONES, (1, 1, 1))),
    "mirror": ("volume", lambda x: mirror(x, MIDLINE)),
    "mirror, no midline": ("volume", mirror),
    "even_out": ("dwi", lambda x: even_out(x, ONES, MIDLINE)),
    "gather": ("values", lambda x: gather(x, ONES, (1, 1, 1))),
    "normalize_intensity": ("volume", normalize_intensity),
    "the mask of normalize_intensity": ("mask", lambda x: normalize_intensity(ONES * 1.0, mask=x)),
    "extract_patches": ("volume", lambda x: extract_patches(x, (2, 2))),
    "its mask": ("lesion_mask", lambda x: extract_patches(ONES, (2, 2), lesion_mask=x)),
    "reconstruct": ("patches", lambda x: reconstruct_from_patches(x, [[0, 0, 0]] * 2, (2, 2, 2))),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_what_is_masked_or_ragged_is_no_array_at_any_entrance(entrance):
    name, call = ENTRANCES[entrance]
    with pytest.raises(ValueError, match=f"^{name} must hold no masked .* found 1 masked values$"):
        call(HIDDEN)
    with pytest.raises(ValueError, match=f"^{name} must be an array, found rows of different"):
        call(RAGGED)


def test_an_array_is_taken_as_it_is():
    values = np.arange(3, dtype=np.int16)
    assert as_array("values", values) is values
    assert as_array("values", np.ma.array(values)).tolist() == [0, 1, 2]  # nothing is masked
    assert as_array("values", [[1, 2], [3, 4]]).shape == (2, 2)


@pytest.mark.parametrize("dtype", [bool, int, np.uint8, np.float16, np.float32, float])
def test_yes_and_no_are_bool_whatever_number_they_came_as(dtype):
    taken = yes_or_no("mask", np.array([[0, 1], [1, 1]], dtype))
    assert taken.dtype == bool and taken.tolist() == [[False, True], [True, True]]
    assert yes_or_no("mask", np.zeros((2, 0), dtype)).shape == (2, 0)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.5, 1], r"\[0\.5, 1\.0\]"),
        ([np.nan, 0], r"\[0\.0, nan\]"),
        ([-1, 1], r"\[-1, 1\]"),
        (np.uint8([0, 255]), r"\[0, 255\]"),
        ([9, 8, 7, 1, 0, 5], r"\[0, 1, 5, 7, 8\]"),
        (["0", "1"], "dtype <U1"),
        ([None, True], "dtype object"),
        ([1j], "dtype complex128"),
        (np.array(["2020-01-01"], "M8[D]"), r"dtype datetime64\[D\]"),
    ],
)
def test_what_is_neither_is_refused_by_its_name(values, found):
    with pytest.raises(ValueError, match=f"^mask must hold 0 and 1 only, found {found}"):
        yes_or_no("mask", values)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("the text of a sentence"), "the text of a sentence"),
        (FileNotFoundError(2, "No such file", "a.nii"), "[Errno 2] No such file: 'a.nii'"),
        (EOFError(), "EOFError"),
        (MemoryError("  "), "MemoryError"),
        (AssertionError(""), "AssertionError"),
        (KeyError("0"), "KeyError: '0'"),
        (KeyError("two words"), "KeyError: 'two words'"),
        (StopIteration(3), "StopIteration: 3"),
        (ValueError("x"), "ValueError: x"),
    ],
)
def test_an_error_s_type_is_told_where_its_text_says_too_little(error, words):
    assert in_words(error) == words


def test_what_is_told_is_heard_by_who_listens_and_is_a_warning_otherwise():
    def work(name):
        tell(f"{name} has no mask")
        return name.upper()

    with pytest.warns(UserWarning, match="^a has no mask$") as told:
        assert work("a") == "A"
    assert told[0].filename == __file__  # of the line that called, as a warning is
    assert hear(work, "b") == ("B", ["b has no mask"])
    assert hear(hear, work, "c") == (("C", ["c has no mask"]), [])  # the nearest one hears it
    with pytest.warns(UserWarning, match="d has no mask"):  # and nobody listens any more
        work("d")


def test_an_error_ends_the_listening():
    with pytest.raises(ZeroDivisionError):
        hear(divmod, 1, 0)
    with pytest.warns(UserWarning, match="told"):
        tell("told")


def test_each_thread_hears_its_own():
    def work(number):
        tell(str(number))

    with ThreadPoolExecutor(8) as threads:
        heard = threads.map(lambda number: hear(work, number), range(200))
        assert [told for _, told in heard] == [[str(number)] for number in range(200)]


@pytest.mark.parametrize(
    ("message", "module", "shown"),
    [
        ("invalid value encountered in matmul", "sklearn.linear_model._linear_loss", False),
        ("overflow encountered in matmul", "sklearn.linear_model._linear_loss", True),
        ("invalid value encountered in matmul", "sklearn.decomposition._pca", True),
        ("invalid value encountered in matmul", "__main__", True),
    ],
)
def test_one_false_alarm_is_not_shown_and_no_other(message, module, shown):
    warn = f"warn_explicit({message!r}, RuntimeWarning, 'a.py', 1, module={module!r})"
    code = f"import helpers; from warnings import warn_explicit; {warn}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (message in run.stderr) == shown
