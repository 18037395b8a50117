"""One run: a config trained in a directory of its own, which never holds two runs.

A run directory has ``config.py`` from the start of training on; ``metrics.json`` says "done" at its
end.
"""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from det_losses.compare.differences import describe, differences, plain
from det_losses.compare.files import read_json, write_text
from det_losses.compare.recorder import ProgressFileHook
from det_losses.engine import RunRecordHook

CONFIG_FILE = "config.py"
METRICS_FILE = "metrics.json"


def claim_work_dir(cfg: Config, resume: str | None) -> None:
    """Check that training may write into ``cfg.work_dir``, and set the config's resume.

    Args:
        cfg: the config with its ``work_dir``; ``resume`` and ``load_from`` are set in it.
        resume: None, ``"auto"`` (the directory's last checkpoint; from the start if there is none)
            or the path of a checkpoint.

    Raises:
        ValueError: the directory holds a finished run, another run, or one to be resumed.
        FileNotFoundError: no such checkpoint.
    """
    work_dir = Path(cfg.work_dir)
    if is_finished(work_dir):
        raise ValueError(
            f"{work_dir} holds a finished run, which is never overwritten; give another --work-dir"
        )
    known = work_dir / CONFIG_FILE
    if known.is_file():
        lines = differences(plain(Config.fromfile(known)), plain(cfg))
        if lines:
            raise ValueError(
                f"{work_dir} holds a run of another config ({describe(lines)}); "
                "give another --work-dir"
            )
    elif list(work_dir.glob("*.pth")):
        raise ValueError(f"{work_dir} holds checkpoints of something else; give another --work-dir")
    if resume is None and list(work_dir.glob("*.pth")):
        raise ValueError(
            f"{work_dir} holds an unfinished run of this config: continue it with --resume, "
            "or give another --work-dir"
        )
    cfg.resume = resume is not None
    if resume not in (None, "auto"):
        if not Path(resume).is_file():
            raise FileNotFoundError(f"--resume {resume}: no such checkpoint")
        cfg.load_from = resume


def train_run(runner: Runner, cfg: Config) -> None:
    """Train, and leave ``config.py`` and ``metrics.json`` in the runner's work_dir.

    Args:
        runner: what trains.
        cfg: the config as it was given, before the runner or a resume filled it.
    """
    work_dir = Path(runner.work_dir)
    if is_main_process() and not (work_dir / CONFIG_FILE).is_file():
        write_text(work_dir / CONFIG_FILE, cfg.pretty_text)
    if not any(isinstance(hook, RunRecordHook) for hook in runner.hooks):
        runner.register_hook(RunRecordHook())
    runner.register_hook(ProgressFileHook(work_dir))
    runner.train()


def read_metrics(work_dir: Path) -> dict[str, Any]:
    """Return a finished run's metrics.json; an empty dict before its end."""
    record = read_json(work_dir / METRICS_FILE) or {}
    return record if record.get("status") == "done" else {}


def is_finished(work_dir: Path) -> bool:
    """Return whether a run has ended there."""
    return bool(read_metrics(work_dir))
