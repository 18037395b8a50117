"""The losses of a run: logged at the start, checked in the first step, recorded at the end."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from det_losses.engine.runner import IN_PLAN
from det_losses.errors import UserError
from det_losses.generators import generators_kept
from det_losses.losses import Loss, build_loss
from det_losses.losses.core.text import LOSS_ARGUMENTS, parse_loss
from det_losses.registry import HOOKS, MODELS, find


class LossRecordError(UserError, RuntimeError):
    """The loss of a slot differs from the config, or training does not call it."""


def losses_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the ModuleDict ``losses`` of a model or of its DDP wrapper; ``{}`` without one."""
    return dict(getattr(getattr(model, "module", model), "losses", {}))


@HOOKS.register_module()
class LossRecordHook(Hook):
    """Check that the run trains with the losses of the config.

    Before training, it logs a table of the losses with all parameters and compares each with the
    config. In the first step, the losses check labels and weights on a GPU too. After it, the run
    stops if a loss was not called. The hook counts the calls and observes the gradient with respect
    to each loss's ``pred`` until it is finite and nonzero, which shows that the gradient reached
    the head.

    In metrics.json this becomes ``proof``: slot -> ``loss`` (with its parameters), ``calls`` and
    ``gradient`` (true if such a gradient was observed). A resumed run continues to count. In
    distributed training, each rank checks its own model. A model without a ModuleDict ``losses``
    is not checked.
    """

    priority = "NORMAL"  # after weights are loaded and before RunRecordHook writes "done"

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._proof: dict[str, dict[str, Any]] = {}
        self._called: set[str] | None = set()  # None once the first step is checked

    def before_train(self, runner: Runner) -> None:
        """Log the table, compare with the config, and start counting.

        Raises:
            LossRecordError: a loss differs from the config, or from that of the resumed run.
        """
        losses = losses_of(runner.model)
        if losses:
            runner.logger.info(_table(runner.model, losses), extra=IN_PLAN)
        stored = runner.message_hub.get_info("loss_proof", {})
        config = runner.cfg.get("model")
        for slot, loss in losses.items():
            named = config.get(slot) if isinstance(config, Mapping) else None
            if named is not None and not matches_config(named, loss):
                raise LossRecordError(f"{slot}: the config names {named}, the model has {loss!r}")
            old = stored.get(slot, {})
            if old.get("loss", repr(loss)) != repr(loss):
                raise LossRecordError(
                    f"{slot}: the model has {loss!r}, but this run was started with "
                    f"{old['loss']}; give another --work-dir"
                )
            fresh = {"loss": repr(loss), "calls": 0, "gradient": False}
            self._proof[slot] = {key: old.get(key, value) for key, value in fresh.items()}
            count = partial(self._count_call, slot)
            self._handles.append(loss.register_forward_pre_hook(count, with_kwargs=True))
            loss.waits_for_gpu = True
        runner.message_hub.update_info("loss_proof", self._proof)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check after the first step that every loss was called.

        Raises:
            LossRecordError: a loss was not called.
        """
        for slot in self._proof.keys() - self._called if self._called is not None else ():
            raise LossRecordError(
                f"{slot}: the first training step did not call {self._proof[slot]['loss']}; the "
                f"model must compute this loss with model.losses[{slot!r}]"
            )
        if self._called is not None:
            for loss in losses_of(runner.model).values():
                loss.waits_for_gpu = False
        self._called = None

    def after_train(self, runner: Runner) -> None:
        """Stop counting, and warn about losses whose gradient was never observed."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for slot, loss in losses_of(runner.model).items():
            if not self._proof[slot]["gradient"] and getattr(loss, "loss_weight", 1) != 0:
                runner.logger.warning(
                    f"{slot}: no finite, nonzero gradient of {loss!r} was observed in training. "
                    "Does the training data have boxes that are assigned to anchors or locations?"
                )

    def _count_call(self, slot: str, loss: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        entry = self._proof[slot]
        entry["calls"] += 1
        if self._called is not None:
            self._called.add(slot)
        pred = args[0] if args else kwargs.get("pred")
        if not entry["gradient"] and isinstance(pred, Tensor) and pred.requires_grad:
            pred.register_hook(partial(_note_gradient, entry))


def _note_gradient(entry: dict[str, Any], gradient: Tensor) -> None:
    # With mixed precision, a step with an infinite gradient is repeated with a lower scale.
    if not entry["gradient"] and gradient.isfinite().all():
        entry["gradient"] = bool(gradient.any())


def matches_config(named: str | Mapping[str, Any] | nn.Module, loss: nn.Module) -> bool:
    """Return whether a loss has the type and the parameters given in a slot's config."""
    if isinstance(named, nn.Module):
        return type(named) is type(loss) and repr(named) == repr(loss)
    config = parse_loss(named) if isinstance(named, str) else dict(named.items())
    cls = config.pop("type")
    if type(loss) is not (find(MODELS, cls) if isinstance(cls, str) else cls):
        return False
    params = loss.params() if isinstance(loss, Loss) else {}
    stated = {key: value for key, value in config.items() if key not in LOSS_ARGUMENTS}
    with generators_kept():
        expected = build_loss({**params, **stated, "type": type(loss)})
    held = _inner_losses(config)
    same = len(held) == len(_inner_losses(params)) and all(
        map(matches_config, held, _inner_losses(params))
    )
    return repr(expected) == repr(loss) and (same or not held)


def _inner_losses(arguments: Mapping[str, Any]) -> list[Any]:
    """Return the losses among the arguments of a wrapper."""
    return [arguments["loss"]] if "loss" in arguments else list(arguments.get("losses", ()))


def _table(model: nn.Module, losses: Mapping[str, nn.Module]) -> str:
    sources = getattr(getattr(model, "module", model), "loss_sources", {})
    width = max(map(len, losses))
    rows = []
    for slot, loss in losses.items():
        source = f"  ({sources[slot]})" if sources.get(slot) else ""
        rows.append(f"  {slot:{width}}  {loss!r}{source}")
    return "\n".join(["Active losses:", *rows])
