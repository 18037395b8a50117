"""Records of a comparison: loss weights, losses that ran, runs, data, commands."""

from collections.abc import Mapping
from typing import Any

from det_losses.errors import counted
from det_losses.evaluation.metrics import LOGGED_METRICS
from det_losses.losses.core.text import LOSS_ARGUMENTS, loss_text
from det_losses.report.formats import NONE, duration, listed, number, points, spread
from det_losses.report.runs import Runs
from det_losses.report.section import Section, Table, without_empty
from det_losses.report.tables import loss_weight

_HOW = {
    "published": "published value",
    "given": "set by the user",
    "matched": "gradient norm matched to the baseline's",
    "swept": "multiple of the published value",
}
_SPLITS = {"train": "training", "val": "validation"}


def loss_weights(study: Runs) -> Section | None:
    """Return a table of the loss weight of each variant, how it was chosen, and the score."""
    means = {}
    if study.comparable:
        means = {s.label: spread(s.mean, s.sd) for s in study.verdict().summaries}
    variants = study.meta["variants"]
    weights = {label: variants[label].get("weight") or {} for label in study.labels}
    swept = any(weight.get("multiple") not in (None, 1.0) for weight in weights.values())
    rows = [
        [
            label,
            loss_weight(variants[label]),
            _HOW.get(weight.get("how"), weight.get("how") or NONE),
            number(weight.get("multiple")) if swept else NONE,
            number(weight.get("gradient_norm")),
            number(weight.get("initial_gradient_norm")),
            means.get(label, "n/a"),
            variants[label].get("source") or NONE,
        ]
        for label, weight in weights.items()
        if loss_weight(variants[label])
    ]
    if not rows:
        return None
    headers = ["variant", "loss_weight", "how chosen", "multiple", "gradient norm"]
    headers += ["initial gradient norm", study.metric, "source of weight and parameters"]
    text = "Changing the loss weight alone can change the score."
    if any(weight.get("gradient_norm") is not None for weight in weights.values()):
        text += (
            " Gradient norm: L2 norm of the gradient with respect to the raw box output, after a "
            "warm-up with the baseline. Initial gradient norm: the same with the initial weights."
        )
    return Section("Loss weights", text, tables=(without_empty(Table(headers, rows)),))


def what_differs(study: Runs) -> Section | None:
    """Return the config keys in which variants differ, and whether initial weights are equal."""
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
        "All config keys in which the variants differ; all other keys are equal. "
        "A dash means that the variant does not set the key."
    )
    if study.trained_by:
        text = (
            f"What {study.trained_by} was told about each variant. A dash means that the variant "
            "does not set the key."
        )
    tables = [Table(["variant", *keys], rows)] if keys else []
    words, table = _initial_weights(study)
    tables += [table] if table else []
    return Section("Differences between the variants", f"{text}\n\n{words}", tables=tuple(tables))


def pretrained_weights(study: Runs) -> Section | None:
    """Return what the runs started from, and how much of it was loaded; None if from scratch."""
    found: dict[tuple[str, ...], list[str]] = {}
    for label in study.labels:
        for run in study.runs_of(label):
            if run["status"] == "done":
                labels = found.setdefault(_started_from(run.get("weights")), [])
                labels += [] if label in labels else [label]
    if not any(row[0] != NONE for row in found):
        return None
    one = len(found) == 1
    text = (
        f"{'All runs started' if one else 'The runs started'} from the weights of a trained "
        "detector. Made anew: tensors of the model that the file lacks, or that have another shape "
        "there."
    )
    headers = ["variants", "file", "SHA-256", "layout", "loaded", "made anew", "unused", "remarks"]
    rows = [["all" if one else listed(labels), *row] for row, labels in found.items()]
    return Section("Pretrained weights", text, tables=(without_empty(Table(headers, rows)),))


def _started_from(record: Mapping[str, Any] | None) -> tuple[str, ...]:
    if not record:
        return (NONE,) * 7
    remarks = [record.get("class_layer"), *record.get("notes", [])]
    return (
        record["source"],
        record["sha256"][:12],
        record["layout"],
        f"{record['loaded']} of {record['tensors']} tensors",
        _some(record["anew_names"], record["anew"]),
        _some(record["unused_names"], record["unused"]),
        "; ".join(filter(None, remarks)) or NONE,
    )


def _some(names: list[str], count: int, limit: int = 3) -> str:
    """Return a number of tensors with the first names."""
    more = ", ..." if count > limit else ""
    return f"{count} ({', '.join(names[:limit])}{more})" if count else "0"


def losses_that_ran(study: Runs) -> Section | None:
    """Return the loss objects that each run built and called."""
    rows = [
        [
            label,
            str(run["seed"]),
            slot,
            str(found.get("loss", NONE)),
            str(found.get("calls", NONE)),
            _gradient(found),
        ]
        for label in study.labels
        for run in study.runs_of(label)
        for slot, found in (run.get("proof") or {}).items()
    ]
    if not rows:
        return None
    text = (
        "Recorded by each run: the loss object in each slot with its parameters, the number of "
        "training steps that called it, and whether a finite, nonzero gradient reached its "
        "predictions."
    )
    table = Table(["variant", "seed", "slot", "loss", "calls", "gradient"], rows)
    return Section("Losses that ran", text, tables=(table,), folded=True)


def runs(study: Runs) -> Section:
    """Return the table of all runs, and the errors of failed runs."""
    rows = [
        [
            label,
            str(run["seed"]),
            run["status"],
            *(points(_metrics(study, run).get(name)) for name in LOGGED_METRICS),
            duration(run.get("train_seconds")),
            number(run.get("seconds_per_iteration")),
            number(run.get("peak_memory_mb"), 4),
            str(run.get("work_dir") or ", ".join(run.get("detections", []))),
        ]
        for label in study.labels
        for run in study.runs_of(label)
    ]
    headers = ["variant", "seed", "status", *LOGGED_METRICS]
    headers += ["training", "s / iteration", "peak MB", "directory"]
    errors = tuple(
        f"{run['variant']} seed {run['seed']} failed:\n{run.get('error') or 'no error was stored'}"
        for run in study.runs
        if run["status"] == "failed"
    )
    return Section("Runs", "", tables=(without_empty(Table(headers, rows)),), codes=errors)


def data(study: Runs) -> Section:
    """Return the numbers of images and of boxes."""
    truth, boxes = study.truth, study.meta.get("val_boxes")
    trained = (study.meta.get("images") or {}).get("train")
    sizes = (
        f" ({boxes['small']} small, {boxes['medium']} medium, {boxes['large']} large)"
        if boxes
        else ""
    )
    counted_boxes, each = ~truth.crowds, " in each run" if study.folds else ""
    trained_text = f"{counted(trained, 'training image')}{each}. " if trained else ""
    text = (
        f"{trained_text}"
        f"{counted(len(truth.image_ids), 'evaluated image')} with "
        f"{counted(int(counted_boxes.sum()), 'box')}{sizes} of "
        f"{counted(len(truth.names), 'class')}, crowds excluded.{_folds(study)}"
    )
    rows = [
        [name, str(int((counted_boxes & (truth.category_index == index)).sum()))]
        for index, name in enumerate(truth.names)
    ]
    notes = [
        [_SPLITS.get(split, split), note]
        for split, own in (study.meta.get("data_notes") or {}).items()
        for note in own
    ]
    tables = [Table(["data", "dropped, changed or suspected"], notes)] if notes else []
    return Section("Data", text, tables=(*tables, Table(["class", "boxes"], rows)))


def _folds(study: Runs) -> str:
    """Return how the images are divided for training and evaluation; empty without folds."""
    if not study.folds:
        return ""
    done, key = study.evaluated_folds, study.meta["folds"].get("key")
    apart = f" Images with the same {key} are in one fold." if key else ""
    missing = study.folds - len(done)
    left = f" {counted(missing, 'fold')} not evaluated yet." if missing else ""
    return (
        f" They are divided into {study.folds} folds of about equal size. The run with seed s was "
        f"trained on all but fold s mod {study.folds} and evaluated on that one, so the result is "
        f"about other training sets of this size as well as other seeds.{apart}{left}"
    )


def reproduction(study: Runs) -> Section | None:
    """Return command, config, versions and hardware of each merged comparison."""
    texts, codes = [], []
    for part in study.origins:
        meta = part.meta
        codes += map(str, meta.get("commands") or filter(None, [meta.get("command")]))
        place = f"{part.folder}: " if len(study.origins) > 1 else ""
        text = " ".join(filter(None, [_config(meta), _machine(meta), _times(meta)]))
        texts.append(f"{place}{text}")
    if not codes and not any(texts):
        return None
    return Section("How to reproduce", "\n\n".join(texts), codes=tuple(codes))


def _initial_weights(study: Runs) -> tuple[str, Table | None]:
    """Return whether the runs of each seed had equal initial weights, and a table if not."""
    if study.trained_by:
        return not_recorded(study.trained_by), None
    hashes: dict[int, dict[str, list[str]]] = {}
    unknown = []
    for label in study.labels:
        for run in study.runs_of(label):
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
        return f"For each seed, all variants have equal initial weights (SHA-256).{suffix}", None
    rows = [
        [str(seed), digest[:12], listed(labels)]
        for seed, groups in differing.items()
        for digest, labels in groups.items()
    ]
    words = (
        f"Initial weights differ in {'seed' if len(differing) == 1 else 'seeds'} "
        f"{listed([str(seed) for seed in differing])}. A possible reason is a layer of different "
        "shape: a softmax loss has one more channel than a sigmoid loss, for the background. Part "
        "of a difference may then be due to the initial weights."
    )
    return words + suffix, Table(["seed", "initial weights (SHA-256)", "variants"], rows)


def not_recorded(trainer: str) -> str:
    """Return what is unknown about runs of another program."""
    return (
        f"Not recorded, because the runs were trained by {trainer}: whether variants had equal "
        "initial weights and data order for each seed, which loss was called, and whether its "
        "gradient reached the model."
    )


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return dotted keys with their values as text; a loss inside a loss is one expression."""
    found: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if key in LOSS_ARGUMENTS and "type" in value:
            held = inner if isinstance(inner, list) else [inner]
            found.append((name, ", ".join(map(loss_text, held))))
        elif isinstance(inner, Mapping) and inner:
            found += _leaves(inner, name)
        else:
            found.append((name, inner if isinstance(inner, str) else repr(inner)))
    return found


def _gradient(found: Mapping[str, Any]) -> str:
    """Return "yes" if a gradient was observed; version 0.1 stored comparisons of gradients."""
    compared = any(value is not None for value in (found.get("probe") or {}).values())
    return "yes" if found.get("gradient", compared) else "no"


def _config(meta: dict[str, Any]) -> str:
    digest = (
        f" (hash of everything that the runs share: {meta['hash'][:12]})"
        if meta.get("hash")
        else ""
    )
    return f"Config {meta['config']}{digest}." if meta.get("config") else ""


def _machine(meta: dict[str, Any]) -> str:
    parts = [f"{name} {version}" for name, version in (meta.get("versions") or {}).items()]
    hardware = meta.get("hardware") or {}
    devices = ", ".join(hardware.get("gpus") or []) or hardware.get("cpu") or ""
    if devices and hardware.get("threads"):
        devices += f", threads: {hardware['threads']}"
    facts = [", ".join(parts), hardware.get("system"), devices, hardware.get("memory")]
    return ". ".join(str(fact) for fact in facts if fact) + "." if any(facts) else ""


def _times(meta: dict[str, Any]) -> str:
    if not meta.get("started"):
        return ""
    return f"Started {meta['started']}, written {meta.get('finished', 'before the end')}."


def _metrics(study: Runs, run: dict[str, Any]) -> dict[str, float | None]:
    recorded = run.get("metrics") or {}
    if recorded or run["status"] != "done":
        return recorded
    return study.full(run)


def costs(study: Runs) -> Section | None:
    """Return the time and memory of each box loss."""
    found = study.meta.get("costs") or {}
    rows = [
        [label, f"{found[label]['microseconds']:.0f}", f"{found[label]['bytes'] / 1024:.1f}"]
        for label in study.labels
        if label in found
    ]
    if not rows:
        return None
    text = (
        "Forward and backward pass of 1,000 random boxes on a CPU, float32, and what the forward "
        "pass keeps for the backward pass besides predictions and targets. Measured before the "
        "first training; a training step of a detector takes much longer."
    )
    table = Table(["variant", "µs per 1,000 boxes", "KiB per 1,000 boxes"], rows)
    return Section("Cost of the losses", text, tables=(table,), folded=True)
