"""The standard streams of a process and its encoding, put right before anything else runs."""

import codecs
import io
import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by descriptor


def prepare_process() -> None:
    """Make closed streams, the C locale and narrow encodings harmless; may start this process anew, in UTF-8 mode."""
    open_closed_streams()
    use_utf8()
    write_any_text()


def open_closed_streams() -> None:
    """Put the null device in the place of every standard stream that is closed.

    Otherwise the next file or socket would get the stream's number, and what a library prints would go into it.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        is_open = _is_open(number)
        if not is_open:
            _replace_by_null_device(number)
        if getattr(sys, name) is None:  # the descriptor may belong to something else by now
            target: int | str = os.devnull if is_open else number
            setattr(sys, name, open(target, mode, encoding="utf-8", closefd=is_open))  # noqa: SIM115 open to the end


def discard(number: int) -> None:
    """Send what is written to this standard stream from now on, and what it still holds, to nowhere."""
    _replace_by_null_device(number)


def use_utf8() -> None:
    """Start this process anew in Python's UTF-8 mode, unless file names are UTF-8 already.

    In the C locale under PYTHONUTF8=0, Python takes names for ASCII; those that are not cannot be opened by the text
    that listings and manifests have of them. Processes that this one starts inherit the mode.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name == "utf-8" or sys.flags.utf8_mode or not sys.executable:
        return
    environment = os.environ | {"PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)  # noqa: S606 no shell


def write_any_text() -> None:
    """Let standard output and error take every character: escaped where their encoding lacks it, UTF-8 for ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _replace_by_null_device(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(opened, number)  # inheritable
        os.close(opened)
