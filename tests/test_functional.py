"""Exports are explicit: nothing that a file of the losses defines may be missing from them."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

from det_losses import functional, losses
from det_losses.registry import MODELS

MODULES = [
    import_module(f"{losses.__name__}.{module.name}")
    for module in iter_modules(losses.__path__)
    if not module.ispkg
]


def test_every_registered_loss_of_the_package_is_exported():
    own = {
        name: cls for name, cls in MODELS.module_dict.items() if cls.__module__ in names(MODULES)
    }
    assert set(own) <= set(losses.__all__)
    for name, cls in own.items():
        assert getattr(losses, name) is cls


def test_every_module_of_a_loss_registers_one():
    assert {cls.__module__ for cls in MODELS.module_dict.values()} >= names(MODULES)


def test_every_function_of_a_loss_is_in_functional():
    defined = {
        name: function
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.endswith("_loss") and function.__module__ == module.__name__
    }
    assert set(functional.__all__) == set(defined)
    for name, function in defined.items():
        assert getattr(functional, name) is function


def names(modules):
    return {module.__name__ for module in modules}
