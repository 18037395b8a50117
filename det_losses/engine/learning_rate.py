"""The learning rate in training by iterations, and of a resumed run."""

from collections.abc import Mapping
from typing import Any

from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import Runner

_PROGRESS = ("last_step", "_global_step", "_last_value", "base_values")  # the rest are settings
_LENGTHS = ("T_max", "begin", "end", "total_iters", "total_steps", "step_size")


def in_steps(scheduler: Mapping[str, Any], epoch_length: int, max_iters: int) -> dict[str, Any]:
    """Return the config of a schedule in steps, for a training by iterations.

    mmengine updates a schedule in epochs only at the end of an epoch, and to it such a training is
    a single epoch.

    Args:
        scheduler: config of the schedule.
        epoch_length: steps per epoch.
        max_iters: steps of the training, the default end of the schedule.
    """
    own = dict(scheduler)
    converted = own.pop("convert_to_iter_based", False)
    if own.get("by_epoch", True):
        for key in _LENGTHS:
            if own.get(key) is not None:
                own[key] = int(own[key] * epoch_length)
        if "milestones" in own:
            own["milestones"] = [int(each * epoch_length) for each in own["milestones"]]
        elif "gamma" in own and "step_size" not in own and not converted:
            own["gamma"] **= 1 / epoch_length  # ExponentialLR: the factor per epoch
    own["by_epoch"] = False
    own.setdefault("end", max_iters)
    return own


class ConfiguredSchedule:
    """The settings of the optimizer and its schedules in the config, before a run is resumed.

    mmengine restores those of the checkpoint. In a training of another length the learning rate
    would then follow the first length, or stay frozen at its end.

    Args:
        runner: a runner with one optimizer that has built its optimizer and schedules.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._options = [
            {key: value for key, value in group.items() if key != "params"}
            for group in runner.optim_wrapper.param_groups
        ]
        self._settings = list(map(_settings, runner.param_schedulers or []))

    def restore(self, stored: int) -> bool:
        """Follow the config if the checkpoint has other settings, and return whether it has.

        The learning rate becomes that of an uninterrupted training at this step. The state of the
        optimizer stays that of the checkpoint.

        Args:
            stored: number of schedules in the checkpoint.
        """
        schedulers = self._runner.param_schedulers or []
        groups = self._runner.optim_wrapper.param_groups
        scheduled = {each.param_name for each in schedulers}
        same = stored == len(schedulers) and self._settings == list(map(_settings, schedulers))
        same = same and all(
            group.get(key) == value
            for group, own in zip(groups, self._options, strict=True)
            for key, value in own.items()
            if key not in scheduled
        )
        on_plateau = any(isinstance(each, ReduceOnPlateauParamScheduler) for each in schedulers)
        if same or on_plateau:  # the latter depends on all evaluations
            return False
        for group, own in zip(groups, self._options, strict=True):
            group.update(own)
            group.update({name: own[f"initial_{name}"] for name in scheduled})
        self._replay()
        return True

    def _replay(self) -> None:
        """Build the schedules anew and repeat their updates up to the current step."""
        runner = self._runner
        if not runner.param_schedulers:
            return
        runner.param_schedulers = runner.build_param_scheduler(runner.cfg.param_scheduler)
        runner.optim_wrapper._global_step = 0  # it has been called: no warning of the schedules
        epoch_length = runner.iter // runner.epoch if runner.epoch else runner.iter + 1
        for step in range(1, runner.iter + 1):
            for scheduler in runner.param_schedulers:
                if not scheduler.by_epoch or step % epoch_length == 0:
                    scheduler.step()


def _settings(scheduler: Any) -> dict[str, Any]:
    state = scheduler.state_dict().items()
    return {key: value for key, value in state if key not in _PROGRESS and not callable(value)}
