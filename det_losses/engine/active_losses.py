"""What is being trained, said at the start of each run."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from det_losses.registry import HOOKS


def losses_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the losses of a model by slot, ``{}`` if it names none; looks through a DDP wrapper.

    Args:
        model: a model with a ModuleDict ``losses``, as this project's detectors are.
    """
    model = getattr(model, "module", model)
    return dict(getattr(model, "losses", {}))


@HOOKS.register_module()
class ActiveLossesHook(Hook):
    """Log a table of the losses with all their parameters before training starts."""

    def before_train(self, runner: Runner) -> None:
        """Log the table."""
        losses = losses_of(runner.model)
        if losses:
            width = max(map(len, losses))
            rows = [f"  {slot:{width}}  {loss!r}" for slot, loss in losses.items()]
            runner.logger.info("\n".join(["Active losses:", *rows]))
