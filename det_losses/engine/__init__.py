"""Building and running a training from a config: the runner and its hooks."""

from det_losses.engine.build import build_runner
from det_losses.engine.checkpoint import CheckpointHook, SafeCheckpointHook
from det_losses.engine.checks import fill_from_data
from det_losses.engine.config_text import config_text
from det_losses.engine.fork import ForkHook
from det_losses.engine.history import HistoryHook
from det_losses.engine.loss_record import LossRecordError, LossRecordHook, losses_of
from det_losses.engine.non_finite import NonFiniteError, NonFiniteHook
from det_losses.engine.progress import ProgressHook
from det_losses.engine.rank_watch import RankWatchHook
from det_losses.engine.run_record import RunRecordHook
from det_losses.engine.runner import CompactLogProcessor, QuietRunner
from det_losses.engine.seed import SeedHook

__all__ = [
    "CheckpointHook",
    "CompactLogProcessor",
    "ForkHook",
    "HistoryHook",
    "LossRecordError",
    "LossRecordHook",
    "NonFiniteError",
    "NonFiniteHook",
    "ProgressHook",
    "QuietRunner",
    "RankWatchHook",
    "RunRecordHook",
    "SafeCheckpointHook",
    "SeedHook",
    "build_runner",
    "config_text",
    "fill_from_data",
    "losses_of",
]
