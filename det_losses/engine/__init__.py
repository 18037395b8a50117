"""From a config to a running training: the runner and its hooks."""

from det_losses.engine.active_losses import ActiveLossesHook, losses_of
from det_losses.engine.build import build_runner
from det_losses.engine.checks import fill_from_data
from det_losses.engine.epoch_seed import EpochSeedHook
from det_losses.engine.non_finite import NonFiniteError, NonFiniteHook
from det_losses.engine.progress import ProgressHook
from det_losses.engine.run_record import RunRecordHook
from det_losses.engine.runner import CompactLogProcessor, QuietRunner
from det_losses.engine.safe_checkpoint import SafeCheckpointHook

__all__ = [
    "ActiveLossesHook",
    "CompactLogProcessor",
    "EpochSeedHook",
    "NonFiniteError",
    "NonFiniteHook",
    "ProgressHook",
    "QuietRunner",
    "RunRecordHook",
    "SafeCheckpointHook",
    "build_runner",
    "fill_from_data",
    "losses_of",
]
