"""From the options of a command to the variants that it compares."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from det_losses.compare import preflight
from det_losses.compare.files import write_json
from det_losses.compare.matched_weights import Matching, match_weights
from det_losses.compare.variants import Variant, crossed, parse_variant
from det_losses.compare.variants import swept as swept_variants
from det_losses.compare.weights import parse_loss
from det_losses.files import read_json

MATCHED_FILE = "matched_weights.json"


@dataclass(frozen=True)
class Choice:
    """What a command compares.

    Attributes:
        component: the slot of ``--losses``.
        components: all slots that variants change; none where only whole variants are compared.
        variants: before any matching or sweep of loss weights.
        multiples: of the loss weights, none without a sweep.
        baseline: label of the baseline.
    """

    component: str
    components: list[str]
    variants: list[Variant]
    multiples: tuple[float, ...]
    baseline: str

    @classmethod
    def of(cls, cfg: Config, args: argparse.Namespace) -> "Choice":
        """Read ``--losses``, ``--component``, ``--cross``, ``--variant`` and ``--baseline``.

        Raises:
            ValueError: nothing to compare, options that exclude each other, or no such baseline.
        """
        components = _components(cfg, args)
        losses = _losses(cfg, components[0], args.losses) if args.losses else []
        if args.cross:
            losses = crossed(losses, _losses(cfg, components[1], args.cross[1:]))
        whole = [parse_variant(cfg, text.strip(), components) for text in args.variant]
        variants = losses + whole
        for option in ("weights", "match_weights"):
            if getattr(args, option) and (whole or not losses):
                name = option.replace("_", "-")
                raise ValueError(f"--{name} sets the loss weights of --losses; leave out --variant")
        choice = cls(args.component, components, variants, tuple(args.weights), "")
        labels = [variant.label for variant in choice.swept(variants)]
        first = variants[0].label
        baseline = args.baseline or (first if first in labels else labels[0])
        if baseline not in labels:
            raise ValueError(f"--baseline {baseline}: compared are {', '.join(labels)}")
        return replace(choice, baseline=baseline)

    @property
    def factor_of_baseline(self) -> str:
        """The label of the baseline's loss in the component, without sweep and crossing."""
        swept = self.swept(self.variants)
        return next(v.factors[self.component] for v in swept if v.label == self.baseline)

    @property
    def name(self) -> str:
        """What the directory of the comparison is called by default."""
        return "_".join(self.components) or "variants"

    def swept(self, variants: Sequence[Variant]) -> list[Variant]:
        """Return the variants with each multiple of their loss weight; the 1 comes first."""
        if not self.multiples:
            return list(variants)
        return swept_variants(variants, self.component, self.multiples)


def matched(cfg: Config, choice: Choice, root: Path) -> list[Variant]:
    """Return the variants with loss weights that give gradients as large as the baseline's.

    What was matched before in this directory stays: ``matched_weights.json``.

    Raises:
        ValueError: the component is no box loss, or was matched otherwise before.
    """
    slot = choice.component
    losses = {variant.factors[slot]: variant.loss(slot) for variant in choice.variants}
    baseline = choice.factor_of_baseline
    file = root / MATCHED_FILE
    stored = read_json(file)
    known = None if stored is None else Matching.from_dict(stored)
    if known and (known.slot, known.baseline) != (slot, baseline):
        raise ValueError(
            f"{file}: the weights of {known.slot} were matched to {known.baseline}, not those of "
            f"{slot} to {baseline}; give another --work-dir"
        )
    if known is None or not losses.keys() <= known.losses.keys():
        print("Matching loss weights: a short training with the baseline", flush=True)
        found = match_weights(cfg, slot, losses, baseline, work_dir=root)
        known = known.joined(found) if known else found
        write_json(file, known.to_dict())
    variants = []
    for variant in choice.variants:
        label = variant.factors[slot]
        loss = known.losses[label]
        norms = {
            "gradient_norm": loss.matched_norm,
            "initial_gradient_norm": loss.matched_initial_norm,
            "published_weight": loss.given_weight,
        }
        source = known.source(label)
        variants.append(variant.with_weight(slot, loss.loss_weight, source, how="matched", **norms))
    return variants


def _components(cfg: Config, args: argparse.Namespace) -> list[str]:
    if not args.losses and not args.variant:
        raise ValueError("nothing to compare: give --losses or --variant")
    if args.cross and (not args.losses or len(args.cross) < 2):
        raise ValueError("--cross needs --losses, a component and its losses: --cross loss_cls A B")
    if not args.losses:
        return []
    preflight.check_component(cfg, args.component)
    if not args.cross:
        return [args.component]
    preflight.check_component(cfg, args.cross[0], "--cross")
    if args.cross[0] == args.component:
        raise ValueError(f"--cross {args.component}: name another component than --component")
    return [args.component, args.cross[0]]


def _losses(cfg: Config, component: str, texts: Sequence[str]) -> list[Variant]:
    found = [parse_loss(cfg.model, component, text.strip()) for text in texts]
    return [Variant.of_loss(component, loss) for loss in found]
