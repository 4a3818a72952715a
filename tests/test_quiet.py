"""What is written past Python is turned away, and only for a while."""

import logging
import os

import pytest

from helpers.quiet import quiet_stderr


def test_the_file_descriptor_is_silent_inside_and_speaks_again_after(capfd):
    with quiet_stderr():
        os.write(2, b"start-up line\n")
    os.write(2, b"a real message\n")
    assert capfd.readouterr().err == "a real message\n"


def test_an_error_inside_comes_out_and_the_stream_is_given_back(capfd):
    with pytest.raises(RuntimeError, match="told"), quiet_stderr():
        raise RuntimeError("told")
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


def test_only_the_advice_on_tracing_is_dropped(caplog):
    logger = logging.getLogger("tensorflow")
    caplog.handler.setLevel(logging.WARNING)
    logger.addHandler(caplog.handler)
    logger.warning("5 out of the last %d calls triggered tf.function retracing.", 9)
    logger.warning("out of memory")
    logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"out of memory"}
