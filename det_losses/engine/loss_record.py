"""Which losses a run trains: shown at its start, checked in its first step, kept in its record."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from det_losses.errors import UserError
from det_losses.generators import generators_kept
from det_losses.losses import Loss, build_loss
from det_losses.losses.core.text import LOSS_ARGUMENTS, parse_loss
from det_losses.registry import HOOKS, MODELS, find


class LossRecordError(UserError, RuntimeError):
    """A slot's loss is not the one that the config names, or training does not call it."""


def losses_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the ModuleDict ``losses`` of a model or of its DDP wrapper; ``{}`` without one."""
    return dict(getattr(getattr(model, "module", model), "losses", {}))


@HOOKS.register_module()
class LossRecordHook(Hook):
    """Check that the losses of the config are those that train.

    Before training it logs a table of the losses with all parameters, and compares each with the
    config. After the first step it stops a run in which a loss was never called. It counts the
    calls, and watches the gradient with respect to each loss's ``pred`` until one was finite and
    not zero, which shows that the loss reached the head.

    In metrics.json this becomes ``proof``: slot -> ``loss`` (with its parameters), ``calls`` and
    ``gradient`` (true once a gradient was seen). A resumed run continues to count. Under
    distributed training each rank checks its own model. A model without a ModuleDict ``losses`` is
    not checked.
    """

    priority = "NORMAL"  # after weights are loaded, before RunRecordHook writes "done"

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._proof: dict[str, dict[str, Any]] = {}
        self._called: set[str] | None = set()  # None once the first step is checked

    def before_train(self, runner: Runner) -> None:
        """Log the table, compare with the config, and start to count.

        Raises:
            LossRecordError: a loss is not the one in the config or in the run to be resumed.
        """
        losses = losses_of(runner.model)
        if losses:
            runner.logger.info(_table(runner.model, losses))
        stored = runner.message_hub.get_info("loss_proof", {})
        config = runner.cfg.get("model")
        for slot, loss in losses.items():
            named = config.get(slot) if isinstance(config, Mapping) else None
            if named is not None and not agrees(named, loss):
                raise LossRecordError(f"{slot}: the config names {named}, the model has {loss!r}")
            old = stored.get(slot, {})
            if old.get("loss", repr(loss)) != repr(loss):
                raise LossRecordError(
                    f"{slot}: the model has {loss!r}, but this run began with {old['loss']}; "
                    "train in another --work-dir"
                )
            fresh = {"loss": repr(loss), "calls": 0, "gradient": False}
            self._proof[slot] = {key: old.get(key, value) for key, value in fresh.items()}
            note = partial(self._note_call, slot)
            self._handles.append(loss.register_forward_pre_hook(note, with_kwargs=True))
        runner.message_hub.update_info("loss_proof", self._proof)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Check, once, that the step has called every loss.

        Raises:
            LossRecordError: it has not.
        """
        for slot in self._proof.keys() - self._called if self._called is not None else ():
            raise LossRecordError(
                f"{slot}: the first training step did not call {self._proof[slot]['loss']}; the "
                f"model must compute this loss with model.losses[{slot!r}]"
            )
        self._called = None

    def after_train(self, runner: Runner) -> None:
        """Stop to count, and warn of losses whose gradient was never seen."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for slot, loss in losses_of(runner.model).items():
            if not self._proof[slot]["gradient"] and getattr(loss, "loss_weight", 1) != 0:
                runner.logger.warning(
                    f"{slot}: in the whole training {loss!r} had no finite gradient other than "
                    "zero. Does the training data have boxes?"
                )

    def _note_call(self, slot: str, loss: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        entry = self._proof[slot]
        entry["calls"] += 1
        if self._called is not None:
            self._called.add(slot)
        pred = args[0] if args else kwargs.get("pred")
        if not entry["gradient"] and isinstance(pred, Tensor) and pred.requires_grad:
            pred.register_hook(partial(_note_gradient, entry))


def _note_gradient(entry: dict[str, Any], gradient: Tensor) -> None:
    # An infinite gradient of mixed precision is repeated with a lower scale.
    if not entry["gradient"] and gradient.isfinite().all():
        entry["gradient"] = bool(gradient.any())


def agrees(named: str | Mapping[str, Any] | nn.Module, loss: nn.Module) -> bool:
    """Return whether a loss has the type and the parameters that a slot's config states."""
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
    held = _held(config)
    same = len(held) == len(_held(params)) and all(map(agrees, held, _held(params)))
    return repr(expected) == repr(loss) and (same or not held)


def _held(arguments: Mapping[str, Any]) -> list[Any]:
    """Return the losses that a loss is given to hold."""
    return [arguments["loss"]] if "loss" in arguments else list(arguments.get("losses", ()))


def _table(model: nn.Module, losses: Mapping[str, nn.Module]) -> str:
    sources = getattr(getattr(model, "module", model), "loss_sources", {})
    width = max(map(len, losses))
    rows = []
    for slot, loss in losses.items():
        source = f"  ({sources[slot]})" if sources.get(slot) else ""
        rows.append(f"  {slot:{width}}  {loss!r}{source}")
    return "\n".join(["Active losses:", *rows])
