import pytest

from det_losses.cli.arguments import (
    SEED,
    add_config,
    add_losses,
    add_own_data,
    add_training,
    load_experiment,
    new_parser,
    whole_number,
)


def test_options_apply_in_order_and_reach_own_data_and_losses(tiny_config):
    parser = new_parser("train", "", "")
    add_config(parser)
    add_losses(parser)
    add_training(parser)
    add_own_data(parser, train=True)
    own = ["--train-ann", "/x.json", "--train-images", "/images", "--skip-broken"]
    losses = ["--loss", "loss_bbox=L1Loss", "--loss", "loss_cls=FocalLoss", "loss_bbox=CIoULoss"]
    options = ["train_dataloader.dataset.num_images=7", "model.loss_bbox.loss_weight=3"]
    cfg = load_experiment(
        parser.parse_args([str(tiny_config), "--amp", *own, *losses, "--cfg-options", *options])
    )
    assert cfg.train_dataloader.dataset.ann_file == "/x.json"
    assert cfg.train_dataloader.dataset.num_images == 7
    assert cfg.train_dataloader.dataset.skip_broken and cfg.val_dataloader.dataset.skip_broken
    assert cfg.model.loss_bbox == dict(type="CIoULoss", loss_weight=3)
    assert cfg.model.loss_cls == dict(type="FocalLoss")
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--los", "x"], "unrecognized arguments: --los x. Did you mean '--loss'?"),
        (["--loss"], "argument --loss: expected at least one argument"),
        (["--jobs", "two"], "argument --jobs: must be a whole number, got 'two'"),
        (["--jobs", "0"], "argument --jobs: must be at least 1, got 0"),
        (["--seed", "-1"], "argument --seed: must be from 0 to 4294967295, got -1"),
    ],
)
def test_only_a_misspelt_option_gets_a_suggestion(capsys, options, error):
    parser = new_parser("train", "", "")
    add_losses(parser)
    parser.add_argument("--jobs", type=whole_number(1))
    parser.add_argument("--seed", type=SEED)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(options)
    assert capsys.readouterr().err.splitlines()[0] == f"error: {error}"
