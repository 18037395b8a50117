"""The record: proof that the losses ran, all runs, the data, and how to repeat it."""

from typing import Any

from det_losses.report.formats import NONE, counted, duration, number, points
from det_losses.report.section import Part, Section, Table, without_empty
from det_losses.report.study import Study

_METRICS = ("AP", "AP50", "AP75", "AP80", "AP90", "APs", "APm", "APl")


def proof(study: Study) -> Part | None:
    """Return per run which loss was built, and whether its gradient reached the head."""
    rows = []
    for label in study.labels:
        for run in study.of(label):
            for slot, found in (run.get("proof") or {}).items():
                probe = found.get("probe") or {}  # of records of earlier versions
                compared = any(value is not None for value in probe.values())
                rows.append(
                    [
                        label,
                        str(run["seed"]),
                        slot,
                        str(found.get("loss", NONE)),
                        str(found.get("calls", NONE)),
                        "yes" if found.get("gradient", compared) else "no",
                    ]
                )
    if not rows:
        return None
    text = (
        "Per run the loss object that was built, how often training called it, and whether a "
        "finite gradient other than zero reached the predictions that it was called with."
    )
    headers = ["variant", "seed", "slot", "built", "calls", "gradient"]
    return Part(
        Section("Proof that the loss ran", text, tables=(Table(headers, rows),)), folded=True
    )


def runs(study: Study) -> Part:
    """Return the table of all runs, by variant and seed, and what ended the failed ones."""
    rows = [
        [
            label,
            str(run["seed"]),
            run["status"],
            *(points(_metrics(study, run).get(name)) for name in _METRICS),
            duration(run.get("train_seconds")),
            number(run.get("seconds_per_iteration")),
            number(run.get("peak_memory_mb"), 4),
            str(run.get("work_dir") or ", ".join(run.get("detections", []))),
        ]
        for label in study.labels
        for run in study.of(label)
    ]
    headers = ["variant", "seed", "status", *_METRICS]
    headers += ["training", "s / iteration", "peak MB", "directory"]
    errors = tuple(
        f"{run['variant']} seed {run['seed']} failed:\n{run.get('error') or 'no error was stored'}"
        for run in study.runs
        if run["status"] == "failed"
    )
    return Part(Section("Runs", "", tables=(without_empty(Table(headers, rows)),)), errors)


def data(study: Study) -> Part:
    """Return how much data was evaluated, and of which classes."""
    truth, boxes = study.truth, study.meta.get("val_boxes")
    trained = (study.meta.get("images") or {}).get("train")
    sizes = (
        f" ({boxes['small']} small, {boxes['medium']} medium, {boxes['large']} large)"
        if boxes
        else ""
    )
    found = ~truth.crowds
    text = (
        f"{f'{trained} images to train on, ' if trained else ''}{len(truth.image_ids)} images "
        f"evaluated, with {int(found.sum())} boxes{sizes} of {counted(len(truth.names), 'class')}; "
        "crowds are not counted."
    )
    rows = [
        [name, str(int((found & (truth.category_index == index)).sum()))]
        for index, name in enumerate(truth.names)
    ]
    table = Table(["class", "boxes"], rows)
    return Part(Section("Data", text, tables=(table,)), folded=len(rows) > 12)


def how_to_repeat(study: Study) -> Part | None:
    """Return command, config, versions and hardware of each comparison that was merged."""
    texts, codes = [], []
    for part in study.origins:
        meta = part.meta
        codes += map(str, meta.get("commands") or filter(None, [meta.get("command")]))
        place = f"{part.folder}: " if len(study.origins) > 1 else ""
        text = " ".join(filter(None, [_config(meta), _machine(meta), _times(meta)]))
        texts.append(f"{place}{text}")
    if not codes and not any(texts):
        return None
    return Part(Section("How to repeat it", "\n\n".join(texts)), tuple(codes))


def _config(meta: dict[str, Any]) -> str:
    digest = f" (hash of all that the runs share: {meta['hash'][:12]})" if meta.get("hash") else ""
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
    return f"Started {meta['started']}, written {meta.get('finished', 'before its end')}."


def _metrics(study: Study, run: dict[str, Any]) -> dict[str, float | None]:
    recorded = run.get("metrics") or {}
    if recorded or run["status"] != "done":
        return recorded
    return study.full(run)
