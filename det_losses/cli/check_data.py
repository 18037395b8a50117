"""Look at data before training: what looks wrong, boxes without anchors, figures, pictures."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from det_losses.cli.arguments import add_own_data, new_parser, whole_number
from det_losses.cli.errors import user_errors
from det_losses.errors import InputError, counted, printable

if TYPE_CHECKING:
    from det_losses.engine.coverage import Coverage

EXAMPLE = """  det-losses check_data small/retinanet_lite0 --train-ann train.json \\
      --train-images images --val-ann val.json --val-images images
  det-losses check_data --train-ann train.json --train-images images
  det-losses browse CONFIG --browse 60 --cfg-options model.min_size=320 model.max_size=320

With CONFIG, it also finds the boxes for which the detector has no anchor, and the pictures are
those that the detector is trained on: after the transforms and the resize. Without CONFIG, only
the files are checked. Nothing is trained. The page DIR/data.html opens offline."""


def main(argv: list[str] | None = None) -> int:
    """Print what looks wrong, and write a page; exit status 0 also if something looks wrong."""
    args = _parser().parse_args(argv)
    with user_errors():
        _check(args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "check_data",
        "Look at the data before training: suspicions with examples, boxes without an anchor, "
        "figures, and a contact sheet to browse images with their boxes after augmentation.",
        EXAMPLE,
    )
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help="a config file, or the name of a shipped config (list_configs)",
    )
    parser.add_argument(
        "--out",
        default="work_dirs/check_data",
        metavar="DIR",
        help="output folder (default: work_dirs/check_data)",
    )
    parser.add_argument(
        "--browse",
        type=whole_number(0),
        default=24,
        metavar="N",
        help="number of training images on the contact sheet (default: 24)",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        help="seed of the choice of these images and of their augmentation (default: 0)",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change entries of the config",
    )
    add_own_data(parser, train=True)
    return parser


def _check(args: argparse.Namespace) -> None:
    from det_losses.data.box_table import table_of
    from det_losses.data.split_checks import data_notes
    from det_losses.engine.build import build_datasets
    from det_losses.engine.coverage import coverage_notes, measure
    from det_losses.report.data_page import write_data_page

    cfg = _config(args)
    cfg.pop("test_dataloader", None)  # may have only what differs from val_dataloader
    datasets = build_datasets(cfg)
    train, val = datasets["train_dataloader"], datasets.get("val_dataloader")
    coverage = measure(cfg.model, train) if cfg.get("model") else None
    notes = data_notes(train, val)
    if remarks := coverage_notes(coverage):
        notes["anchors"] = remarks
    tables = {"training": table_of(train), "validation": val and table_of(val)}
    tables = {name: table for name, table in tables.items() if table is not None}
    if "training" not in tables:
        raise InputError(f"a {type(train).__name__} has no box_table(), so it cannot be checked")
    for name, table in tables.items():
        images, boxes = counted(len(table.files), "image"), counted(len(table.boxes), "box")
        print(f"{name}: {images}, {boxes}")
    for note in itertools.chain(*notes.values()):
        print(f"data: {printable(note)}")
    if not notes:
        print("nothing looks wrong")
    if coverage is not None:
        print(f"\n{_coverage_table(coverage)}")
    file = write_data_page(
        Path(args.out),
        f"Data of {args.config or 'the annotation files'}",
        tables,
        notes,
        None if coverage is None else _numbers(coverage),
        _images(train, coverage, args.browse, args.seed),
    )
    print(f"\nfigures and pictures: {file.absolute().as_uri()}")


def _config(args: argparse.Namespace) -> Any:
    """Return the config of CONFIG, or one with nothing but the user's data."""
    from mmengine.config import Config

    from det_losses.engine.experiment import load_experiment
    from det_losses.paths import configs_root

    own = args.train_ann is not None
    if args.config is None and not own:
        raise InputError("give CONFIG, or --train-ann and --train-images")
    plain = configs_root() / "_base_" / "datasets" / "coco.py"
    cfg = load_experiment(args, None if args.config else Config.fromfile(plain))
    cfg.pop("test_dataloader", None)
    if own and args.val_ann is None:
        cfg.pop("val_dataloader", None)
    return cfg


def _numbers(coverage: Coverage) -> Any:
    from det_losses.report.data_page import CoverageNumbers

    return CoverageNumbers(coverage.what, coverage.by_class(), coverage.by_size())


def _coverage_table(coverage: Coverage) -> str:
    from det_losses.report.markdown import table

    worst = sorted(coverage.by_class(), key=lambda each: each[2])[:10]
    rows = [("all", len(coverage.covered), float(coverage.covered.mean()))]
    rows += [*coverage.by_size(), *worst]
    return table(
        ["training boxes", "number", f"% with {coverage.what}"],
        [[name, str(count), f"{100 * share:.0f}"] for name, count, share in rows],
    )


def _images(dataset: Any, coverage: Coverage | None, count: int, seed: int) -> list[Any]:
    """Return images of the dataset as the detector gets them, in random order."""
    import numpy as np

    from det_losses.generators import generators_kept
    from det_losses.report.data_page import trained_image

    order = np.random.default_rng(seed).permutation(len(dataset))[:count]
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(0, seed)
    found = []
    with generators_kept(seed):
        for index in order.tolist():
            image, target = dataset[index]
            boxes, size, covered = target["boxes"].numpy(), image.shape[:0:-1], None
            if coverage is not None:
                boxes, size, covered = coverage.of_sample(boxes, size)
            names = [dataset.metainfo["classes"][label] for label in target["labels"].tolist()]
            found.append(trained_image(image, size, boxes, names, covered, target["image_id"]))
    return found
