"""What a person types around the book: each file is a command, ``python -m tools.check``."""

import sys


def speak_to_any_console() -> None:
    """Let a console that lacks a character show its number in place of ending the command.

    An old console of Windows has 256 characters, and a log file perhaps 128.

    Examples
    --------
    >>> speak_to_any_console()
    >>> print("any character")
    any character
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook, which shows every character
            stream.reconfigure(errors="backslashreplace")
