"""A training step on a CPU without each of the things that make it faster, and with `--amp`.

    python benchmarks/step_settings.py small/retinanet_lite0 [--options KEY=VALUE ...]

Each setting trains in processes of its own, one thread each, which take turns. A process makes
`--steps` steps on as many batches, and then the measured steps on the same batches again: the
images of a measured step were all seen before, as in every epoch but the first. A time is the
median over the processes of the median CPU time of a step.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from itertools import islice

# title -> functions of det_losses.engine.build that do nothing, and config values
SETTINGS = {
    "as it is": ((), {}),
    "freed memory returned to the system": (("keep_freed_memory",), {}),
    "1 x 1 convolutions left to torch": (("convolve_with_onednn",), {}),
    "features of frozen layers not kept": ((), {"model.backbone.feature_cache_mb": 0}),
    "optimizer over lists (foreach)": ((), {"optim_wrapper.optimizer.fused": False}),
    "optimizer one parameter at a time": (
        (),
        {"optim_wrapper.optimizer": {"fused": False, "foreach": False}},
    ),
    "bfloat16": ((), {"optim_wrapper.type": "BFloat16OptimWrapper"}),
}


def measure(config: str, options: list[str], title: str, steps: int) -> float:
    """Return the median CPU time of a step of this process, in milliseconds."""
    from det_losses.engine import build
    from det_losses.engine.config import apply_options, read_config
    from det_losses.engine.run_time import trial

    skipped, values = SETTINGS[title]
    for name in skipped:
        setattr(build, name, lambda *args: None)
    cfg = read_config(config)
    apply_options(cfg, options)
    cfg.merge_from_dict(values)
    with trial(cfg) as (runner, _):
        runner.model.train()
        batches = list(islice(runner.train_dataloader, steps))
        seconds = []
        for batch in batches * 2:
            begin = time.process_time()
            runner.model.train_step(batch, runner.optim_wrapper)
            seconds.append(time.process_time() - begin)
    return 1e3 * statistics.median(seconds[len(batches) :])


def main() -> None:
    """Start the processes in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", type=int, default=3, help="of each setting")
    parser.add_argument("--setting", choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.setting:
        print(measure(args.config, args.options, args.setting, args.steps))
        return
    times: dict[str, list[float]] = {title: [] for title in SETTINGS}
    for _ in range(args.processes):
        for title, found in times.items():
            done = subprocess.run(
                [sys.executable, *sys.argv, "--setting", title],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found.append(float(done.stdout.split()[-1]))
    print("| setting | a step | time / time as it is |\n| --- | --- | --- |")
    base = statistics.median(times["as it is"])
    for title, found in times.items():
        spread = f"{min(found):.1f} to {max(found):.1f}"
        median = statistics.median(found)
        print(f"| {title} | {median:.1f} ms ({spread}) | {median / base:.2f} |")


if __name__ == "__main__":
    main()
