"""Evaluate a checkpoint."""

from pathlib import Path

from det_losses.cli.arguments import (
    add_config,
    add_losses,
    add_own_data,
    new_parser,
)
from det_losses.cli.errors import logged_errors, user_errors
from det_losses.errors import InputError, MissingFileError, printable

EXAMPLE = """  det-losses test quickstart/retinanet_shapes work_dirs/mine/epoch_12.pth
  det-losses test CONFIG CHECKPOINT --val-ann mine.json --val-images images/ --out found.json"""


def main(argv: list[str] | None = None) -> int:
    """Evaluate; the metrics are printed as a table and logged."""
    parser = new_parser("test", "Evaluate a checkpoint on the config's validation set.", EXAMPLE)
    add_config(parser)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--out", metavar="FILE", help="write the detections to a COCO result file")
    parser.add_argument(
        "--backend", choices=("hotcoco", "pycocotools"), help="library that computes AP"
    )
    add_losses(parser)
    add_own_data(parser, train=False)
    args = parser.parse_args(argv)

    from det_losses.data.box_table import parts_of
    from det_losses.data.split_checks import data_notes
    from det_losses.engine import build_runner
    from det_losses.engine.checkpoint import read_meta
    from det_losses.engine.config import use_labels, use_metric_options
    from det_losses.engine.experiment import load_experiment
    from det_losses.engine.run import removed_on_error

    with user_errors():
        cfg = load_experiment(args)
        cfg.work_dir = args.work_dir or f"work_dirs/{Path(args.config).stem}_test"
        use_metric_options(cfg, out=args.out, backend=args.backend)
        checkpoint = Path(args.checkpoint)
        if not checkpoint.is_file():
            raise MissingFileError(f"checkpoint {checkpoint}: no such file")
        trained = (read_meta(checkpoint).get("dataset_meta") or {}).get("classes")
        if trained:
            use_labels(cfg, trained)
        cfg.load_from, cfg.resume = str(checkpoint), False
        with removed_on_error(Path(cfg.work_dir), new=not Path(cfg.work_dir).exists()):
            runner = build_runner(cfg, train=False)
            dataset = runner.test_loop.dataloader.dataset
            counts = [getattr(part, "num_boxes", 1) for part in parts_of(dataset)]
            if args.out is None and not sum(counts):
                raise InputError(
                    "the test data has no box to evaluate with; --out FILE writes the detections"
                )
        for note in data_notes(None, dataset).get("val", []):
            runner.logger.warning(f"data: {printable(note)}")
    with logged_errors(runner, "testing"):
        runner.test()
    return 0
