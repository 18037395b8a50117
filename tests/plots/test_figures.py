from itertools import pairwise

import numpy as np
import pytest

from det_losses.cli import main
from det_losses.plots import curve_figure
from det_losses.plots.curve_figure import MOST, spread
from det_losses.plots.sheet import FORMATS


def failure(capsys, *arguments):
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    return capsys.readouterr().err


def test_several_kinds_are_several_figures_and_none_is_replaced(tmp_path, capsys):
    command = ["plot_losses", "L1Loss", "MSELoss", "CrossEntropyLoss", "--out", str(tmp_path)]
    assert main(command) == 0
    names = [f"{name}.{each}" for name in ("curves_delta", "CrossEntropyLoss") for each in FORMATS]
    assert capsys.readouterr().out == "".join(f"wrote {tmp_path / name}\n" for name in names)
    svg = (tmp_path / "curves_delta.svg").read_text()
    assert ">MSELoss</text>" in svg and ">prediction - target</text>" in svg
    assert (tmp_path / "curves_delta.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    error = failure(capsys, *command)
    assert "curves_delta.svg exists; choose another --out, or --overwrite" in error
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert main([*command, "--overwrite"]) == 0


def test_a_landscape_prints_its_counts(tmp_path, capsys):
    main(["plot_losses", "AlphaIoU(IoULoss, alpha=3.0)", "--landscape", "--out", str(tmp_path)])
    first, second, *files = capsys.readouterr().out.splitlines()
    assert first.startswith("AlphaIoU(IoULoss, alpha=3.0), position: of 1600 cells")
    assert ", size: of 1600 cells" in second
    assert files[0] == f"wrote {tmp_path / 'AlphaIoU-IoULoss-alpha=3.0_landscape.svg'}"


def test_list_losses_draws_the_loss_of_the_card(tmp_path, capsys):
    assert main(["list_losses", "L1Loss", "--plot", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("L1Loss: box loss") and f"wrote {tmp_path / 'L1Loss.svg'}" in text
    assert "--plot needs the NAME of a loss" in failure(capsys, "list_losses", "--plot")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["giou"], "Did you mean 'GIoULoss'"),
        (["FocalLoss", "--landscape"], "FocalLoss is not a box loss"),
        ([f"SmoothL1Loss(beta={k})" for k in range(1, MOST + 2)], "one figure shows up to 10"),
        (["L1Loss", "--import", "no_such_module"], "--import no_such_module: cannot be imported"),
    ],
)
def test_bad_input_is_one_error_and_no_file(arguments, message, tmp_path, capsys):
    error = failure(capsys, "plot_losses", *arguments, "--out", str(tmp_path))
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wanted", [[5, 5, 5, 5], [0, 1, 99, 100], [40, 50, 60], [0] * 12])
def test_names_do_not_overlap(wanted):
    places = spread(wanted, 10, 100)
    assert len(places) == len(wanted)
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(places))
    if len(wanted) <= 10:
        assert min(places) >= 5 and max(places) <= 95


def test_the_rounding_of_a_constant_does_not_fill_the_axis():
    low, high = curve_figure._limits([np.sqrt(2) + 1e-15 * np.arange(-4, 5)])
    assert low < 1 and high > 2
    assert curve_figure._limits([np.zeros(3)]) == (-0.5, 0.5)
