"""What the variants are: loss weights, all that differs between them, their initial weights."""

from collections.abc import Mapping
from typing import Any

from det_losses.losses.core.text import HELD, loss_text
from det_losses.report.formats import NONE, listed, number, spread
from det_losses.report.section import Part, Section, Table, without_empty
from det_losses.report.standings import loss_weight
from det_losses.report.study import Study

_HOW = {
    "published": "published value",
    "given": "given by hand",
    "matched": "gradient matched to the baseline's",
    "swept": "multiple of the published value",
}


def loss_weights(study: Study) -> Part | None:
    """Return the table of loss weights: how each was chosen, and what it came to."""
    means = {}
    if study.comparable:
        means = {s.label: spread(s.mean, s.sd) for s in study.verdict().summaries}
    variants = study.meta["variants"]
    weights = [variant.get("weight") or {} for variant in variants.values()]
    swept = any(weight.get("multiple") not in (None, 1.0) for weight in weights)
    rows = []
    for label in study.labels:
        variant = variants[label]
        weight = variant.get("weight") or {}
        if not loss_weight(variant):
            continue
        how = _HOW.get(weight.get("how"), weight.get("how") or NONE)
        rows.append(
            [
                label,
                loss_weight(variant),
                how,
                number(weight.get("multiple")) if swept else NONE,
                number(weight.get("gradient_norm")),
                number(weight.get("initial_gradient_norm")),
                means.get(label, "n/a"),
                variant.get("source") or NONE,
            ]
        )
    if not rows:
        return None
    headers = ["variant", "loss_weight", "how chosen", "multiple", "gradient norm", "at the start"]
    headers += [study.metric, "source of weight and parameters"]
    text = "Much of a gain can be the weight of a loss alone."
    if any(weight.get("gradient_norm") is not None for weight in weights):
        text += (
            " Gradient norm: the L2 norm of the gradient with respect to the raw box output, after "
            "warming up with the baseline; at the start: the same with the initial weights."
        )
    table = without_empty(Table(headers, rows))
    return Part(Section("Loss weights", text, tables=(table,)))


def what_differs(study: Study) -> Part | None:
    """Return the config keys in which variants differ, side by side, and their initial weights."""
    if not study.origins:
        return None
    changes = {
        label: dict(_leaves(study.meta["variants"][label].get("changes") or {}))
        for label in study.labels
    }
    keys = list(dict.fromkeys(key for own in changes.values() for key in own))
    keys = [key for key in keys if len({own.get(key, NONE) for own in changes.values()}) > 1]
    rows = [[label, *(changes[label].get(key, NONE) for key in keys)] for label in study.labels]
    text = (
        "Everything in which the configs of the variants differ; the rest is the same for all. "
        "A dash: the variant does not set the key."
    )
    tables = [Table(["variant", *keys], rows)] if keys else []
    words, table = initial_weights(study)
    if table:
        tables.append(table)
    return Part(Section("What differs", f"{text}\n\n{words}", tables=tuple(tables)))


def initial_weights(study: Study) -> tuple[str, Table | None]:
    """Return whether the runs of each seed started from the same weights, and a table if not."""
    hashes: dict[int, dict[str, list[str]]] = {}
    unknown = []
    for label in study.labels:
        for run in study.of(label):
            if run["status"] == "done" and run.get("initial_weights"):
                of_seed = hashes.setdefault(run["seed"], {})
                of_seed.setdefault(run["initial_weights"], []).append(label)
            elif run["status"] == "done":
                unknown.append(f"{label} seed {run['seed']}")
    suffix = f" Not recorded: {listed(unknown)}." if unknown else ""
    differing = {seed: groups for seed, groups in sorted(hashes.items()) if len(groups) > 1}
    if not hashes:
        return f"Initial weights were not recorded.{suffix}", None
    if not differing:
        return f"Initial weights: equal for all variants of a seed, by their SHA-256.{suffix}", None
    rows = [
        [str(seed), digest[:12], listed(labels)]
        for seed, groups in differing.items()
        for digest, labels in groups.items()
    ]
    words = (
        f"Initial weights differ in seed {listed([str(seed) for seed in differing])}. That may be "
        "because the variants have layers of different shapes: a softmax loss has one more channel "
        "than a sigmoid loss, for the background. Then part of a difference is the start's."
    )
    return words + suffix, Table(["seed", "initial weights (SHA-256)", "variants"], rows)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted keys and values as texts; losses that a loss holds as one expression."""
    found: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key in HELD and "type" in value:
            held = inner if isinstance(inner, list) else [inner]
            found.append((name, ", ".join(map(loss_text, held))))
        elif isinstance(inner, Mapping) and inner:
            found += _leaves(inner, name)
        else:
            found.append((name, inner if isinstance(inner, str) else repr(inner)))
    return found
