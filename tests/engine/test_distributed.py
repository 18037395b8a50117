"""Two processes give the same evaluation as one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from det_losses.engine import build_runner

SCRIPT = """
import json, os, sys
sys.path.insert(0, {folder!r})
from conftest import make_cfg
from det_losses.engine import build_runner

cfg = make_cfg({work_dir!r}, launcher="pytorch", load_from={weights!r})
cfg["val_dataloader"]["dataset"]["length"] = 5
metrics = build_runner(cfg, train=False).test()
if os.environ["RANK"] == "0":
    print("METRICS", json.dumps(metrics))
"""


@pytest.mark.slow
def test_padded_images_count_once(toy_cfg, tmp_path):
    trained = build_runner(toy_cfg("train"))
    trained.train()
    weights = str(Path(trained.work_dir) / "epoch_4.pth")
    cfg = toy_cfg("one", load_from=weights)
    cfg["val_dataloader"]["dataset"]["length"] = 5
    expected = build_runner(cfg, train=False).test()

    # Five images for two processes: the sampler gives one of them twice.
    script = tmp_path / "script.py"
    folder, work_dir = str(Path(__file__).parent), str(tmp_path / "two")
    script.write_text(SCRIPT.format(folder=folder, work_dir=work_dir, weights=weights))
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    done = subprocess.run(
        [torchrun, "--standalone", "--nproc-per-node", "2", str(script)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("METRICS ")]
    assert "Evaluated 5 images, 5 detections" in done.stdout
    got = json.loads(line.removeprefix("METRICS "))
    assert got == pytest.approx(expected, nan_ok=True)
    assert expected["AP"] > 0
    assert not (tmp_path / "two" / ".collect").exists()
