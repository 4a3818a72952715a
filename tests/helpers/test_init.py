"""What is written past Python is turned away, and only for a while."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers import silent_stderr


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
