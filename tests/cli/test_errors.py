"""Which exceptions a tool prints as one line, and which keep their traceback."""

import errno
import os
from pathlib import Path

import pytest

from det_losses.cli.errors import user_errors
from det_losses.errors import (
    InputError,
    InputTypeError,
    MissingFileError,
    NotRegisteredError,
    UserError,
)


@pytest.mark.parametrize(
    "kind", [UserError, InputError, InputTypeError, MissingFileError, NotRegisteredError]
)
def test_a_user_error_is_one_line_and_status_2(kind, capsys):
    with pytest.raises(SystemExit) as exit_info, user_errors():
        raise kind("num_classes is 'three'")
    assert exit_info.value.code == 2
    # KeyError would quote its message when printed.
    assert capsys.readouterr().err == "error: num_classes is 'three'\n"


def test_an_error_about_a_named_file_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit), user_errors():
        open(tmp_path / "absent.json")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "absent.json" in error


def raises_os_error_without_a_file():
    raise OSError("no space left on device")


@pytest.mark.parametrize(
    "bug",
    [
        lambda: Path("a.json").relative_to("/b"),  # pathlib raises a ValueError of its own
        lambda: {}["key"],
        lambda: None + 1,
        lambda: int("x"),
        raises_os_error_without_a_file,
    ],
)
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises((KeyError, TypeError, ValueError, OSError)), user_errors():
        bug()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_without_the_name_of_a_file_too(number, capsys):
    with pytest.raises(SystemExit, match="2"), user_errors():
        raise OSError(number, os.strerror(number))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: [Errno {number}] {os.strerror(number)}"


def test_an_error_is_a_few_lines_and_does_not_control_the_terminal(capsys):
    with pytest.raises(SystemExit), user_errors():
        raise InputError("class \x1b[2Jcat\u202e: " + 10000 * "x" + " the end")
    error = capsys.readouterr().err
    assert error.startswith("error: class \\x1b[2Jcat\\u202e: xxx")
    assert error.endswith("xxx the end\n")
    assert len(error) < 1100
