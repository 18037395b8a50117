"""One run: training of a config in its own directory, which never contains two runs.

``config.py`` is written when training starts; ``metrics.json`` has the status "done" at its end.
"""

import copy
import fcntl
import itertools
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from det_losses.config_diff import describe, differences, plain
from det_losses.data.split_checks import beyond_max_dets
from det_losses.engine import HistoryHook, LossRecordHook, RunRecordHook
from det_losses.engine.checkpoint import POINTER_FILE, check_resumable, checkpoints, read_meta
from det_losses.engine.checks import config_errors
from det_losses.engine.config import entries
from det_losses.engine.config_text import config_text, parse_config_text
from det_losses.engine.coverage import notes_before_training
from det_losses.engine.progress import PROGRESS_FILE, ProgressFileHook
from det_losses.engine.rank_watch import dead_rank_named
from det_losses.engine.signals import StopHook
from det_losses.errors import InputError, MissingFileError, located, one_line, printable
from det_losses.evaluation.diagnosis import NEARLY_ZERO, diagnose, read_history
from det_losses.evaluation.metrics import MAX_DETS
from det_losses.files import check_work_dir, read_whole_json, write_text
from det_losses.generators import generators_kept
from det_losses.registry import MODELS

CONFIG_FILE = "config.py"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.jsonl"
_TRIED = 4  # images of each dataset that are loaded before training


def claim_work_dir(cfg: Config, resume: str | None) -> None:
    """Check that training may write into ``cfg.work_dir``, and set ``resume`` in the config.

    Args:
        cfg: the config with its ``work_dir``; ``resume`` and ``load_from`` are set in it, as
            :func:`~det_losses.engine.build.build_runner` takes them.
        resume: None (what ``resume`` and ``load_from`` of the config say), ``"auto"`` (resume from
            the last checkpoint in the directory, or start if there is none) or the path of a
            checkpoint.

    Raises:
        InputError: the directory contains a finished run, a run of a different config, or an
            unfinished run and ``resume`` is None; or ``resume`` is not a checkpoint.
        MissingFileError: no such checkpoint.
    """
    work_dir = Path(cfg.work_dir)
    check_work_dir(work_dir)
    for name in (CONFIG_FILE, METRICS_FILE, HISTORY_FILE, PROGRESS_FILE, POINTER_FILE):
        if (work_dir / name).is_dir():
            raise InputError(
                f"{work_dir / name}: is a directory, but training writes a file of this name; "
                "rename it, or give another --work-dir"
            )
    if is_finished(work_dir):
        raise InputError(
            f"{work_dir} contains a finished run, which is not overwritten; give another "
            "--work-dir (to train it longer: with --resume and the path of its last checkpoint)"
        )
    if resume is None and cfg.get("resume"):
        if cfg.resume not in (True, "auto"):
            raise InputError(f"resume: must be true, false or 'auto', got {cfg.resume!r:.80}")
        resume = cfg.get("load_from") or "auto"  # as mmengine, which a config may ask for too
    begun = bool(checkpoints(cfg))
    if begun:
        _check_unfinished(work_dir, cfg, resume)
    cfg.resume = "auto" if begun else False
    if resume not in (None, "auto"):
        if not Path(resume).is_file():
            raise MissingFileError(f"--resume {resume}: no such checkpoint")
        check_resumable(Path(resume))
        cfg.resume, cfg.load_from = True, resume


def _check_unfinished(work_dir: Path, cfg: Config, resume: str | None) -> None:
    known = work_dir / CONFIG_FILE
    if not known.is_file():
        raise InputError(
            f"{work_dir} contains checkpoints but no config.py; give another --work-dir"
        )
    lines = changes_since(known, cfg)
    if lines:
        raise InputError(
            f"{work_dir} contains a run of a different config ({describe(lines)}); "
            "give another --work-dir"
        )
    if resume is None:
        raise InputError(
            f"{work_dir} contains an unfinished run of this config: resume it with --resume, "
            "or give another --work-dir"
        )


def changes_since(file: Path, cfg: Config) -> list[str]:
    """Return how a config differs from that of a run, which is stored in a file.

    Raises:
        InputError: the file cannot be read.
    """
    return differences(plain(_stored_config(file)), plain(cfg))


def _stored_config(file: Path) -> Config:
    try:
        return Config.fromfile(file)
    except Exception as error:  # the file is Python
        raise InputError(
            f"{file} is damaged ({type(error).__name__}: {one_line(error)}), so it cannot be "
            "compared with the config. Write the config of this run to it (checkpoints have it in "
            "meta['cfg']), or give another --work-dir"
        ) from error


def continued_config(cfg: Config, resume: str | None) -> Config | None:
    """Return the config of the run that a training continues; None if it starts from scratch.

    Args:
        cfg: the config with its ``work_dir``.
        resume: as for :func:`claim_work_dir`, which checks whether the run can be continued.

    Raises:
        InputError: a file cannot be read.
    """
    known = Path(cfg.work_dir) / CONFIG_FILE
    if checkpoints(cfg) and known.is_file():
        return _stored_config(known)
    if resume in (None, "auto") or not Path(resume).is_file():
        return None
    text = read_meta(Path(resume)).get("cfg")
    return parse_config_text(text) if isinstance(text, str) else None


@contextmanager
def locked(work_dir: Path) -> Iterator[bool]:
    """Create a directory if necessary and let only one training use it; yield whether it is new.

    The lock ends with this process, even if workers of a killed training live a little longer.

    Raises:
        InputError: another training has the lock, or ``work_dir`` is a file.
    """
    check_work_dir(work_dir)
    try:
        work_dir.mkdir(parents=True)
        new = True
    except FileExistsError:
        new = False
    with (work_dir / ".lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(
                f"{work_dir} is in use by another training; wait until it ends, or give another "
                "--work-dir"
            ) from None
        yield new


@contextmanager
def removed_on_error(work_dir: Path, new: bool) -> Iterator[None]:
    """Remove a new directory after an error."""
    try:
        yield
    except BaseException:
        if new:
            shutil.rmtree(work_dir, ignore_errors=True)
        raise


def build_parts(runner: Runner) -> None:
    """Build what mmengine's Runner would build at the start of training, to find errors early.

    The parameter schedulers are built once for trial, and the first images are loaded and
    transformed. Neither changes the training.

    Raises:
        UserError: a part cannot be built, an image or a transform fails, or there is no batch.
    """
    with config_errors(runner.cfg):
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        loops = {"train": runner.train_loop, "val": runner.val_loop}  # built on access
    for split, loop in loops.items():
        if loop is not None:
            _try_data(f"{split}_dataloader", loop.dataloader)
    with config_errors(runner.cfg):
        _try_schedulers(runner)
    _try_averages(runner)


def _try_schedulers(runner: Runner) -> None:
    """Build the parameter schedulers for a copy of the optimizer's settings."""
    wrapper = runner.optim_wrapper
    if not runner.param_schedulers or not isinstance(
        getattr(wrapper, "optimizer", None), torch.optim.Optimizer
    ):
        return  # nothing to build, or several optimizers
    trial = copy.copy(wrapper)
    trial.optimizer = copy.copy(wrapper.optimizer)
    trial.optimizer.param_groups = [dict(group) for group in wrapper.optimizer.param_groups]
    trial.base_param_settings = copy.copy(wrapper.base_param_settings)
    runner.optim_wrapper = trial
    try:
        runner.build_param_scheduler(copy.deepcopy(runner.param_schedulers))
    finally:
        runner.optim_wrapper = wrapper


def _try_averages(runner: Runner) -> None:
    """Build the averaged models of EMAHooks, whose settings mmengine checks after the start.

    Raises:
        InputError: the hook rejects a setting.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            try:
                MODELS.build(hook.ema_cfg, default_args={"model": runner.model})
                hook.before_train(runner)
            except (AssertionError, ValueError, TypeError) as error:
                raise InputError(f"custom_hooks: EMAHook: {one_line(error)}") from error


def _try_data(key: str, loader: DataLoader) -> None:
    """Load and collate the first images, which are not those of the first step."""
    with located(key):
        if len(loader) == 0 and (loader.drop_last or not len(loader.dataset)):
            raise InputError(
                f"no batch: drop_last removes a batch of fewer than batch_size={loader.batch_size} "
                f"images, and the dataset has {len(loader.dataset)}; lower batch_size or remove "
                "drop_last"
            )
        with generators_kept():
            with located("dataset"):
                count = min(_TRIED, len(loader.dataset), loader.batch_size or _TRIED)
                samples = [loader.dataset[index] for index in range(count)]
            loader.collate_fn(samples)


def train_run(runner: Runner, cfg: Config) -> None:
    """Train, and write ``config.py`` and ``metrics.json`` into the runner's work_dir.

    Args:
        runner: from :func:`build_runner`.
        cfg: the config as given, without the entries that the runner or a resume adds.

    Raises:
        KeyboardInterrupt: a signal stopped training, which can be resumed from the last checkpoint.
    """
    work_dir = Path(runner.work_dir)
    if is_main_process():
        write_text(work_dir / CONFIG_FILE, config_text(cfg))
    for hook in (LossRecordHook, RunRecordHook, HistoryHook):
        if not any(isinstance(each, hook) for each in runner.hooks):
            runner.register_hook(hook())
    runner.register_hook(ProgressFileHook(work_dir))
    stop = StopHook(interrupted(work_dir))
    runner.register_hook(stop, priority="LOWEST")
    others = multiprocessing.active_children()
    datasets = [loop and loop.dataloader.dataset for loop in (runner.train_loop, runner.val_loop)]
    notes = notes_before_training(runner.model, *datasets)
    for max_dets in _evaluated_detections(cfg):
        if remarks := beyond_max_dets(datasets[1], max_dets):
            notes.setdefault("val", []).extend(remarks)
    for note in itertools.chain(*notes.values()):
        runner.logger.warning(f"data: {printable(note)}")
    with stop.listening():
        try:
            with dead_rank_named(runner):
                runner.train()
        except BaseException:
            _end_workers(others)  # a busy one delays the end by seconds
            raise
    if is_main_process():
        _say_low_ap(runner, notes)
    if is_distributed():
        # Otherwise gloo's threads may still run at interpreter exit, which aborts the process.
        torch.distributed.destroy_process_group()


def _evaluated_detections(cfg: Config) -> set[int]:
    metrics = [each for each in entries(cfg.get("val_evaluator")) if isinstance(each, Mapping)]
    own = [each for each in metrics if str(each.get("type")).endswith("CocoMetric")]
    return {each.get("max_dets", MAX_DETS) for each in own}


def _say_low_ap(runner: Runner, notes: Mapping[str, Sequence[str]]) -> None:
    """Log the probable causes if training ended with almost no AP."""
    work_dir = Path(runner.work_dir)
    ap = (read_metrics(work_dir).get("metrics") or {}).get("AP")
    if ap is not None and 0 <= ap < NEARLY_ZERO:
        for sentence in diagnose(read_history(work_dir / HISTORY_FILE), notes):
            runner.logger.warning(f"AP {100 * ap:.1f}: {printable(sentence)}")


def interrupted(work_dir: str | Path) -> str:
    """Return the message after an interrupt."""
    return f"interrupted; resume with --work-dir {work_dir} --resume"


def _end_workers(others: list[multiprocessing.Process]) -> None:
    for process in multiprocessing.active_children():
        if process not in others:
            process.terminate()


def read_metrics(work_dir: Path) -> dict[str, Any]:
    """Return metrics.json of a finished run; an empty dict for any other.

    A run whose metrics.json is damaged is unfinished: resuming it evaluates its last checkpoint.
    """
    record = read_whole_json(work_dir / METRICS_FILE)
    return record if isinstance(record, dict) and record.get("status") == "done" else {}


def is_finished(work_dir: Path) -> bool:
    """Return whether the directory contains a finished run."""
    return bool(read_metrics(work_dir))
