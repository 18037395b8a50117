import json
import subprocess
import sys
from pathlib import Path

import pytest

from det_losses.paths import import_root


@pytest.mark.slow
def test_two_processes_train_one_model(tiny_config, tmp_path):
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2"]
    script = str(import_root() / "tools" / "train.py")
    run = tmp_path / "run"
    options = [str(tiny_config), "--work-dir", str(run), "--launcher", "pytorch"]
    done = subprocess.run([*torchrun, script, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((run / "metrics.json").read_text())
    # 6 images in batches of 3 for each of 2 processes: one step an epoch.
    assert (record["status"], record["iter"]) == ("done", 2)
