"""Progress of a run: a bar on the terminal, and a file that the comparison reads."""

import datetime
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from tqdm import tqdm

from det_losses.engine.runner import shows_bar
from det_losses.files import finite, write_json
from det_losses.registry import HOOKS

PROGRESS_FILE = "progress.json"
_WIDE = 120  # columns of a terminal on which all losses are shown beside the AP


def ap_text(progress: Mapping[str, Any]) -> str:
    """Return the AP of the last evaluation and its epoch, from the entries of ``progress.json``.

    >>> ap_text({"AP": 0.3932, "AP_epoch": 3, "epochs": 12})
    'AP 39.3 (epoch 3)'
    """
    epoch = progress.get("AP_epoch")
    place = f" (epoch {epoch})" if epoch and progress["epochs"] > 1 else ""
    return f"AP {100 * progress['AP']:.1f}{place}"


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show a bar with the losses and the remaining time if the output is a terminal.

    If it is a file or a pipe, LoggerHook writes plain lines instead. The losses are means over the
    last iterations. The remaining time covers all epochs, without evaluations.

    Args:
        window_size: Number of iterations over which the displayed losses are averaged.
    """

    priority = "BELOW_NORMAL"  # after IterTimerHook, which estimates the remaining time

    def __init__(self, window_size: int = 20) -> None:
        self.window_size = window_size
        self._bars: dict[str, tqdm] = {}
        self._last = ""  # the last AP and its epoch

    def _before_epoch(self, runner: Runner, mode: str = "train") -> None:
        if not (is_main_process() and shows_bar()):
            return
        if mode != "train" and "train" in self._bars:
            self._bars["train"].clear()
        loop = getattr(runner, f"{mode}_loop")
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        total, start, title = len(loop.dataloader), 0, mode
        if by_epoch:
            title = f"epoch {loop.epoch + 1}/{loop.max_epochs}"
        elif mode == "train":
            total, start = loop.max_iters, loop.iter
        size = shutil.get_terminal_size()
        self._bars[mode] = tqdm(
            total=total,
            initial=start,
            desc=title,
            file=sys.stderr,
            leave=False,
            # tqdm's own estimate shows nothing on a terminal that does not report its size.
            ncols=size.columns,
            nrows=size.lines,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = "train",
    ) -> None:
        bar = self._bars.get(mode)
        if bar is None:
            return
        if mode == "train":
            bar.set_postfix_str(self._postfix(runner), refresh=False)
        bar.update()
        if mode != "train" and bar.n == bar.total:
            # Close now, because the metric logs before the end of the epoch.
            self._after_epoch(runner, mode)

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        bar = self._bars.pop(mode, None)
        if bar is not None:
            bar.close()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Close the bar of the evaluation, and show its AP from now on."""
        super().after_val_epoch(runner, metrics)
        if (ap := (metrics or {}).get("AP")) is not None:
            self._last = ap_text({"AP": ap, "AP_epoch": runner.epoch, "epochs": runner.max_epochs})

    def _postfix(self, runner: Runner) -> str:
        scalars = runner.message_hub.log_scalars
        losses = [
            f"{key.removeprefix('train/')} {history.mean(self.window_size):.3f}"
            for key, history in scalars.items()
            if key.startswith("train/") and "loss" in key
        ]
        seconds = int(runner.message_hub.get_info("eta", 0))
        last = [self._last] if self._last else []
        if last and shutil.get_terminal_size().columns < _WIDE:
            losses = losses[:1]
        return "  ".join([*losses, *last, f"eta {datetime.timedelta(seconds=seconds)}"])


class ProgressFileHook(Hook):
    """Write ``progress.json``: step, steps, epoch, epochs, loss, AP and the epoch of the AP.

    Args:
        work_dir: the run's directory.
        interval: minimum seconds between two writes.
    """

    priority = "VERY_LOW"

    def __init__(self, work_dir: Path, interval: float = 1.0) -> None:
        self._file = work_dir / PROGRESS_FILE
        self._interval = interval
        self._written = float("-inf")
        self._ap: dict[str, float | int | None] = {"AP": None}

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Write the progress, at most once per interval."""
        if time.perf_counter() - self._written >= self._interval:
            self._write(runner, runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the AP."""
        self._ap = {"AP": (metrics or {}).get("AP"), "AP_epoch": runner.epoch}
        self._write(runner, runner.iter)

    def _write(self, runner: Runner, step: int) -> None:
        if not is_main_process():
            return
        self._written = time.perf_counter()
        scalars = runner.message_hub.log_scalars
        loss = scalars["train/loss"].current() if "train/loss" in scalars else None
        progress = {
            "step": step,
            "steps": runner.max_iters,
            "epoch": runner.epoch,
            "epochs": runner.max_epochs,
            "loss": None if loss is None else float(loss),
            **self._ap,
        }
        write_json(self._file, finite(progress), indent=2)
