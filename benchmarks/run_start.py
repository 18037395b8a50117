"""Time from the start of a run to the end of its first training step, cold and warm.

    OMP_NUM_THREADS=1 python benchmarks/run_start.py [--starts 7] [--config CONFIG]

Cold: the run is a new interpreter. Warm: it is a fork of the server of a comparison, whose own
start is paid once. Both train the same step in turn; medians of the wall time and of the CPU time
of the run.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from det_losses.comparison.process import LocalExecutor, run_process
from det_losses.paths import find_config

MODULE = '''
import json, os, pathlib, time
from mmengine.hooks import Hook
from det_losses.registry import HOOKS


@HOOKS.register_module(force=True)
class EndHook(Hook):
    """Stores when the first step ended, and ends the run."""

    def after_train_iter(self, runner, *args, **kwargs):
        own = os.times()
        found = {"cpu": own.user + own.system, "end": time.time()}
        pathlib.Path(runner.work_dir, "end.json").write_text(json.dumps(found))
        raise SystemExit(0)
'''


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=7, help="starts of each kind")
    parser.add_argument("--config", default="quickstart/retinanet_shapes")
    args = parser.parse_args()
    executor = LocalExecutor()
    kinds = {"cold": run_process, "warm": executor.run}
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder), args.config)
        begin = time.time()
        executor.run(_command(config, Path(folder, "first")), Path(folder, "log"), lambda: None)
        first = json.loads(Path(folder, "first", "end.json").read_text())["end"] - begin
        for number in range(args.starts):
            for kind, run in kinds.items():
                work_dir, begin = Path(folder, f"{kind}{number}"), time.time()
                run(_command(config, work_dir), Path(folder, "log"), lambda: None)
                found = json.loads((work_dir / "end.json").read_text())
                seconds[kind].append((found["end"] - begin, found["cpu"]))
        executor.close()
    print(f"the first fork, with the start of its server: {first:.2f} s")
    medians = {
        kind: [statistics.median(column) for column in zip(*found, strict=True)]
        for kind, found in seconds.items()
    }
    for kind, (wall, cpu) in medians.items():
        print(f"{kind}: {wall:.2f} s, {cpu:.2f} s of CPU")
    ratios = [cold / warm for cold, warm in zip(*medians.values(), strict=True)]
    print("cold / warm: {:.2f} of time, {:.2f} of CPU".format(*ratios))


def _config(folder: Path, name: str) -> Path:
    (folder / "end_hook.py").write_text(MODULE)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    file = folder / "config.py"
    file.write_text(
        f"_base_ = [{str(find_config(name))!r}]\n"
        "custom_imports = dict(imports=['end_hook'])\ncustom_hooks = [dict(type='EndHook')]\n"
    )
    return file


def _command(config: Path, work_dir: Path) -> list[str]:
    tool = [sys.executable, "-m", "det_losses", "train", str(config)]
    return [*tool, "--work-dir", str(work_dir), "--no-plan", "--seed", "0"]


if __name__ == "__main__":
    main()
