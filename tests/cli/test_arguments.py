from det_losses.cli.arguments import (
    add_config,
    add_losses,
    add_own_data,
    add_training,
    load_experiment,
    new_parser,
)


def test_options_apply_in_order_and_reach_own_data_and_losses(tiny_config):
    parser = new_parser("train", "", "")
    add_config(parser)
    add_losses(parser)
    add_training(parser)
    add_own_data(parser, train=True)
    own = ["--train-ann", "/x.json", "--train-images", "/images"]
    losses = ["--loss", "loss_bbox=L1Loss", "--loss", "loss_cls=FocalLoss", "loss_bbox=CIoULoss"]
    options = ["train_dataloader.dataset.num_images=7", "model.loss_bbox.loss_weight=3"]
    cfg = load_experiment(
        parser.parse_args([str(tiny_config), "--amp", *own, *losses, "--cfg-options", *options])
    )
    assert cfg.train_dataloader.dataset.ann_file == "/x.json"
    assert cfg.train_dataloader.dataset.num_images == 7
    assert cfg.model.loss_bbox == dict(type="CIoULoss", loss_weight=3)
    assert cfg.model.loss_cls == dict(type="FocalLoss")
    assert cfg.optim_wrapper.type == "AmpOptimWrapper"
