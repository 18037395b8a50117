import json
import subprocess
import sys
import time

import pytest
from synthetic_comparison import write_comparison

from det_losses.cli import report
from det_losses.comparison import interim as module
from det_losses.comparison.interim import InterimReport
from det_losses.comparison.runner import is_running, locked


@pytest.fixture
def started(monkeypatch):
    """The commands of the processes, each replaced by a program without imports."""
    commands = []
    real = subprocess.Popen

    def fake(command, **options):
        commands.append(command)
        code = "import sys; sys.exit('no space left')" if len(commands) == 1 else "pass"
        return real([sys.executable, "-SEc", code], **options)

    monkeypatch.setattr(module.subprocess, "Popen", fake)
    return commands


def wait_for(report):
    while report._process is not None:
        time.sleep(0.01)
        report.tick()


def test_one_report_at_a_time_and_pauses_between(tmp_path, started, monkeypatch, capsys):
    monkeypatch.setattr(module, "_PAUSE", 1e6)
    with InterimReport(tmp_path) as report:
        report.request(seconds_left=30)
        assert started == []  # the final report comes soon enough
        report.request(seconds_left=3600)
        report.request(seconds_left=3600)
        assert [command[2:4] for command in started] == [["det_losses", "report"]]
        wait_for(report)
        assert "no space left" in capsys.readouterr().out  # and nothing is raised
        report.tick()
        assert len(started) == 1  # wanted, but too early
        report._earliest = 0
        report.tick()
        assert len(started) == 2


def test_a_report_of_a_running_comparison_concludes_nothing(tmp_path, capsys):
    noise = {"L1Loss": 0.3, "EIoULoss": 0.02}
    unfinished = {("L1Loss", 3): "pending"}
    seeds = (0, 1, 2, 3)
    root = write_comparison(
        tmp_path / "study", images=8, noise=noise, seeds=seeds, unfinished=unfinished
    )
    before = (root / "results.json").read_bytes()
    with InterimReport(root), locked(root):
        assert is_running(root)
        report.main([str(root)])
        page, text = (root / "report.html").read_text(), capsys.readouterr().out
        assert '<meta http-equiv="refresh" content="30">' in page
        assert "Interim report: 7 of 8 runs have finished." in text
        assert "About 1 minute left." in text
        for claim in ("Use ", "better than", "may be best", "Filled dot"):
            assert claim not in page and claim not in text
        assert (root / "results.json").read_bytes() == before
    assert "refresh" not in (root / "report.html").read_text()  # the comparison has ended
    assert not is_running(root)

    report.main([str(root)])

    assert "Use EIoULoss" in (root / "report.html").read_text()
    stored = json.loads((root / "results.json").read_text())["statistics"]
    assert stored["answer"].startswith("Use EIoULoss") and stored["ranked"]
