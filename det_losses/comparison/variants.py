"""The variants of a comparison: each is a label and the config keys that it changes."""

import copy
import inspect
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from det_losses.comparison.trainer import build_trainer, detector_of, is_foreign
from det_losses.errors import InputError, NotRegisteredError, did_you_mean
from det_losses.losses.core.build import build_loss
from det_losses.losses.core.text import parse_loss, parse_value, split_arguments
from det_losses.models.published import complete, table_of
from det_losses.models.slots import Slot
from det_losses.registry import MODELS, find
from det_losses.report.formats import OF_TRAINER


@dataclass(frozen=True)
class Variant:
    """One variant of a comparison.

    Attributes:
        label: its name in tables.
        changes: dotted config key -> new value.
        source: source of loss weight and parameters.
        factors: slot -> its loss as text, for variants of ``--losses`` and ``--cross``.
        weight: how the loss weight was chosen (``how``: published, given, swept, matched), its
            ``multiple``, and the gradient norms of a matching.
    """

    label: str
    changes: dict[str, Any]
    source: str = ""
    factors: dict[str, str] = field(default_factory=dict)
    weight: dict[str, Any] = field(default_factory=dict)

    def loss(self, slot: str) -> dict[str, Any]:
        """Return the config of the loss in a slot."""
        return self.changes[f"model.{slot}"]

    def with_weight(self, slot: str, value: float, source: str, **how: Any) -> "Variant":
        """Return this variant with another ``loss_weight`` in a slot."""
        key = f"model.{slot}"
        changes = {**self.changes, key: {**self.changes[key], "loss_weight": value}}
        weight = {**self.weight, **how}
        return replace(self, changes=changes, source=source, weight=weight)

    def apply(self, cfg: Config) -> Config:
        """Return a changed copy of the config."""
        own = copy.deepcopy(cfg)
        for key, value in self.changes.items():
            set_key(own, key, value)
        return own


@dataclass(frozen=True)
class Selection:
    """The variants requested by a command.

    Attributes:
        component: the slot of ``--losses``.
        components: all slots whose losses are compared; empty if there are only variants of
            ``--variant``.
        variants: the variants before loss weights are matched or multiplied.
        multiples: factors of the loss weights; empty without a sweep.
        baseline: label of the baseline.
    """

    component: str
    components: list[str]
    variants: list[Variant]
    multiples: tuple[float, ...]
    baseline: str

    @property
    def baseline_loss(self) -> str:
        """The baseline's loss in the component, as text."""
        swept = self.swept(self.variants)
        return next(v.factors[self.component] for v in swept if v.label == self.baseline)

    def swept(self, variants: Sequence[Variant]) -> list[Variant]:
        """Return each variant with each multiple of its loss weight."""
        if not self.multiples:
            return list(variants)
        return sweep(variants, self.component, self.multiples)


def select(
    cfg: Config,
    losses: Sequence[str] = (),
    component: str = "loss_bbox",
    *,
    cross: Sequence[str] = (),
    config_variants: Sequence[str] = (),
    baseline: str | None = None,
    multiples: Sequence[float] = (),
    matched: bool = False,
) -> Selection:
    """Return the variants requested by a command.

    Args:
        cfg: the config of the comparison.
        losses: losses as text (``--losses``).
        component: slot of these losses.
        cross: another slot and its losses: each loss is combined with each of these (``--cross``).
        config_variants: variants given by config keys, as text (``--variant``).
        baseline: label of the baseline; None: the first variant.
        multiples: factors of the loss weights (``--weights``).
        matched: whether the loss weights will be matched.

    Raises:
        InputError: nothing to compare, options that exclude each other, no such baseline, or two
            identical losses.
        NotRegisteredError: no such loss; the nearest names are suggested.
    """
    components = _components(cfg, losses, component, cross, bool(config_variants))
    factors = itertools.product(losses, cross[1:]) if cross else zip(losses, strict=True)
    variants = [loss_variant(cfg, dict(zip(components, texts, strict=True))) for texts in factors]
    _check_different(variants)
    variants += [config_variant(cfg, text.strip(), components) for text in config_variants]
    for option, given in (("weights", bool(multiples)), ("match-weights", matched)):
        if given and (config_variants or not losses):
            raise InputError(
                f"--{option} sets the loss weights of --losses; it cannot be used with --variant"
            )
    selection = Selection(component, components, variants, tuple(multiples), "")
    labels = [variant.label for variant in selection.swept(variants)]
    first = variants[0].label if variants[0].label in labels else labels[0]
    if baseline not in (None, *labels):
        raise InputError(f"--baseline {baseline}: the variants are {', '.join(labels)}")
    return replace(selection, baseline=baseline or first)


def _check_different(variants: Sequence[Variant]) -> None:
    """Raise InputError if two variants of ``--losses`` are identical; ``--variant`` allows this."""
    for one, other in itertools.combinations(variants, 2):
        if one.label != other.label and one.changes == other.changes:
            raise InputError(f"{one.label} and {other.label} are identical; remove one of them")


def _components(
    cfg: Config, losses: Sequence[str], component: str, cross: Sequence[str], other_variants: bool
) -> list[str]:
    """Return the slots whose losses are compared, and check the options that name them."""
    if not losses and not other_variants:
        raise InputError("nothing to compare: give --losses or --variant")
    if cross and (not losses or len(cross) < 2):
        raise InputError(
            "--cross requires --losses, a component and its losses: --cross loss_cls A B"
        )
    if not losses:
        return []
    named = {"--component": component, **({"--cross": cross[0]} if cross else {})}
    slots = _slot_names(cfg)
    for option, slot in named.items():
        if not _is_slot(slot, slots):
            known = f"has the slots {', '.join(slots)}" if slots else "names slots loss_<name>"
            raise InputError(f"{option} {slot}: {detector_of(cfg)} {known}")
    if len(named) > len(set(named.values())):
        raise InputError(f"--cross {component}: give a slot other than that of --component")
    return list(named.values())


def loss_variant(cfg: Config, losses: Mapping[str, str]) -> Variant:
    """Return the variant with these losses, completed by the same rule as in a config.

    Args:
        cfg: the config of the comparison.
        losses: slot -> loss as text. The weight of the first one can be matched or swept.
    """
    factors = {slot: text.strip() for slot, text in losses.items()}
    changes, sources = _complete(cfg, factors)
    label = " + ".join(factors.values())
    texts = [f"{factors[slot]}: {source}" for slot, source in sources.items()]
    source = "; ".join(texts if len(texts) > 1 else sources.values())
    first = next(iter(changes.values()))
    given = "loss_weight" in (first if is_foreign(cfg) else parse_loss(factors[next(iter(losses))]))
    how = "given" if given else OF_TRAINER if is_foreign(cfg) else "published"
    return Variant(label, changes, source, factors, {"how": how, "multiple": 1.0})


def config_variant(cfg: Config, text: str, components: Sequence[str]) -> Variant:
    """Return the variant described by ``"name:key=value,key=value"``.

    A key is a dotted config key, or a slot of the detector with a loss as in ``--losses``. A
    component that the text does not name keeps the loss of the config.

    Args:
        cfg: the config of the comparison.
        text: the option's text.
        components: the slots that other variants change.

    Raises:
        InputError: the text cannot be parsed, or the config has no such key.
    """
    label, _, arguments = text.partition(":")
    if not label.strip():
        raise InputError(f"--variant {text!r}: expected NAME:KEY=VALUE,KEY=VALUE")
    losses: dict[str, Any] = {}
    others: dict[str, Any] = {}
    slots = _slot_names(cfg)
    for key, value in split_arguments(arguments, f"--variant {text!r}"):
        slot = key.removeprefix("model.")
        if _is_slot(slot, slots):
            losses[slot] = value
        else:
            _check_key(cfg, key, text)
            others[key] = _as_stored(parse_value(value))
    _check_common(cfg, others, text)
    changed = Variant(label, others).apply(cfg)
    model = changed.get("model") or {}
    kept = {s: model[s] for s in components if s not in losses and model.get(s) is not None}
    changes, sources = _complete(changed, {**kept, **losses})
    source = "; ".join(f"{slot}: {source}" for slot, source in sources.items())
    how = {"how": "given", "multiple": 1.0}
    # A key of `others` may be inside one of the losses, so the losses come first.
    return Variant(label.strip(), {**changes, **others}, source or "set by --variant", {}, how)


def _complete(cfg: Config, losses: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the changes that set the completed losses, and the source of each slot's setting.

    Those of another program's training are not completed.
    """
    if is_foreign(cfg):
        found = {slot: (_foreign_loss(loss), "as given") for slot, loss in losses.items()}
    else:
        table = table_of({**cfg.model, **losses})
        found = {slot: complete(table, slot, loss) for slot, loss in losses.items()}
    changes = {f"model.{slot}": _as_stored(config) for slot, (config, _) in found.items()}
    return changes, {slot: source for slot, (_, source) in found.items()}


def _foreign_loss(text: str) -> dict[str, Any]:
    """Return the config of a loss of another program, which may have a name of any form.

    Raises:
        UserError: it is registered here, and its parameters are not as they should be.
    """
    name = re.match(r"[\w.]*", text)[0]
    try:
        find(MODELS, name)
    except NotRegisteredError:
        try:
            return parse_loss(text)
        except InputError:
            return {"type": text}
    loss = parse_loss(text)
    build_loss(loss)
    return loss


def sweep(variants: Sequence[Variant], slot: str, multiples: Sequence[float]) -> list[Variant]:
    """Return each variant with each multiple of its loss weight; 1 keeps the label."""
    found = []
    for variant, multiple in itertools.product(variants, multiples):
        if multiple == 1:
            found.append(variant)
            continue
        weight = variant.loss(slot).get("loss_weight", 1.0) * multiple
        labelled = replace(variant, label=f"{variant.label} x{multiple:g}")
        source = f"{multiple:g} x the weight of: {variant.source}"
        found.append(labelled.with_weight(slot, weight, source, how="swept", multiple=multiple))
    return found


def set_key(cfg: Mapping[str, Any], key: str, value: Any) -> None:
    """Replace one entry of a config, in place; parts of the key may be indices of lists."""
    *parents, last = key.split(".")
    inner: Any = cfg
    for part in parents:
        if isinstance(inner, list):
            inner = inner[int(part)]
        else:
            if inner.get(part) is None:
                inner[part] = ConfigDict()
            inner = inner[part]
    value = ConfigDict(value) if isinstance(value, Mapping) else copy.deepcopy(value)
    inner[int(last) if isinstance(inner, list) else last] = value


def _slot_names(cfg: Config) -> Sequence[str] | None:
    """Return the slots of the detector or the trainer; None if a trainer takes any."""
    return build_trainer(cfg).slots if is_foreign(cfg) else list(slots_of(cfg))


def _is_slot(name: str, slots: Sequence[str] | None) -> bool:
    return name.startswith("loss_") if slots is None else name in slots


def slots_of(cfg: Config) -> Mapping[str, Slot]:
    """Return the slots of the config's detector.

    Raises:
        InputError: the model is not a detector with slots.
    """
    slots = getattr(find(MODELS, cfg.model.type), "slots", None)
    if slots is None:
        raise InputError(f"model.type {cfg.model.type} is not a detector with loss slots")
    return slots


def _as_stored(value: Any) -> Any:
    """Return a value as plan.json stores it: tuples become lists."""
    return json.loads(json.dumps(value))


def _check_key(cfg: Config, key: str, text: str) -> None:
    """Raise InputError unless the config has the entry that contains the key."""
    *parents, last = key.split(".")
    inner: Any = dict.fromkeys(inspect.signature(Runner).parameters) | dict(cfg.items())
    missing = None if parents or last in inner else last
    for part in parents:
        try:
            inner = inner[int(part)] if isinstance(inner, list) else inner[part]
        except (KeyError, IndexError, ValueError, TypeError):
            missing = part
            break
    if missing is not None:
        hint = did_you_mean(missing, inner) if isinstance(inner, Mapping) else ""
        raise InputError(
            f"--variant {text!r}: the config has no {key!r} ({missing!r} is missing). {hint}"
        )
    if not isinstance(inner, (Mapping, list)):
        raise InputError(f"--variant {text!r}: {key!r} is inside {inner!r:.80}, which has no keys")


# What every run of a comparison has in common, or gets from the comparison.
_COMMON = {
    "randomness.seed": "the seeds are those of --seeds",
    "work_dir": "each run has its own directory",
    "resume": "unfinished runs are always resumed",
    "val_dataloader.dataset": "all variants must be evaluated on the same data",
    "val_dataloader.sampler": "all variants must be evaluated on the same data",
    "val_evaluator": "all variants must be evaluated with the same metric",
    "test_dataloader": "a comparison evaluates on the validation data only",
    "test_evaluator": "a comparison evaluates on the validation data only",
}


def _check_common(cfg: Config, changes: Mapping[str, Any], text: str) -> None:
    """Raise InputError if a variant changes what variants must share.

    Transforms of the validation data may differ: an input size belongs to its model.
    """
    before = copy.deepcopy(cfg)
    (before.get("randomness") or {}).pop("seed", None)  # no run has that of the config
    after = Variant("", dict(changes)).apply(before)
    for own in (before, after):
        dataset = _entry(own, "val_dataloader.dataset")
        if isinstance(dataset, Mapping):
            dataset.pop("transforms", None)
    for key, reason in _COMMON.items():
        if _entry(before, key) != _entry(after, key):
            raise InputError(f"--variant {text!r} changes {key}, but {reason}")


def _entry(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, Mapping | Config) else None
    return cfg
