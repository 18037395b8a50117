import pytest
from mmengine.registry import Registry

from det_losses.cli.errors import user_errors


def raised(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("num_classes is 3"), "error: num_classes is 3\n"),
        (TypeError("beta must be a number"), "error: beta must be a number\n"),
        # KeyError quotes its message when printed; a user reads it as it was written.
        (KeyError("'GIuLoss' is not registered"), "error: 'GIuLoss' is not registered\n"),
    ],
)
def test_a_raised_error_is_one_line_and_status_2(error, text, capsys):
    with pytest.raises(SystemExit) as exit_info, user_errors():
        raised(error)()
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == text


def test_a_missing_file_of_the_user_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit), user_errors():
        open(tmp_path / "absent.json")
    assert "absent.json" in capsys.readouterr().err


@pytest.mark.parametrize("bug", [lambda: {}["key"], lambda: None + 1, lambda: int("x")])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises((KeyError, TypeError, ValueError)), user_errors():
        bug()


def test_a_wrong_argument_in_a_config_is_an_error_of_the_user(capsys):
    registry = Registry("things")
    registry.register_module(name="Thing", module=lambda a=1: None)
    with pytest.raises(SystemExit), user_errors():
        registry.build({"type": "Thing", "b": 2})
    assert "unexpected keyword argument 'b'" in capsys.readouterr().err
