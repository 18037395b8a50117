import shutil

import pytest
from synthetic_comparison import write_comparison

from det_losses.cli.report import main
from det_losses.report import analyses

TWO = {"base": 0.1, "new": 0.05}


@pytest.fixture(autouse=True)
def no_analyses(monkeypatch):
    monkeypatch.setattr(analyses, "BUILDERS", {})


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        main([str(argument) for argument in arguments])
    assert info.value.code == 2
    return capsys.readouterr().err


def test_a_report_is_rebuilt_where_the_results_are(tmp_path, capsys):
    root = write_comparison(tmp_path / "c", noise=TWO)
    assert main([str(root)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Use new. It is better than base by ")
    assert f"report: {root / 'report.html'} (report.md and differences.csv are in" in text
    first = (root / "report.html").read_text()
    assert main([str(root)]) == 0
    assert (root / "report.html").read_text() == first
    assert all((root / name).is_file() for name in ("report.md", "differences.csv"))


def test_comparisons_of_two_machines_are_merged(tmp_path, capsys):
    dirs = [
        write_comparison(tmp_path / name, noise=TWO, seeds=(seed,))
        for seed, name in enumerate(("a", "b"))
    ]
    assert "--out is required to merge 2 directories" in refused(dirs, capsys)
    assert main([*map(str, dirs), "--out", str(tmp_path / "both")]) == 0
    assert "2/2" in capsys.readouterr().out
    text = (tmp_path / "both" / "report.md").read_text()
    assert f"Merged from {dirs[0]} and {dirs[1]}." in text
    assert not (dirs[0] / "report.html").exists()


def test_options_change_what_is_compared(tmp_path, capsys):
    root = write_comparison(tmp_path / "c", noise=TWO, seeds=(0,))
    options = ["--metric", "AP75", "--baseline", "new", "--resamples", "150"]
    assert main([str(root), "--out", str(tmp_path / "out"), *options]) == 0
    text = capsys.readouterr().out
    assert "AP75 was chosen after the training; the comparison was planned for AP." in text
    assert "AP75" in next(line for line in text.splitlines() if "| variant" in line)
    assert "baseline" in next(line for line in text.splitlines() if line.startswith("| new "))
    assert "150 bootstrap resamples" in (tmp_path / "out" / "report.md").read_text()


def test_errors_are_one_line(tmp_path, capsys):
    error = refused([tmp_path / "absent"], capsys)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "results.json: no such file; give the directory of a comparison" in error
    root = write_comparison(tmp_path / "c", noise=TWO, seeds=(0,))
    assert "baseline 'x' is not one of base and new" in refused([root, "--baseline", "x"], capsys)
    assert "metric 'mAP' is not one of AP, AP50" in refused([root, "--metric", "mAP"], capsys)
    assert "must be at least 100, got 50" in refused([root, "--resamples", "50"], capsys)
    other = tmp_path / "d"
    shutil.copytree(root, other)
    (other / "ground_truth.json").unlink()
    assert "ground_truth.json: no such file" in refused([root, other, "--out", "x"], capsys)
