"""`det-losses simulate`: outputs, stored results, errors."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from det_losses.cli import main

SMALL = ["--cases", "686", "--steps", "4"]


def simulate(*arguments: str) -> int:
    return main(["simulate", *arguments])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation")
    assert simulate("--losses", "GIoULoss", "L1Loss", *SMALL, "--out", str(folder)) == 0
    return folder


def test_it_writes_tables_figures_and_an_animation(out: Path) -> None:
    names = {path.name for path in out.iterdir()}
    figures = {f"{name}{suffix}" for name in ("curves", "plane") for suffix in (".svg", ".png")}
    assert names == {*figures, "boxes.gif", "table.md", "results.csv", "results.json", "losses"}
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [(row["loss"], row["step"]) for row in rows[::5]] == [("GIoULoss", "0"), ("L1Loss", "0")]
    assert float(rows[0]["error"]) == float(rows[5]["error"])  # the same anchors
    assert "L1Loss" in (out / "curves.svg").read_text()
    with Image.open(out / "boxes.gif") as animation:
        assert animation.n_frames > 4


def test_a_stored_loss_is_not_simulated_again(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("det_losses.simulation.run.simulate", lambda *args: pytest.fail("again"))
    assert simulate("--losses", "L1Loss", *SMALL, "--out", str(out)) == 0
    captured = capsys.readouterr()
    assert "L1Loss: stored result" in captured.err
    assert "686 cases" in captured.out
    with pytest.raises(pytest.fail.Exception, match="again"):  # another setting
        simulate("--losses", "L1Loss", *SMALL, "--seed", "1", "--out", str(out))


def test_a_loss_that_diverges_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # On deltas of an anchor 0.35 wide, a step of 0.2 times the gradient 2 e / 0.35^2 is 3.2 errors.
    arguments = ["--cases", "686", "--out", str(tmp_path)]
    assert simulate("--losses", "MSELoss", "GIoULoss", *arguments) == 0
    captured = capsys.readouterr()
    assert "MSELoss: left out" in captured.err
    assert "MSELoss" not in captured.out
    with pytest.raises(SystemExit):
        simulate("--losses", "MSELoss", *arguments)
    assert "error: no loss is left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "GIOULoss"], "GIoULoss"),
        (["--losses", "GIoULoss", "--cases", "10"], "from 686"),
        (["--losses", "GIoULoss", "--device", "cuda:77"], "--device cuda:77"),
        (["--comparison", "nowhere"], "no results.json"),
        (["--losses", "EIoULoss", "--gradients", "published"], "is another loss"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        simulate(*arguments, "--out", str(tmp_path))
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in error
    assert error.count("error:") == 1
