import subprocess
import sys

import pytest

from det_losses.compare.lock import locked


def test_a_second_comparison_in_the_same_directory_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="in use by another comparison"):
        with locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_a_run_left_behind_keeps_the_lock(tmp_path):
    with locked(tmp_path) as lock:
        run = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
    with pytest.raises(ValueError, match="or by a run that a killed one left behind"):
        with locked(tmp_path):
            pass
    run.communicate(b"\n", timeout=10)
    with locked(tmp_path):
        pass
