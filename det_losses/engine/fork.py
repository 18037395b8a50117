"""The checkpoint at which runs with other losses can start."""

from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from det_losses.engine.loss_record import losses_of
from det_losses.registry import HOOKS


@HOOKS.register_module()
class ForkHook(Hook):
    """Keep a checkpoint at the end of an epoch for runs that continue with other losses.

    It contains what a resumed run needs (weights, optimizer, schedule, averaged weights), but
    nothing that belongs to this run or its losses: no state of ``model.losses``, no record of the
    losses, no times and no logged values. So a run that resumes from it starts its own records. Its
    metrics.json contains ``fork``: ``epoch`` and ``iter`` at which it started, and ``losses`` of
    the run that trained up to there.

    Keeping the checkpoint does not change this run.

    Args:
        epoch: the epoch after which it is written, counted from 1.
        filename: name of the file in the run's work_dir. It does not end with ``.pth``, so that it
            is not taken for a checkpoint of an unfinished run.
    """

    priority = "LOWEST"  # after all hooks that add entries to a checkpoint

    def __init__(self, epoch: int, filename: str) -> None:
        self.epoch, self.filename = epoch, filename
        self._saving = False

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the checkpoint after the epoch."""
        if runner.epoch + 1 != self.epoch or not is_main_process():
            return
        self._saving = True
        runner.save_checkpoint(runner.work_dir, self.filename)  # complete at once: others wait
        self._saving = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave out what belongs to this run or its losses, if the checkpoint is this hook's."""
        if not self._saving:
            return
        for key, value in checkpoint.items():
            if key.endswith("state_dict"):
                checkpoint[key] = {k: v for k, v in value.items() if not _is_of_loss(k)}
        info = {
            "initial_weights": runner.message_hub.get_info("initial_weights"),
            "weights": runner.message_hub.get_info("weights"),
            "fork": {
                "epoch": self.epoch,
                "iter": runner.iter,
                "losses": {slot: repr(loss) for slot, loss in losses_of(runner.model).items()},
            },
        }
        resumed = dict.fromkeys(info, True)
        checkpoint["message_hub"] = dict(log_scalars={}, runtime_info=info, resumed_keys=resumed)


def _is_of_loss(name: str) -> bool:
    return name.removeprefix("module.").startswith("losses.")
