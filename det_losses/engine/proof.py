"""Proof that a run trained with the losses that its config names."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from det_losses.engine.active_losses import losses_of
from det_losses.engine.fingerprint import loss_hash
from det_losses.engine.probe import LossProofError, probe_losses
from det_losses.generators import generators_kept
from det_losses.losses import build_loss
from det_losses.registry import HOOKS

_IMAGES = 2  # a batch of the probe
_BATCHES = 8  # at most, where the first ones give no gradient
_SAMPLES = 256  # looked through for images with boxes


@HOOKS.register_module()
class LossProofHook(Hook):
    """Stop a run whose model does not train the losses that the config names.

    Before and after training the gradient of each reported loss is compared with that of the named
    loss (see :func:`~det_losses.engine.probe.probe_losses`), on the first two images with boxes of
    the training set. In between it counts the steps in which the model called the loss. In
    metrics.json this becomes ``proof``: slot -> ``loss`` (with its parameters), ``hash`` (see
    :func:`~det_losses.engine.fingerprint.loss_hash`), ``calls`` and ``probe`` (the relative
    differences at ``start`` and ``end``; null where no batch gave a gradient). A run that fails
    leaves no metrics.json of status "done". A resumed run counts on. A model without a ModuleDict
    ``losses`` has nothing to prove.

    Under distributed training rank 0 probes, and every rank ends with its error.
    """

    priority = "NORMAL"  # after weights are loaded, before RunRecordHook writes "done"

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._called: set[str] = set()
        self._proof: dict[str, dict[str, Any]] = {}
        self._named: dict[str, nn.Module] = {}

    def before_train(self, runner: Runner) -> None:
        """Probe, and start to count.

        Raises:
            LossProofError: a loss is not the named one, or not that of the run to be resumed.
        """
        model = getattr(runner.model, "module", runner.model)
        self._proof = runner.message_hub.get_info("loss_proof", {})
        runner.message_hub.update_info("loss_proof", self._proof)
        self._named = named_losses(model, runner.cfg.get("model"))
        for slot, loss in losses_of(model).items():
            self._count_steps(slot, loss)
        _on_rank_0(lambda: self._check_code(model))
        _on_rank_0(lambda: self._probe(runner, model, "start"))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget what was called outside of steps."""
        self._called.clear()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Count the step for each loss that the model called."""
        for slot in self._called:
            self._proof[slot]["calls"] += 1

    def after_train(self, runner: Runner) -> None:
        """Probe the trained head, and ask for a call and a gradient of each loss.

        Raises:
            LossProofError: a loss is not the named one, or training did not use it.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []
        model = getattr(runner.model, "module", runner.model)
        _on_rank_0(lambda: self._probe(runner, model, "end"))
        _on_rank_0(lambda: self._check_use(runner.iter))

    def _count_steps(self, slot: str, loss: nn.Module) -> None:
        self._proof.setdefault(slot, _entry(loss))
        note = partial(self._called.add, slot)
        self._handles.append(loss.register_forward_pre_hook(lambda *_: note()))

    def _check_code(self, model: nn.Module) -> None:
        for slot, loss in losses_of(model).items():
            entry = self._proof[slot]
            if entry["hash"] != loss_hash(loss):
                raise LossProofError(
                    f"{slot}: configuration or code of {loss!r} changed since this run began with "
                    f"{entry['loss']}; start the run anew in another --work-dir"
                )

    def _check_use(self, steps: int) -> None:
        for slot, entry in self._proof.items():
            if steps and not entry["calls"]:
                raise LossProofError(
                    f"{slot}: {entry['loss']} was called in none of {steps} training steps"
                )
            if set(entry["probe"].values()) == {None}:
                raise LossProofError(
                    f"{slot}: no gradient of {entry['loss']} reached a trained parameter, neither "
                    "before nor after training, so nothing shows that the run used it"
                )

    def _probe(self, runner: Runner, model: nn.Module, when: str) -> None:
        found = probe_losses(model, self._named, fixed_batches(runner.train_dataloader))
        for slot, difference in found.items():
            if self._proof[slot]["probe"][when] is None:  # a resumed run keeps its first start
                self._proof[slot]["probe"][when] = difference
            if difference is None:
                runner.logger.warning(
                    f"{slot}: on none of the batches that were tried did {self._named[slot]!r} "
                    f"give a finite gradient other than zero, so the probe at the {when} of "
                    "training shows nothing"
                )


def _on_rank_0(check: Callable[[], None]) -> None:
    """Call a check in the main process alone, and end with its error in all."""
    error: Exception | None = None
    if is_main_process():
        try:
            check()
        except Exception as raised:
            error = raised
    told = [None if error is None else str(error)]
    broadcast_object_list(told)
    if error is not None:
        raise error
    if told[0] is not None:
        raise LossProofError(told[0])


def _entry(loss: nn.Module) -> dict[str, Any]:
    probe = {"start": None, "end": None}
    return {"loss": repr(loss), "hash": loss_hash(loss), "calls": 0, "probe": probe}


def named_losses(model: nn.Module, config: Any) -> dict[str, nn.Module]:
    """Build anew the loss that a model's config names for each slot.

    A slot of which the config says nothing has the detector's default; where there is none either,
    or no config, it is a copy of what the model holds. The generators stay as they are.

    Args:
        model: with a ModuleDict ``losses``, or without one.
        config: the config that the model was built from; anything else than a dict, as None or a
            model, is no config.
    """
    known = isinstance(config, Mapping)
    slots = getattr(model, "slots", {}) if known else {}
    named = {}
    for slot, built in losses_of(model).items():
        loss = config.get(slot) if known else None
        if slot in slots:
            table = model.settings_table(config)
            loss, _ = slots[slot].config(table, slot, loss, model.loss_classes)
        if loss is None:
            loss = built
        with generators_kept():
            loss = copy.deepcopy(loss) if isinstance(loss, nn.Module) else build_loss(loss)
        named[slot] = loss.to(next(model.parameters()).device)
    return named


def fixed_batches(loader: DataLoader) -> Iterator[Any]:
    """Yield a few small batches of a loader's dataset in its own order, of images with boxes.

    The loader's sampler and workers are not touched.
    """
    dataset = loader.dataset
    samples = dataset if isinstance(dataset, IterableDataset) else _in_order(dataset)
    useful = (sample for sample in islice(samples, _SAMPLES) if _may_have_boxes(sample))
    size = min(_IMAGES, loader.batch_size or _IMAGES)
    for _ in range(_BATCHES):
        batch = list(islice(useful, size))
        if not batch:
            return
        yield loader.collate_fn(batch)


def _in_order(dataset: Any) -> Iterator[Any]:
    return (dataset[index] for index in range(len(dataset)))


def _may_have_boxes(sample: Any) -> bool:
    target = sample[1] if isinstance(sample, Sequence) and len(sample) > 1 else None
    return not (isinstance(target, Mapping) and "boxes" in target) or len(target["boxes"]) > 0
