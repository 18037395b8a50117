"""Losses are built from names and configs; errors name the loss and the argument."""

import pytest
from mmengine.config import Config, ConfigDict

from det_losses import build_loss, list_losses
from det_losses.errors import InputError, InputTypeError, NotRegisteredError
from det_losses.losses import IoULoss
from det_losses.losses.core.build import with_classes
from det_losses.registry import MODELS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_weight": "big"}, "GIoULoss: loss_weight must be a finite number, got 'big'"),
        ({"loss_weight": float("nan")}, "loss_weight must be a finite number, got nan"),
        ({"eps": None}, "eps must be a finite number, got None"),
    ],
)
def test_an_argument_that_is_not_a_finite_number_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        build_loss("GIoULoss", **arguments)


def test_a_config_dict_is_built_and_not_changed():
    config = Config(dict(loss=dict(type="SmoothL1Loss", beta=0.5))).loss
    assert isinstance(config, ConfigDict)
    assert build_loss(config, loss_weight=3.0).params() == dict(
        beta=0.5, reduction="mean", loss_weight=3.0
    )
    assert config == dict(type="SmoothL1Loss", beta=0.5)


def test_a_type_can_be_a_class_and_a_module_is_returned_unchanged():
    loss = build_loss(dict(type=IoULoss, mode="square"))
    assert loss.mode == "square"
    assert build_loss(loss) is loss
    with pytest.raises(TypeError, match="IoULoss is already built and takes no arguments, got eps"):
        build_loss(loss, eps=1.0)


def test_the_error_for_an_unknown_argument_names_the_loss_and_its_arguments():
    with pytest.raises(TypeError) as error:
        build_loss("FocalEIoULoss", gama=1.0)
    assert str(error.value) == (
        "FocalEIoULoss: got an unexpected keyword argument 'gama'. Did you mean 'gamma'? "
        "Its arguments are gamma=0.5, eps=1e-07, reduction='mean', loss_weight=1.0"
    )


def test_an_argument_of_another_librarys_loss_is_refused_with_a_reason(monkeypatch):
    refused = {"mode": "it belongs to another loss"}
    monkeypatch.setattr(MODELS.module_dict["GIoULoss"], "refused", refused)
    with pytest.raises(TypeError, match=r"GIoULoss: .* mode: it belongs to another loss\. Its arg"):
        build_loss("GIoULoss", mode="linear")


def test_an_invalid_config_is_refused():
    with pytest.raises(ValueError, match=r"needs a type, as in dict\(type='GIoULoss'\), got"):
        build_loss(dict(eps=1e-7))
    with pytest.raises(TypeError, match=r"a loss is a name, a dict or a module, got 7"):
        build_loss(7)


def test_list_losses_shows_the_declarations_of_the_classes():
    infos = {info.name: info for info in list_losses()}
    eiou = infos["EIoULoss"]
    assert (eiou.kind, eiou.space, eiou.activation) == ("box", "decoded", None)
    assert "2101.08158" in eiou.paper
    expected = dict(eps=1e-7, reduction="mean", loss_weight=1.0, smooth_point=None)
    assert eiou.defaults == expected
    focal = infos["FocalLoss"]
    assert (focal.kind, focal.space, focal.activation) == ("classification", None, "sigmoid")
    assert [info.kind for info in infos.values()] == sorted(info.kind for info in infos.values())


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        # Out of range, checked by the loss.
        ("FocalEIoULoss(gamma=-1)", InputError, "^FocalEIoULoss: gamma must be"),
        # An error of Python inside a constructor, which names no argument.
        (
            "ClassBalanced(FocalLoss, class_counts=3)",
            InputTypeError,
            r"^ClassBalanced: .*\(in ClassBalanced\(FocalLoss, class_counts=3\)\)$",
        ),
        # An error of a wrapped loss names that loss.
        ("InnerIoU(CIoULoss(eps=-1), ratio=0.7)", InputError, "^CIoULoss: eps must be"),
        ("InnerIoU(CIoULoss(epps=1), ratio=0.7)", InputTypeError, "^CIoULoss: .*'epps'"),
        ("InnerIoU(L1Loss, ratio=0.7)", InputError, "^InnerIoU .*L1Loss"),
        ({"type": "SumLoss", "losses": "L1Loss"}, InputError, "^SumLoss .*two losses or more"),
        ("InnerIoU(CIuoLoss, ratio=0.7)", NotRegisteredError, "CIoULoss"),
    ],
)
def test_an_error_in_a_constructor_names_loss_and_argument(loss, error, message):
    with pytest.raises(error, match=message) as info:
        build_loss(loss)
    if error is InputError or "in Class" in message:
        assert isinstance(info.value.__cause__, (ValueError, TypeError))


def test_num_classes_is_passed_to_every_loss_that_requires_it():
    given = {"type": "SumLoss", "losses": ["EQLv2Loss", "FocalLoss", "EQLv2Loss(num_classes=7)"]}
    config = with_classes(given, 3)
    assert [loss.get("num_classes") for loss in config["losses"]] == [3, None, 7]
    assert given["losses"][0] == "EQLv2Loss"
