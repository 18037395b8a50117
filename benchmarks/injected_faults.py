"""Kill, damage and misuse small trainings and comparisons, and report what was lost.

    python benchmarks/injected_faults.py WORK_DIR [--kills 30] [--stops 4]
        [--only kills stops disk damage inputs settings]

Every fault is followed by a repeat of the same command. The result is compared with that of a run
without a fault: the weights, the metrics and the history must be equal. docs/reliability.md has the
table that this script prints. The 150 commands of the defaults take about 25 minutes on one core.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

CONFIG = "quickstart/retinanet_shapes"
EPOCHS = 3
TIMEOUT = 120.0
EXACT, SAME_METRICS, ONE_ERROR = "exact result", "exact metrics", "one error"
LESS_HISTORY = "exact weights and metrics, history incomplete"
RAN, TRACEBACK, HANG, WRONG = "ran", "traceback", "no end", "another result"


@dataclass
class Tally:
    """Outcomes of each kind of fault: kind -> outcome -> count, the unexpected ones, and notes."""

    counts: dict[str, Counter] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str, wanted: tuple[str, ...], what: str, text: str) -> None:
        """Count an outcome; keep the last line of an unexpected one."""
        self.counts.setdefault(kind, Counter())[outcome] += 1
        good = outcome in wanted
        last = text.strip().splitlines()[-1][:200] if text.strip() else ""
        print(f"{'ok  ' if good else 'BAD '} {kind}: {what}: {outcome}  {last}", flush=True)
        if not good:
            self.unexpected.append(f"{kind}: {what}: {outcome}: {last}")

    def table(self) -> str:
        """Return the outcomes as a markdown table."""
        lines = ["| fault | times | outcome |", "|---|---|---|"]
        for kind, counts in self.counts.items():
            outcomes = ", ".join(f"{count} {name}" for name, count in counts.most_common())
            lines.append(f"| {kind} | {sum(counts.values())} | {outcomes} |")
        return "\n".join(lines)


def options(data: Path) -> list[str]:
    """Return config options of a training of a few seconds on generated data in ``data``."""
    parts = [
        f"{split}_dataloader.dataset.{key}={value}"
        for split in ("train", "val")
        for key, value in dict(data_root=data, num_train=48, num_val=24, image_size=64).items()
    ]
    length = [f"train_cfg.max_epochs={EPOCHS}", "train_cfg.val_interval=1"]
    saved = ["default_hooks.checkpoint.interval=1", "train_dataloader.batch_size=8"]
    return ["--cfg-options", *parts, *length, *saved]


def command(tool: str, *arguments: str) -> list[str]:
    """Return the command line of a tool."""
    return [sys.executable, "-m", "det_losses", tool, *arguments]


def call(arguments: list[str], kill: tuple[float, int] | None = None, limit: float = TIMEOUT):
    """Run a command.

    Args:
        arguments: the command line.
        kill: seconds after which a signal is sent to it, and the signal.
        limit: seconds after which it counts as never ending.

    Returns:
        The exit status and the output; status None if it did not end.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        if kill:
            try:
                return process.wait(kill[0]), process.communicate()[0]
            except subprocess.TimeoutExpired:
                if kill[1] == signal.SIGKILL:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.send_signal(kill[1])
        output = process.communicate(timeout=limit)[0]
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]


def outcome_of(status: int | None, output: str) -> str:
    """Name how a command ended."""
    if status is None:
        return HANG
    if "Traceback (most recent call last)" in output:
        return TRACEBACK
    if status == 0:
        return RAN
    return ONE_ERROR if "error: " in output else f"exit status {status}"


# Results


def newest_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint of the last epoch in a run's directory."""
    files = sorted(run.glob("epoch_*.pth"), key=lambda file: int(file.stem.split("_")[1]))
    return files[-1] if files else None


def is_finished(run: Path) -> bool:
    """Whether a run's record says that it is done."""
    file = run / "metrics.json"
    return file.is_file() and json.loads(file.read_text()).get("status") == "done"


def result_of(run: Path) -> dict:
    """Return weights, metrics and history of a finished run."""
    state = torch.load(newest_checkpoint(run), weights_only=True)["state_dict"]
    lines = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    history = [
        (line["kind"], line["step"], line.get("losses") or line.get("metrics")) for line in lines
    ]
    return {"weights": state, "metrics": repr(metrics), "history": repr(history)}


def compared(found: dict, expected: dict) -> str:
    """Name how a result differs from the expected one, bit by bit."""
    weights, others = found["weights"], expected["weights"]
    equal = weights.keys() == others.keys() and all(
        torch.equal(weights[key], others[key]) for key in weights
    )
    if not equal or found["metrics"] != expected["metrics"]:
        return WRONG
    return EXACT if found["history"] == expected["history"] else LESS_HISTORY


def judge(run: Path, status: int | None, output: str, expected: dict) -> str:
    """Name the outcome of a training that should have ended with the expected result."""
    outcome = outcome_of(status, output)
    if outcome != RAN and not is_finished(run):  # killed after its end, it is finished
        return outcome
    try:
        return compared(result_of(run), expected)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        return f"{WRONG} ({type(error).__name__})"


# Kills


def kills(root: Path, count: int, tally: Tally, reference: "Reference") -> None:
    """Kill trainings and comparisons at random times, and repeat their commands to the end."""
    draw = random.Random(0)
    killed, chain = 0, 0
    while killed < count:
        chain += 1
        run = root / f"killed_{chain}"
        train = reference.train(run)
        status, output = None, ""
        for _ in range(20):
            begun = run.is_dir() and any(run.glob("*.pth"))
            chosen = [*train, "--resume"] if begun else train
            after = draw.uniform(0.3, 1.05) * reference.seconds if killed < count else TIMEOUT
            status, output = call(chosen, kill=(after, signal.SIGKILL))
            if status == 0 or is_finished(run):
                break
            killed += status == -signal.SIGKILL
        outcome = judge(run, status, output, reference.result)
        tally.add("training killed (SIGKILL), chains", outcome, (EXACT,), run.name, output)
        shutil.rmtree(run, ignore_errors=True)
    tally.counts["training killed (SIGKILL), kills"] = Counter({"in these chains": killed})
    expected = reference.comparison()
    killed = 0
    while killed < count:
        chain += 1
        folder = root / f"compare_{chain}"
        for _ in range(20):
            number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            after = draw.uniform(0.2, 1.0) * reference.compare_seconds
            records = [file for file in folder.rglob("metrics.json") if is_finished(file.parent)]
            finished = {file: file.stat().st_mtime_ns for file in records}
            limited = (after, number) if killed < count else None
            status, output = call(reference.compare(folder), kill=limited, limit=3 * TIMEOUT)
            lost = [file for file, at in finished.items() if file.stat().st_mtime_ns != at]
            if lost:
                tally.add(
                    "comparison killed, finished runs", "trained again", (), str(lost), output
                )
            if status == 0:
                break
            killed += limited is not None
            time.sleep(1.5)  # a run of a killed comparison keeps the lock until it ends
        exact = scores_of(folder) == expected
        outcome = EXACT if exact else WRONG if status == 0 else outcome_of(status, output)
        tally.add("comparison killed, chains", outcome, (EXACT,), folder.name, output)
        shutil.rmtree(folder, ignore_errors=True)
    tally.counts["comparison killed (KILL, TERM, INT), kills"] = Counter(
        {"in these chains": killed}
    )


def scores_of(folder: Path) -> dict | None:
    """Return the metrics of all runs of a comparison."""
    file = folder / "results.json"
    if not file.is_file():
        return None
    rows = json.loads(file.read_text())["runs"]
    return {(row["variant"], row["seed"]): row["metrics"] for row in rows}


# Stopping


MOMENTS = ("starting", "training", "evaluating", "writing the report")
LONG_STEPS = [f"{part}_dataloader.num_workers=2" for part in ("train", "val")]
LONG_STEPS += ["train_dataloader.batch_size=24", "model.min_size=512", "model.max_size=512"]
LIMIT = 5.0  # seconds within which all processes of a stopped command have ended


def stops(root: Path, count: int, tally: Tally, reference: "Reference") -> None:
    """Send SIGINT and SIGTERM to trainings and comparisons, and time the end of all processes."""
    for moment in MOMENTS:
        for tool in ("training", "training with workers and long steps", "comparison"):
            if tool != "comparison" and moment == "writing the report":
                continue
            slowest = 0.0
            for number in range(count):
                name = (signal.SIGINT, signal.SIGTERM)[number % 2]
                folder = root / "stopped"
                shutil.rmtree(folder, ignore_errors=True)
                chosen = reference.train(folder)
                if tool not in ("training", "comparison"):
                    chosen += LONG_STEPS
                if tool == "comparison":
                    if moment == "writing the report":
                        reference.comparison()
                        shutil.copytree(reference.compared, folder)
                    chosen = reference.compare(folder)
                seconds, status, output = time_to_stop(chosen, moment, folder, name, number)
                kind = f"SIGINT and SIGTERM to a {tool} {moment}"
                outcome = outcome_of(status, output)
                if seconds is not None and outcome != TRACEBACK:
                    slowest = max(slowest, seconds)
                    outcome = "ended within 5 s" if seconds <= LIMIT else f"after {seconds:.1f} s"
                wanted = ("ended within 5 s", "ended before the signal")
                if seconds is None and status == 0:
                    outcome = "ended before the signal"
                tally.add(kind, outcome, wanted, f"{name.name} {seconds or 0:.1f} s", output)
            tally.notes.append(f"slowest end of a {tool} stopped while {moment}: {slowest:.1f} s")


def time_to_stop(
    arguments: list[str], moment: str, folder: Path, number: int, turn: int
) -> tuple[float | None, int | None, str]:
    """Start a command, send it a signal at a moment, and wait until all its processes have ended.

    Returns:
        The seconds from the signal to the end, None if the command ended before it; the exit
        status and the output.
    """
    log = folder.with_suffix(".out")
    token = f"INJECTED_FAULT={time.monotonic_ns()}"
    name, value = token.split("=")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb", name: value}
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    begin, late = time.monotonic(), 0.3 * turn  # not always in the same call
    if moment == "evaluating":  # which is short
        late = 0.0
    if moment == "starting":
        late = 0.4 + 0.7 * turn  # imports, data, model
    while process.poll() is None and time.monotonic() < begin + 3 * TIMEOUT:
        if _is_reached(moment, folder, log) and (late := late - 0.05) <= 0:
            break
        time.sleep(0.05)
    if process.poll() is not None:
        return None, process.returncode, log.read_text(errors="replace")
    process.send_signal(number)
    begin = time.monotonic()
    try:
        status = process.wait(TIMEOUT)
        while _living(token) and time.monotonic() < begin + TIMEOUT:
            time.sleep(0.02)
    except subprocess.TimeoutExpired:
        status = None
    seconds = time.monotonic() - begin
    for left in _living(token):
        os.kill(left, signal.SIGKILL)
    return seconds, status, log.read_text(errors="replace")


def _is_reached(moment: str, folder: Path, log: Path) -> bool:
    """Return whether a command has come to a moment of its work, by what it has written."""
    if moment == "starting":
        return True
    if moment == "writing the report":  # all runs are finished: after the last of their lines
        return log.read_text(errors="replace").count("already finished") >= 4
    lines = [file.read_text() for file in folder.rglob("history.jsonl")]
    if moment == "training":
        return any(lines)
    # an evaluation follows the checkpoint of its epoch
    pending = [file for file in folder.rglob("history.jsonl") if '"val"' not in file.read_text()]
    return any(any(file.parent.glob("epoch_1.pth")) for file in pending)


def _living(token: str) -> list[int]:
    """Return the processes with a variable in their environment, other than zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


# Full disk


def disk(root: Path, tally: Tally, reference: "Reference") -> None:
    """Fill a small file system in the middle of a command, free it, and repeat the command."""
    place = root / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if subprocess.run(mounted, capture_output=True).returncode:
        print("full disk: skipped, no tmpfs can be mounted (run as root, or with unshare -rm)")
        return
    try:
        for megabytes in (0, 0.2, 2, 4, 6, 8):
            _fill_training(place, megabytes, tally, reference)
        for megabytes in (0, 0.2, 2, 8):
            _fill_comparison(place, megabytes, tally, reference)
        _fill_report(place, tally, reference)
        _fill_subset(place, tally, reference)
    finally:
        subprocess.run(["umount", str(place)])


def _fill(place: Path, megabytes: float) -> Path:
    """Fill a file system up to some free megabytes; return the file that takes the room."""
    state = os.statvfs(place)
    ballast = place / "ballast"
    size = state.f_bavail * state.f_frsize - int(megabytes * 2**20)
    with ballast.open("wb") as file:
        for _ in range(max(0, size) // 4096):
            file.write(bytes(4096))
    return ballast


def _emptied(place: Path) -> Path:
    for each in place.iterdir():
        remove(each)
    return place / "work"


def _told(status: int | None, output: str) -> str:
    """Name how a command ended on a full disk; what it tells must be the reason."""
    outcome = outcome_of(status, output)
    if outcome == RAN:
        return "ran"
    if outcome in (TRACEBACK, HANG):
        return outcome
    return ONE_ERROR if "No space left" in output else f"{outcome}, reason not told"


def _fill_training(place: Path, megabytes: float, tally: Tally, reference: "Reference") -> None:
    run, what = _emptied(place), f"{megabytes} MB free"
    ballast = _fill(place, megabytes)
    status, output = call(reference.train(run))
    outcome = _told(status, output)
    tally.add("training on a full disk", outcome, (ONE_ERROR, RAN), what, output)
    ballast.unlink()
    if outcome == RAN:
        return
    resumed = ["--resume"] if any(run.glob("*.pth")) else []
    status, output = call([*reference.train(run), *resumed])
    outcome = judge(run, status, output, reference.result)
    tally.add("the same command when there is room again", outcome, (EXACT,), what, output)


def _fill_comparison(place: Path, megabytes: float, tally: Tally, reference: "Reference") -> None:
    expected = reference.comparison()
    folder, what = _emptied(place), f"{megabytes} MB free"
    shutil.copytree(reference.compared, folder)
    for run in sorted(folder.glob("runs/*/*"))[2:]:
        remove(run)  # two runs are finished
    remove(folder / "results.json")
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("runs/*/*/metrics.json")}
    ballast = _fill(place, megabytes)
    status, output = call(reference.compare(folder), limit=3 * TIMEOUT)
    tally.add("comparison on a full disk", _told(status, output), (ONE_ERROR, RAN), what, output)
    ballast.unlink()
    status, output = call(reference.compare(folder), limit=3 * TIMEOUT)
    lost = [file for file, at in kept.items() if file.stat().st_mtime_ns != at]
    outcome = SAME_METRICS if scores_of(folder) == expected and not lost else WRONG
    outcome = outcome if status == 0 else outcome_of(status, output)
    what = f"{what}, {len(lost)} finished runs lost"
    kind = "the same comparison when there is room again"
    tally.add(kind, outcome, (SAME_METRICS,), what, output)


def _fill_report(place: Path, tally: Tally, reference: "Reference") -> None:
    expected = reference.comparison()
    folder = _emptied(place)
    shutil.copytree(reference.compared, folder)
    before = (folder / "report.html").read_bytes()
    ballast = _fill(place, 0)
    status, output = call(command("report", str(folder)))
    outcome = _told(status, output)
    whole = (folder / "report.html").read_bytes() == before and scores_of(folder) == expected
    outcome = outcome if whole else "the report before is damaged"
    tally.add("report on a full disk", outcome, (ONE_ERROR,), "0 MB free", output)
    ballast.unlink()
    status, output = call(command("report", str(folder)))
    kind = "the same report when there is room again"
    tally.add(kind, outcome_of(status, output), (RAN,), "report", output)


def _fill_subset(place: Path, tally: Tally, reference: "Reference") -> None:
    folder = _emptied(place)
    ballast = _fill(place, 0.01)  # room for a part of the files
    files = ["--train-ann", str(reference.data / "train.json"), "--num-val", "8"]
    chosen = command("make_subset", str(folder), *files)
    status, output = call(chosen)
    tally.add("make_subset on a full disk", _told(status, output), (ONE_ERROR,), "", output)
    ballast.unlink()
    status, output = call(chosen)
    kind = "the same make_subset when there is room again"
    tally.add(kind, outcome_of(status, output), (RAN,), "", output)


# Damage


def truncate(file: Path) -> None:
    """Keep the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    """Remove the contents of a file."""
    file.write_bytes(b"")


def flip(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def remove(file: Path) -> None:
    """Delete a file or a folder."""
    shutil.rmtree(file) if file.is_dir() else file.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (truncate, empty, flip, remove)


def damage(root: Path, tally: Tally, reference: "Reference") -> None:
    """Damage the files of an interrupted training and of a comparison, and repeat the command."""
    started = root / "interrupted"
    call(reference.train(started), kill=(reference.until_second_checkpoint, signal.SIGKILL))
    names = [file.name for file in started.glob("*") if file.is_file() and file.stat().st_size]
    newest = newest_checkpoint(started)
    names = [name for name in names if not name.endswith((".pth", ".log"))] + (
        [newest.name] if newest else []
    )
    for name in sorted(names):
        for change in DAMAGES:
            run = root / "damaged"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(started, run)
            change(run / name)
            status, output = call([*reference.train(run), "--resume"])
            outcome = judge(run, status, output, reference.result)
            what = f"{change.__name__} {name}"
            wanted = (EXACT, ONE_ERROR) + ((LESS_HISTORY,) if name == "history.jsonl" else ())
            tally.add("damaged file of a training", outcome, wanted, what, output)
    moved = root / "moved"
    shutil.rmtree(moved, ignore_errors=True)
    shutil.copytree(started, moved)
    shutil.rmtree(started)
    status, output = call([*reference.train(moved), "--resume"])
    outcome = judge(moved, status, output, reference.result)
    tally.add("training in a folder that was moved", outcome, (EXACT,), "mv", output)
    expected = reference.comparison()
    for what, change in _comparison_damages():
        folder = root / "damaged_comparison"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(reference.compared, folder)
        change(folder)
        status, output = call(reference.compare(folder), limit=3 * TIMEOUT)
        exact = scores_of(folder) == expected
        outcome = outcome_of(status, output)
        outcome = SAME_METRICS if exact and outcome == RAN else outcome
        wanted = (SAME_METRICS, ONE_ERROR)
        tally.add("damaged file of a comparison", outcome, wanted, what, output)


def _comparison_damages() -> Iterator[tuple[str, Callable[[Path], None]]]:
    for name in ("plan.json", "results.json", "ground_truth.json"):
        for change in DAMAGES:
            yield f"{change.__name__} {name}", lambda root, n=name, c=change: c(root / n)
    for name in ("metrics.json", "detections.json", "config.py", "history.jsonl"):
        for change in (truncate, empty, remove):
            yield (
                f"{change.__name__} {name} of a run",
                lambda root, n=name, c=change: c(next(iter(sorted(root.glob(f"runs/*/*/{n}"))))),
            )
    yield "remove a run", lambda root: remove(next(iter(sorted(root.glob("runs/*/*")))))


# Bad inputs and settings


def first_box(change: Callable[[dict], object]) -> Callable[[dict], object]:
    """Return a change of the first annotation."""
    return lambda coco: change(coco["annotations"][0])


def every_box(change: Callable[[dict], object]) -> Callable[[dict], object]:
    """Return a change of every annotation."""
    return lambda coco: [change(ann) for ann in coco["annotations"]]


INPUTS: dict[str, Callable[[dict], object]] = {
    "no annotations": lambda coco: coco.update(annotations=[]),
    "no images": lambda coco: coco.update(images=[]),
    "no categories": lambda coco: coco.update(categories=[]),
    "missing key images": lambda coco: coco.pop("images"),
    "missing bbox": first_box(lambda ann: ann.pop("bbox")),
    "bbox of three numbers": first_box(lambda ann: ann.update(bbox=[1, 2, 3])),
    "bbox of text": first_box(lambda ann: ann.update(bbox=["a", 1, 2, 3])),
    "bbox with NaN": first_box(lambda ann: ann.update(bbox=[float("nan"), 1, 2, 3])),
    "bbox with 10**400": first_box(lambda ann: ann.update(bbox=[10**400, 1, 2, 3])),
    "unknown category": first_box(lambda ann: ann.update(category_id=99)),
    "unknown image": first_box(lambda ann: ann.update(image_id=10**6)),
    "two images with one id": lambda coco: coco["images"][1].update(id=coco["images"][0]["id"]),
    "one file under two ids": lambda coco: coco["images"][1].update(
        file_name=coco["images"][0]["file_name"]
    ),
    "missing image file": lambda coco: coco["images"][0].update(file_name="none.png"),
    "file outside the folder": lambda coco: coco["images"][0].update(file_name="../meta.json"),
    "image id 2**53": lambda coco: _renumber(coco, 2**53),
    "negative image id": lambda coco: _renumber(coco, -3),
    "swapped width and height": lambda coco: coco["images"][0].update(width=10, height=500),
    "boxes in 0..1": every_box(lambda ann: ann.update(bbox=[x / 64 for x in ann["bbox"]])),
    "boxes without area": every_box(lambda ann: ann.update(bbox=[1, 1, 0, 0])),
    "only crowds": every_box(lambda ann: ann.update(iscrowd=1)),
    "surrogate in a class name": lambda coco: coco["categories"][0].update(name="\ud800"),
    "string ids": lambda coco: [image.update(id=str(image["id"])) for image in coco["images"]],
    "annotations without ids": every_box(lambda ann: ann.pop("id", None)),
    "annotations without area": every_box(lambda ann: ann.pop("area", None)),
}

SETTINGS = (
    "optim_wraper.optimizer.lr=0.1",
    "optim_wrapper.optimizer.lr=fast",
    "optim_wrapper.optimizer.lr=0,001",
    "optim_wrapper.optimizer.type=Adamm",
    "optim_wrapper.optimizer.momentumm=0.9",
    "train_cfg.max_epochs=0",
    "train_cfg.max_epochs=ten",
    "train_cfg.val_interval=0",
    "train_dataloader.batch_size=0",
    "train_dataloader.num_workers=-1",
    "train_dataloader.dataset.type=CocoDatset",
    "model.type=RetinaNett",
    "model.loss_bbox=GIoULos",
    "model.loss_bbox.loss_weight=-1",
    "model.backbone.type=None",
    "model.backbone.width=3",
    "model.anchors.size=3",
    "model.score_thresh=low",
    "default_hooks.checkpoint.save_best=mAP",
    "default_hooks.checkpoint.intervall=1",
    "val_evaluator.type=CocoMetrics",
    "val_evaluator.max_dets=many",
    "val_cfg.type=ValLop",
    "param_scheduler.0.type=LinearLr",
)


def _renumber(coco: dict, new: int) -> None:
    old = coco["images"][0]["id"]
    coco["images"][0]["id"] = new
    for ann in coco["annotations"]:
        if ann["image_id"] == old:
            ann["image_id"] = new


def inputs(root: Path, tally: Tally, reference: "Reference") -> None:
    """Train one epoch on damaged data: it works, or one error says what is wrong."""
    for split in ("train", "val"):
        for what, change in INPUTS.items():
            coco = json.loads((reference.data / f"{split}.json").read_text())
            change(coco)
            file = root / "changed.json"
            file.write_text(json.dumps(coco))
            files = {name: reference.data / f"{name}.json" for name in ("train", "val")}
            files[split] = file
            run = root / "input"
            shutil.rmtree(run, ignore_errors=True)
            data = [
                argument
                for name, path in files.items()
                for argument in (f"--{name}-ann", path, f"--{name}-images", reference.images)
            ]
            chosen = ["--work-dir", run, *data, "--cfg-options", "train_cfg.max_epochs=1"]
            status, output = call(command("train", CONFIG, *map(str, chosen)))
            wanted = (RAN, ONE_ERROR)
            tally.add(f"{split} data", outcome_of(status, output), wanted, what, output)


def settings(root: Path, tally: Tally, reference: "Reference") -> None:
    """Start trainings with wrong settings: one error each, before training."""
    for setting in SETTINGS:
        run = root / "setting"
        shutil.rmtree(run, ignore_errors=True)
        status, output = call([*reference.train(run), setting])
        outcome = outcome_of(status, output)
        if outcome == ONE_ERROR and any(run.glob("*.pth")):
            outcome = "error after training"
        tally.add("wrong setting", outcome, (ONE_ERROR,), setting, output)


class Reference:
    """The training and the comparison without faults.

    Attributes:
        data: folder of the generated data.
        images: folder of its images.
        result: weights, metrics and history of the training.
        seconds: its wall-clock time.
        until_second_checkpoint: seconds until the second checkpoint was written.
        compared: directory of the comparison.
        compare_seconds: its wall-clock time.
    """

    def __init__(self, root: Path) -> None:
        self.data, self.compared = root / "data", root / "compared"
        self.images = self.data / "images"
        run = root / "reference"
        call(self.train(root / "warm-up"))  # makes the data
        begin, at = time.monotonic(), time.time()
        status, output = call(self.train(run))
        if status != 0:
            raise SystemExit(f"the training without a fault failed:\n{output}")
        self.seconds = time.monotonic() - begin
        second = (run / "history.jsonl").stat().st_mtime
        stamps = sorted(file.stat().st_mtime for file in run.glob("epoch_*.pth"))
        self.until_second_checkpoint = (stamps[-1] if stamps else second) - at - 0.4
        self.result = result_of(run)
        self.compare_seconds = 0.0

    def train(self, run: Path) -> list[str]:
        """Return the command of the training in a directory."""
        return command("train", CONFIG, "--work-dir", str(run), *options(self.data))

    def compare(self, folder: Path) -> list[str]:
        """Return the command of the comparison in a directory."""
        losses = ["--losses", "SmoothL1Loss", "GIoULoss", "--seeds", "0", "1"]
        arguments = ["--resamples", "100", "--work-dir", str(folder), *losses]
        return command("compare", CONFIG, *arguments, *options(self.data))

    def comparison(self) -> dict:
        """Return the metrics of the comparison's runs; it is trained at the first call."""
        if not self.compare_seconds:
            begin = time.monotonic()
            status, output = call(self.compare(self.compared), limit=5 * TIMEOUT)
            if status != 0:
                raise SystemExit(f"the comparison without a fault failed:\n{output}")
            self.compare_seconds = time.monotonic() - begin
        return scores_of(self.compared)


def main() -> int:
    """Run all faults and print the table; return 1 if an outcome was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=4, help="signals to each tool and moment")
    parts = ("kills", "stops", "disk", "damage", "inputs", "settings")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    args = parser.parse_args()
    root = args.work_dir.absolute()
    if root.exists():
        parser.error(f"{root} exists; give a new directory")
    root.mkdir(parents=True)
    tally, reference = Tally(), Reference(root)
    if "kills" in args.only:
        kills(root, args.kills, tally, reference)
    if "stops" in args.only:
        stops(root, args.stops, tally, reference)
    if "disk" in args.only:
        disk(root, tally, reference)
    if "damage" in args.only:
        damage(root, tally, reference)
    if "inputs" in args.only:
        inputs(root, tally, reference)
    if "settings" in args.only:
        settings(root, tally, reference)
    print("\n".join(["", tally.table(), "", *tally.notes]))
    print("\n".join(["", "unexpected:", *tally.unexpected] if tally.unexpected else []))
    return bool(tally.unexpected)


if __name__ == "__main__":
    sys.exit(main())
