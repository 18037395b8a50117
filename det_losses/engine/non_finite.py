"""Stop a run at the first loss or gradient that is NaN or infinite."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from det_losses.errors import UserError
from det_losses.registry import HOOKS


class NonFiniteError(UserError, ArithmeticError):
    """A loss or gradient is NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop with a :class:`NonFiniteError` at the first loss or gradient that is not finite.

    The check precedes the optimizer's step, so neither the weights in memory nor a checkpoint is
    affected. It also detects a NaN gradient of a finite loss in the iteration that computed it.

    Cost: one device synchronisation before each step. (mmengine synchronises after each step
    anyway, to log the losses.) With mixed precision, infinite gradients are not an error:
    GradScaler skips that step and lowers its scale. A non-finite loss is then detected after the
    skipped step.
    """

    priority = "HIGH"  # after RuntimeInfoHook, before the hooks that average, log and save

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._losses: Mapping[str, Tensor] = {}
        self._where = ""

    def before_train(self, runner: Runner) -> None:
        """Register hooks on the model and on the optimizers."""
        model = getattr(runner.model, "module", runner.model)
        self._handles.append(model.register_forward_hook(self._keep_losses))
        for optimizer in _optimizers(runner.optim_wrapper):
            self._handles.append(optimizer.register_step_pre_hook(self._check_step))

    def after_train(self, runner: Runner) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Store the position and the image ids of the batch, for the message."""
        self._losses = {}
        ids = _image_ids(data_batch)
        images = f", image ids {', '.join(map(str, ids))}" if ids else ""
        self._where = f"epoch {runner.epoch + 1}, iteration {runner.iter + 1}{images}"

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check the losses of an iteration without an optimizer step (accumulation, AMP)."""
        self._check_losses({k: v for k, v in (outputs or {}).items() if "loss" in k})

    def _keep_losses(self, model: nn.Module, args: Any, output: Any) -> None:
        if model.training and isinstance(output, Mapping):
            self._losses = {
                name: torch.stack([part.detach().mean() for part in _parts(value)]).sum()
                for name, value in output.items()
                if "loss" in name
            }

    def _check_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if getattr(optimizer, "found_inf", None) is not None:
            return  # a fused optimizer under GradScaler skips such a step itself
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None])
        if _all_finite([norm, *self._losses.values()]):
            return
        self._check_losses(self._losses)
        ranks = " on this rank" if is_distributed() else ""  # gradients are averaged over them
        raise NonFiniteError(
            f"the gradient is NaN or infinite at {self._where}, while the losses are finite"
            f"{ranks}: {_listed(self._losses)}. {_ADVICE}"
        )

    def _check_losses(self, losses: Mapping[str, Tensor]) -> None:
        if _all_finite(losses.values()):
            return
        bad = {name: value for name, value in losses.items() if not value.isfinite()}
        parts = {name: value for name, value in bad.items() if name != "loss"} or bad
        raise NonFiniteError(f"non-finite loss at {self._where}: {_listed(parts)}. {_ADVICE}")


_ADVICE = (
    "The weights were not updated. Lower the learning rate, clip gradients "
    "(optim_wrapper.clip_grad) or check the boxes of these images."
)


def _all_finite(values: Iterable[Tensor]) -> bool:
    values = [value.detach().float() for value in values]
    values = [value.to(values[0].device) for value in values]
    return not values or bool(torch.stack(values).isfinite().all())


def _listed(losses: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name}={value.item():g}" for name, value in losses.items())


def _parts(value: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    return [value] if isinstance(value, Tensor) else value


def _optimizers(wrapper: Any) -> list[Optimizer]:
    wrappers = [wrapper] if isinstance(wrapper, OptimWrapper) else list(wrapper.values())
    return [each.optimizer for each in wrappers]


def _image_ids(data_batch: Any) -> list[Any]:
    targets = data_batch.get("targets", []) if isinstance(data_batch, Mapping) else []
    return [target["image_id"] for target in targets if "image_id" in target]
