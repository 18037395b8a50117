"""The display of a run."""

import io

import pytest

from det_losses.comparison.display import RunDisplay, remaining
from det_losses.files import write_json


@pytest.mark.parametrize(
    ("whole", "left", "elapsed", "fraction", "expected"),
    [
        # No run has finished or reported progress.
        ([], 3, 5.0, 0.0, (None, None)),
        # A quarter in 10 s is 40 s a run: 30 s of this one, 2 further ones of 40 s.
        ([], 2, 10.0, 0.25, (30.0, 110.0)),
        # Runs took 40 and 60 s: 50 s a run; half of this one is left, one more comes.
        ([40.0, 60.0], 1, 7.0, 0.5, (25.0, 75.0)),
        # The run has not reported yet, and 10 s of its 50 s are gone.
        ([50.0], 0, 10.0, 0.0, (40.0, 40.0)),
        ([50.0], 1, 70.0, 0.0, (0.0, 50.0)),
    ],
)
def test_time_left(whole, left, elapsed, fraction, expected):
    assert remaining(whole, left, elapsed, fraction) == expected


class TestRunDisplay:
    def progress(self, folder, step, epoch, ap=None):
        state = {"step": step, "steps": 20, "epoch": epoch, "epochs": 2, "loss": 0.5, "AP": ap}
        write_json(folder / "progress.json", state)

    def test_a_file_gets_a_line_per_epoch(self, tmp_path):
        stream = io.StringIO()
        display = RunDisplay("[1/2] A seed 0", tmp_path, [], 1, stream)
        display.update()  # nothing written yet
        states = ((2, 0, None), (5, 0, None), (10, 1, None), (10, 1, 0.25), (12, 1, 0.25))
        for step, epoch, ap in states:
            self.progress(tmp_path, step, epoch, ap)
            display.update()
        display.close("AP 25.0")
        lines = stream.getvalue().splitlines()
        assert [line.split("  ")[1] for line in lines] == [
            "2/20 steps",
            "10/20 steps",
            "10/20 steps",
            "AP 25.0",
        ]
        assert "loss 0.500  AP 25.0" in lines[2]

    def test_a_terminal_has_one_rewritten_line(self, tmp_path):
        stream = io.StringIO()
        stream.isatty = lambda: True
        display = RunDisplay("[1/1] A seed 0", tmp_path, [], 0, stream)
        for step in (2, 3):
            self.progress(tmp_path, step, 0)
            display.update()
        display.close("AP 25.0")
        text = stream.getvalue()
        assert text.count("\n") == 1
        assert text.count("\r") == 3
        last = text.rsplit("\r", 1)[1]
        assert len(last) >= max(map(len, text.split("\r")))  # covers what stood there

    def test_the_last_runs_progress_is_not_shown_for_the_next(self, tmp_path):
        self.progress(tmp_path, 20, 2)
        stream = io.StringIO()
        RunDisplay("x", tmp_path, [], 0, stream).update()
        assert stream.getvalue() == ""

    def test_a_program_without_progress_has_the_last_line_of_its_log(self, tmp_path, monkeypatch):
        clock = iter([0.0, 30.0, 61.0, 61.0, 61.0, 100.0, 121.0, 121.0, 121.0])
        monkeypatch.setattr("time.perf_counter", lambda: next(clock, 121.0))
        stream, log = io.StringIO(), tmp_path / "output.log"
        display = RunDisplay("[1/1] A seed 0", tmp_path, [300.0], 0, stream, log=log)
        display.update()  # after 30 s
        log.write_bytes(b"epoch 1\n  10%\r  20%\x1b[0m \n\n")
        for _ in range(3):
            display.update()
        lines = stream.getvalue().splitlines()
        assert (
            lines[0] == "[1/1] A seed 0  running for 1 min 01 s  about 3 min 59 s left  20%\\x1b[0m"
        )
        assert [line.split("  ")[1] for line in lines[1:]] == ["running for 2 min 01 s"]

    def test_a_log_that_does_not_exist_yet(self, tmp_path):
        stream = io.StringIO()
        stream.isatty = lambda: True
        display = RunDisplay("x", tmp_path, [], 0, stream, log=tmp_path / "output.log")
        display._start -= 5
        display.update()
        assert stream.getvalue() == "\rx  running for 5 s"
