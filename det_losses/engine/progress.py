"""A progress bar on a terminal."""

import datetime
import shutil
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from tqdm import tqdm

from det_losses.engine.runner import shows_bar
from det_losses.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show a bar with the losses by name and the time left, where there is a terminal.

    Elsewhere (a file, a pipe) nothing is shown: LoggerHook writes plain lines there. The losses are
    means over the last iterations; the time left is that of all epochs, without evaluations.

    Args:
        window_size: Iterations that the shown losses are averaged over.
    """

    priority = "BELOW_NORMAL"  # after IterTimerHook, whose estimate it shows

    def __init__(self, window_size: int = 20) -> None:
        self.window_size = window_size
        self._bars: dict[str, tqdm] = {}

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
            # Not tqdm's own: it shows nothing on a terminal that does not tell its size.
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
            self._after_epoch(runner, mode)  # now, as the metric logs before an epoch's end

    def _after_epoch(self, runner: Runner, mode: str = "train") -> None:
        bar = self._bars.pop(mode, None)
        if bar is not None:
            bar.close()

    def _postfix(self, runner: Runner) -> str:
        scalars = runner.message_hub.log_scalars
        losses = [
            f"{key.removeprefix('train/')} {history.mean(self.window_size):.3f}"
            for key, history in scalars.items()
            if key.startswith("train/") and "loss" in key
        ]
        seconds = int(runner.message_hub.get_info("eta", 0))
        return "  ".join([*losses, f"eta {datetime.timedelta(seconds=seconds)}"])
