"""mmengine's Runner with a short log on the terminal and a complete log file, built fast."""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, LogProcessor, Runner
from mmengine.visualization import Visualizer as FigureVisualizer
from torch.utils.data import DataLoader, Dataset

from det_losses.engine.checkpoint import written_whole
from det_losses.engine.device import uses_cuda
from det_losses.engine.learning_rate import ConfiguredSchedule, in_steps
from det_losses.errors import InputError
from det_losses.models.weight_files import read_checkpoint
from det_losses.registry import LOG_PROCESSORS, VISUALIZERS


def shows_bar() -> bool:
    """Return whether progress is shown as a bar instead of plain lines.

    Both streams must be a terminal. The bar goes to stderr and the log to stdout, and with
    ``train ... | tee log`` the terminal already shows the lines of the log.
    """
    return sys.stderr.isatty() and sys.stdout.isatty()


class QuietRunner(Runner):
    """mmengine's Runner without the long dumps at the start of the terminal log.

    Environment, config and the order of hooks are only in the log file
    (``work_dir/<time>/<time>.log``). A checkpoint is written under a temporary name first, so that
    a file with its own name is always complete.

    Attributes:
        datasets: config of a dataset and the dataset, of those that were built before the Runner.
    """

    datasets: tuple[tuple[Mapping[str, Any], Dataset], ...] = ()

    def build_dataloader(
        self, dataloader: DataLoader | Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> DataLoader:
        """Build a dataloader; its dataset is not built again if it is in ``datasets``."""
        if isinstance(dataloader, Mapping):
            config = dataloader.get("dataset")
            for known, dataset in self.datasets:
                if known == config:  # mmengine copies the config, but not a function in it
                    built = {"type": lambda dataset=dataset: dataset}
                    dataloader = {**dataloader, "dataset": built}
                    break
        return super().build_dataloader(dataloader, *args, **kwargs)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint completely or not at all.

        Raises:
            InputError: it cannot be written.
        """
        if not is_main_process():
            return
        if "://" in out_dir:  # remote storage
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with written_whole(Path(out_dir, filename)) as part:
            super().save_checkpoint(out_dir, part.name, *args, **kwargs)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedules; in training by iterations, those in epochs become ones in steps."""
        loop = self.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            entries = scheduler if isinstance(scheduler, list) else [scheduler]
            if all(isinstance(each, dict) and "type" in each for each in entries):
                length = len(loop.dataloader)
                scheduler = [in_steps(each, length, loop.max_iters) for each in entries]
        return super().build_param_scheduler(scheduler)

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights, without mmengine's print of the path, which is in the log too."""
        with contextlib.redirect_stdout(io.StringIO()):
            return super().load_checkpoint(*args, **kwargs)

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint; the config determines learning rate and other settings."""
        if isinstance(self.optim_wrapper, OptimWrapperDict):
            super().resume(filename, *args, **kwargs)
            return
        configured = ConfiguredSchedule(self)
        super().resume(filename, *args, **kwargs)
        stored = read_checkpoint(Path(filename)).get("param_schedulers") or []
        if configured.restore(len(stored)):
            rates = ", ".join(f"{group['lr']:.4g}" for group in self.optim_wrapper.param_groups[:1])
            self.logger.warning(
                f"{filename} was trained with other settings of the optimizer or its schedule; "
                f"those of the config are used, so the learning rate is {rates} now"
            )

    def _maybe_compile(self, target: str) -> None:
        """Compile the backbone with torch.compile if the config has ``compile``.

        mmengine compiles the whole training step. With the target assignment, the losses and the
        optimizer that is some fifty graphs, and most of a step's time is in the convolutions.

        Raises:
            InputError: ``compile`` is neither a bool nor the arguments of torch.compile.
        """
        arguments = self.cfg.get("compile")
        if not isinstance(arguments, bool | Mapping | None):
            raise InputError(
                "compile must be True, False or the arguments of torch.compile, such as "
                f"dict(mode='max-autotune'), got {arguments!r}"
            )
        if arguments is None or arguments is False:
            return
        model = self.model.module if is_model_wrapper(self.model) else self.model
        detector = getattr(model, "detector", model)  # a model of the user's own may have none
        backbone = getattr(detector, "backbone", detector)
        backbone.compile(**({} if arguments is True else arguments))
        self.logger.info("the backbone is compiled at its first use, which takes a while")

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build mmengine's logger and filter its terminal handler."""
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(best_in_points)
        for handler in _terminal_handlers(logger):
            handler.addFilter(is_for_terminal)
        return logger

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Log the environment, without the shell's error message if there is no compiler."""
        with _quiet_stderr():
            super()._log_env(env_cfg)

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Set up processes; without CUDA, distributed training uses gloo.

        mmengine's own setup selects a CUDA device, which fails on a machine without one.
        """
        if self.distributed and not uses_cuda():
            if not torch.distributed.is_initialized():
                torch.distributed.init_process_group("gloo")
            # Without CUDA, DistributedDataParallel takes no device ids.
            self.cfg.setdefault("model_wrapper_cfg", {})
            self.cfg.model_wrapper_cfg.setdefault("device_ids", None)
            self.cfg.model_wrapper_cfg.setdefault("broadcast_buffers", False)
        super().setup_env(env_cfg)


@VISUALIZERS.register_module()
class Visualizer(FigureVisualizer):
    """mmengine's Visualizer, which creates its figure at the first use.

    A training writes scalars and draws nothing, and importing matplotlib takes a third of a second.
    """

    _FIGURE = ("fig_save_canvas", "fig_save", "ax_save", "dpi")

    def __init__(
        self,
        name: str = "visualizer",
        image: np.ndarray | None = None,
        vis_backends: list[Any] | dict[str, Any] | None = None,
        save_dir: str | None = None,
        fig_save_cfg: Mapping[str, Any] = MappingProxyType({"frameon": False}),
        fig_show_cfg: Mapping[str, Any] = MappingProxyType({"frameon": False}),
    ) -> None:
        self._has_figure = False
        super().__init__(name, None, vis_backends, save_dir, fig_save_cfg, fig_show_cfg)
        for name in self._FIGURE:
            delattr(self, name)
        self._has_figure = True
        if image is not None:
            self.set_image(image)

    def _initialize_fig(self, fig_cfg: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        if not self._has_figure:  # called by mmengine's constructor
            return None, SimpleNamespace(get_dpi=lambda: None), None
        return super()._initialize_fig(fig_cfg)

    def __getattr__(self, name: str) -> Any:
        """Create the figure when one of its attributes is read for the first time."""
        if name not in self._FIGURE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        canvas, figure, axes = self._initialize_fig(self.fig_save_cfg)
        values = (canvas, figure, axes, figure.get_dpi())
        self.__dict__.update(zip(self._FIGURE, values, strict=True))
        return getattr(self, name)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Discard stderr, including that of child processes."""
    sys.stderr.flush()
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)


def _terminal_handlers(logger: logging.Logger) -> list[logging.Handler]:
    return [each for each in logger.handlers if not isinstance(each, logging.FileHandler)]


IN_PLAN = {"in_plan": True}  # ``extra`` of the log records that repeat what the plan says


def leave_out_plan(logger: logging.Logger) -> None:
    """Write the records with ``extra=IN_PLAN`` to the log file only."""
    for handler in _terminal_handlers(logger):
        handler.addFilter(lambda record: not hasattr(record, "in_plan"))


# Parts of mmengine's messages that are not shown on the terminal: dumps, one line per parameter of
# the model, and deprecation warnings about mmengine itself.
_FILE_ONLY = (
    "Hooks will be executed",
    "Distributed training is not used",
    "paramwise_options",
    "is skipped since its requires_grad=False",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


def is_for_terminal(record: logging.LogRecord) -> bool:
    """Return whether a log record is shown on the terminal; a filter for a logging handler."""
    text = str(record.msg)
    if record.module == "logger_hook" and record.funcName.endswith("_iter"):
        return not (shows_bar() or text.startswith("Exp name"))
    return record.funcName != "_log_env" and not any(part in text for part in _FILE_ONLY)


@LOG_PROCESSORS.register_module()
class CompactLogProcessor(LogProcessor):
    """mmengine's LogProcessor with AP from 0 to 100 in the log line of an evaluation.

    The line lacks the other COCO metrics, which the metric logs as a table. The visualizer's
    scalars include them; their scale is that of ``metrics.json``, 0 to 1.
    """

    def get_log_after_epoch(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], str]:
        """Return the scalars of an evaluation, and its line in the log."""
        tag, line = super().get_log_after_epoch(*args, **kwargs)
        items = line.split("  ")
        shown = [item for item in items if item.startswith("AP: ") or not _COCO.match(item)]
        return tag, "  ".join(_in_points(item, tag) for item in shown)


_COCO = re.compile(r"A[PR](\d*|[sml])(/.*)?: ")  # AP, AP50, AR100, APs, AP/cat


def _in_points(item: str, scalars: dict[str, Any]) -> str:
    """Return the item ``AP: 0.3932`` of a log line in points; others are not changed.

    >>> _in_points("AP: 0.3932", {"AP": 0.39316}), _in_points("time: 0.3932", {})
    ('AP: 39.3', 'time: 0.3932')
    """
    return f"AP: {100 * scalars['AP']:.1f}" if item.startswith("AP: ") else item


def best_in_points(record: logging.LogRecord) -> bool:
    """Change mmengine's message about the best checkpoint to points; a filter for a logger.

    Returns:
        True: no record is left out.
    """
    if isinstance(record.msg, str):
        record.msg = _BEST.sub(lambda found: f"{100 * float(found[0]):.1f}", record.msg)
    return True


_BEST = re.compile(r"(?<=^The best checkpoint with )\d\.\d+(?= A[PR])")
