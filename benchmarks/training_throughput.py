"""Images per second of our Runner and of a hand-written loop, and the CPU time of a start.

    python benchmarks/training_throughput.py quickstart/retinanet_shapes [--options KEY=VALUE ...]
    python benchmarks/training_throughput.py quickstart/retinanet_shapes --startup
    python benchmarks/training_throughput.py quickstart/retinanet_shapes --evaluate CHECKPOINT

Three trainings with the same data and hyper-parameters alternate in one process, a few steps each:

- runner: `Runner.train` with all hooks of the config;
- loop: our detector in a loop of ten lines (forward, backward, clipping, optimizer, schedule);
- torchvision: torchvision's own detector, with its own losses and initial weights equal to ours,
  in the same loop.

Each block is measured in CPU seconds of the process. The ratios are medians over the blocks.
`--startup` prints the CPU seconds of each stage of a start instead. `--evaluate` compares the
predictions of our detector with those of torchvision's, both with the weights of the checkpoint.
"""

import argparse
import contextlib
import copy
import importlib
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any


def cpu_seconds() -> float:
    """Return user and system time of this process and of its finished children."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in parts)


class Stages:
    """CPU seconds of the stages of a start."""

    def __init__(self) -> None:
        own = resource.getrusage(resource.RUSAGE_SELF)
        self.seconds = {"interpreter": own.ru_utime + own.ru_stime}
        self._last = cpu_seconds()

    def end(self, name: str) -> None:
        """Count the time since the last stage under this name."""
        now = cpu_seconds()
        self.seconds[name], self._last = now - self._last, now


def measure_startup(config: str, options: list[str]) -> None:
    """Start a training like `det-losses train`, up to its first step."""
    from det_losses.cli import fast_imports

    stages = Stages()
    with fast_imports():
        importlib.import_module("torch")
        importlib.import_module("torchvision")
        stages.end("import torch, torchvision")
        from det_losses.engine import build_runner
        from det_losses.engine.config import apply_options, read_config
        from det_losses.engine.outline import training_plan
        from det_losses.engine.run import build_parts

    stages.end("import det_losses")
    cfg = read_config(config)
    apply_options(cfg, options)
    stages.end("config")
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.log_level = folder, "WARNING"
        runner = build_runner(cfg)
        stages.end("data, model, Runner")
        build_parts(runner)
        stages.end("trial of the parts")
        training_plan(cfg, runner, built=0.0)
        stages.end("plan with timed steps")
        batch = next(iter(runner.train_dataloader))
        stages.end("first batch")
        runner.model.train()
        runner.model.train_step(batch, runner.optim_wrapper)
        stages.end("first step")
    for name, seconds in stages.seconds.items():
        print(f"| {name} | {seconds:.2f} |")
    print(f"| total | {sum(stages.seconds.values()):.2f} |")


def torchvision_detector(model: Any) -> Any:
    """Return torchvision's own detector with the weights of ours, where the layers are the same."""
    from torchvision.models import detection as tv
    from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn, transform
    from torchvision.models.detection.fcos import FCOSHead, FCOSRegressionHead
    from torchvision.models.detection.retinanet import RetinaNetHead
    from torchvision.ops import MultiScaleRoIAlign

    detector = copy.deepcopy(model.detector)
    ours = detector.transform
    detector.transform = transform.GeneralizedRCNNTransform(
        ours.min_size, ours.max_size, ours.image_mean, ours.image_std, ours.size_divisible
    )
    if isinstance(detector, tv.FasterRCNN):
        plain = {detector.rpn: rpn.RegionProposalNetwork, detector.roi_heads: roi_heads.RoIHeads}
        for head in plain:
            head.box_coder = _utils.BoxCoder(head.box_coder.weights)
        detector.rpn.anchor_generator.__class__ = anchor_utils.AnchorGenerator
        plain[detector.roi_heads.box_roi_pool] = MultiScaleRoIAlign
    else:
        head = detector.head
        plain = {detector.anchor_generator: anchor_utils.AnchorGenerator}
        if isinstance(detector, tv.RetinaNet):
            plain |= {detector: tv.RetinaNet, head: RetinaNetHead}
        else:
            head.box_coder = _utils.BoxLinearCoder(normalize_by_size=True)
            plain |= {head: FCOSHead, head.regression_head: FCOSRegressionHead}
            plain[detector] = tv.FCOS
    for module, cls in plain.items():
        module.__class__ = cls
    return detector


def training_loop(detector: Any, loader: Any, cfg: Any, shift: int) -> Iterator[None]:
    """Train a detector without any framework; each ``next`` is one step."""
    import torch

    settings = dict(cfg.optim_wrapper.optimizer)
    optimizer = getattr(torch.optim, settings.pop("type"))(
        [each for each in detector.parameters() if each.requires_grad], **settings
    )
    clip = cfg.optim_wrapper.get("clip_grad")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10_000)
    detector.train()
    while True:
        for batch in loader:
            images = [image / 255 for image in batch["images"]]
            targets = [
                {"boxes": each["boxes"], "labels": each["labels"] + shift}
                for each in batch["targets"]
            ]
            loss = sum(detector(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(detector.parameters(), **clip)
            optimizer.step()
            schedule.step()
            yield


def interleave(peers: dict[str, Callable[[], Any]], steps: int, blocks: int) -> Any:
    """Return a hook that trains the peers after each block of the Runner's steps."""
    from mmengine.hooks import Hook

    class Interleave(Hook):
        priority = "LOWEST"  # after all others

        def __init__(self) -> None:
            self.seconds: dict[str, list[float]] = {"runner": [], **{name: [] for name in peers}}
            self._begin = 0.0

        def before_train_epoch(self, runner: Any) -> None:
            self._begin = time.process_time()

        def after_train_iter(self, runner: Any, batch_idx: int, **kwargs: Any) -> None:
            if (batch_idx + 1) % steps:
                return
            self.seconds["runner"].append(time.process_time() - self._begin)
            for name, step in peers.items():
                begin = time.process_time()
                for _ in range(steps):
                    step()
                self.seconds[name].append(time.process_time() - begin)
            if len(self.seconds["runner"]) == blocks:
                raise KeyboardInterrupt  # the Runner has no other way to end within an epoch
            self._begin = time.process_time()

    return Interleave()


def measure_throughput(config: str, options: list[str], steps: int, blocks: int) -> None:
    """Train with the Runner and with the loops in turn, and print images per second."""
    import torch

    from det_losses.engine import build_runner
    from det_losses.engine.config import apply_options, read_config
    from det_losses.engine.run import build_parts

    cfg = read_config(config)
    apply_options(cfg, options)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.log_level = folder, "WARNING"
        for key in ("val_dataloader", "val_evaluator", "val_cfg"):
            cfg.pop(key, None)
        cfg.train_cfg = dict(by_epoch=True, max_epochs=1)
        cfg.train_dataloader.dataset = dict(
            type="RepeatDataset", times=1000, dataset=cfg.train_dataloader.dataset
        )
        runner = build_runner(cfg)
        build_parts(runner)
        loader = runner.train_dataloader
        for index in range(min(loader.dataset.num_images, 2000)):
            loader.dataset[index]  # fill the cache of decoded images
        first = 1 if runner.cfg.model.type == "FasterRCNN" else 0
        detectors = {
            "loop": (copy.deepcopy(runner.model.detector), first),
            "torchvision": (torchvision_detector(runner.model), first),
        }
        peers = {
            name: training_loop(detector, loader, runner.cfg, shift).__next__
            for name, (detector, shift) in detectors.items()
        }
        hook = interleave(peers, steps, blocks + 1)
        runner.register_hook(hook)
        with contextlib.suppress(KeyboardInterrupt):
            runner.train()
        images = steps * loader.batch_size
    print(
        f"{config} {' '.join(options)}: {torch.get_num_threads()} threads, {steps} steps x {blocks}"
    )
    seconds = {name: each[1:] for name, each in hook.seconds.items()}  # the first is a warm-up
    print(
        "| training | images/s of CPU time | time relative to torchvision's |\n| --- | --- | --- |"
    )
    for name, each in seconds.items():
        ratios = [a / b for a, b in zip(each, seconds["torchvision"], strict=True)]
        rate = images / statistics.median(each)
        print(f"| {name} | {rate:.1f} | {statistics.median(ratios):.3f} |")
    overhead = [a / b for a, b in zip(seconds["runner"], seconds["loop"], strict=True)]
    print(f"runner / loop: {statistics.median(overhead):.3f}")


def measure_evaluation(config: str, options: list[str], checkpoint: str, blocks: int) -> None:
    """Predict the first 100 images with both detectors in turn, and print images per second."""
    import torch
    from mmengine.runner.checkpoint import load_checkpoint

    from det_losses.engine import build_runner
    from det_losses.engine.config import apply_options, read_config
    from det_losses.engine.run import build_parts

    cfg = read_config(config)
    apply_options(cfg, options)
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.log_level = folder, "WARNING"
        runner = build_runner(cfg)
        build_parts(runner)
        load_checkpoint(runner.model, checkpoint)
        loader = runner.val_dataloader
        batches = list(itertools.islice(loader, -(-100 // loader.batch_size)))
    model, theirs = runner.model.eval(), torchvision_detector(runner.model).eval()
    peers = {
        "ours": model.val_step,
        "torchvision": lambda batch: theirs([image / 255 for image in batch["images"]]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    with torch.no_grad():
        for _ in range(blocks + 1):
            for name, predict in peers.items():
                begin = time.process_time()
                results = [result for batch in batches for result in predict(batch)]
                seconds[name].append(time.process_time() - begin)
    images, found = len(results), sum(len(result["scores"]) for result in results)
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["torchvision"], strict=True)]
    print(f"{config}: {images} images, {found / images:.1f} detections per image")
    for name, each in seconds.items():
        print(f"| {name} | {images / statistics.median(each[1:]):.1f} images/s of CPU time |")
    print(f"ours / torchvision: {statistics.median(ratios[1:]):.3f}")


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--options", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--startup", action="store_true")
    parser.add_argument("--evaluate", metavar="CHECKPOINT")
    parser.add_argument("--steps", type=int, default=10, help="steps of a block")
    parser.add_argument("--blocks", type=int, default=8)
    args = parser.parse_args()
    if args.startup:
        measure_startup(args.config, args.options)
    elif args.evaluate:
        measure_evaluation(args.config, args.options, args.evaluate, args.blocks)
    else:
        measure_throughput(args.config, args.options, args.steps, args.blocks)


if __name__ == "__main__":
    main()
