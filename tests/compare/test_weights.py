from det_losses.compare.weights import parse_loss


def test_what_the_text_gives_stands_and_is_remembered():
    loss = parse_loss({"type": "FasterRCNN"}, "loss_bbox", "SmoothL1Loss(beta=0.5)")
    assert loss.config == {"type": "SmoothL1Loss", "loss_weight": 1.0, "beta": 0.5}
    assert loss.source == "loss_weight 1: torchvision; beta given"
    assert (loss.label, loss.given) == ("SmoothL1Loss(beta=0.5)", ("beta",))


def test_a_tuple_reads_back_as_it_was_planned():
    text = "CrossEntropyLoss(class_weight=(1, 2))"
    loss = parse_loss({"type": "FasterRCNN"}, "loss_cls", text)
    assert loss.config["class_weight"] == [1, 2]


def test_a_model_with_distributions_has_the_settings_of_gfl():
    model = {"type": "FCOS", "loss_dfl": "DistributionFocalLoss"}
    assert parse_loss(model, "loss_bbox", "GIoULoss").config["loss_weight"] == 2.0
