"""The registries under the scope ``det_losses``: one child of each of mmengine's registries.

Every kind is needed: mmengine logs a warning for each object that it builds if the default scope
has no registry of that kind.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry as MMEngineRegistry

from det_losses.errors import InputError, NotRegisteredError, did_you_mean

SCOPE = "det_losses"


class Registry(MMEngineRegistry):
    """mmengine's registry, which here accepts a class again when its module is reloaded."""

    def _register_module(self, module: Callable, module_name=None, force: bool = False) -> None:
        names = [module_name] if isinstance(module_name, str) else module_name
        for name in names or [module.__name__]:
            known = self._module_dict.get(name)
            same = known is not None and (known.__module__, known.__qualname__) == (
                module.__module__,
                module.__qualname__,
            )
            super()._register_module(module, module_name=name, force=force or same)


def _child(kind: str, *locations: str) -> Registry:
    parent = getattr(mmengine_registry, kind)
    return Registry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


MODELS = _child("MODELS", "det_losses.losses", "det_losses.models")
DATASETS = _child(
    "DATASETS", "det_losses.data.coco", "det_losses.data.shapes", "det_losses.data.wrappers"
)
TRANSFORMS = _child("TRANSFORMS", "det_losses.data.transforms")
FUNCTIONS = _child("FUNCTIONS", "det_losses.data.batch")
METRICS = _child("METRICS", "det_losses.evaluation.coco_metric")
HOOKS = _child("HOOKS", "det_losses.engine")
VISUALIZERS = _child("VISUALIZERS")
VISBACKENDS = _child("VISBACKENDS")
RUNNERS = _child("RUNNERS")
RUNNER_CONSTRUCTORS = _child("RUNNER_CONSTRUCTORS")
LOOPS = _child("LOOPS")
LOG_PROCESSORS = _child("LOG_PROCESSORS")
DATA_SAMPLERS = _child("DATA_SAMPLERS", "det_losses.data.rank_sampler")
MODEL_WRAPPERS = _child("MODEL_WRAPPERS")
WEIGHT_INITIALIZERS = _child("WEIGHT_INITIALIZERS")
OPTIMIZERS = _child("OPTIMIZERS")
OPTIM_WRAPPERS = _child("OPTIM_WRAPPERS", "det_losses.engine.bfloat16")
OPTIM_WRAPPER_CONSTRUCTORS = _child("OPTIM_WRAPPER_CONSTRUCTORS")
PARAM_SCHEDULERS = _child("PARAM_SCHEDULERS")
EVALUATOR = _child("EVALUATOR")
TASK_UTILS = _child("TASK_UTILS")
INFERENCERS = _child("INFERENCERS")
STRATEGIES = _child("STRATEGIES")


def find(registry: MMEngineRegistry, name: str) -> Any:
    """Return the class registered as ``name``, or raise an error that suggests the nearest names.

    A name without a prefix is looked up in this project's scope, whatever mmengine's default scope
    is. An explicit prefix (``"mmdet.GIoULoss"``) takes precedence.
    """
    scope, bare = registry.split_scope_key(name)
    if scope in (None, registry.scope) and bare in registry.module_dict:
        # Registry.get would import all locations first, so a loss would import the detectors.
        return registry.module_dict[bare]
    found = registry.get(name)
    if found is None:
        hint = did_you_mean(name.split(".")[-1], _names(registry), "Is it imported?")
        raise NotRegisteredError(
            f"{name!r} is not in the {registry.scope} {registry.name} registry. {hint}"
        )
    return found


def _names(registry: MMEngineRegistry) -> list[str]:
    """Return the names in a registry and its parents, its own first."""
    inherited = _names(registry.parent) if registry.parent else []
    return list(dict.fromkeys([*registry.module_dict, *inherited]))


def import_modules(names: Sequence[str], option: str = "--import") -> list[ModuleType]:
    """Import modules that register own classes.

    The current directory is searched too, which a console script does not do by itself. It is
    searched after the standard library, because a file of the user may have the name of a module
    of it.

    Args:
        names: the modules.
        option: the option that has the names, for messages.

    Raises:
        InputError: a module cannot be imported, or has the name of one of the standard library.
    """
    if "" not in sys.path:
        installed = (index for index, path in enumerate(sys.path) if "-packages" in str(path))
        sys.path.insert(next(installed, len(sys.path)), "")
    modules = []
    for name in names:
        if name.partition(".")[0] in sys.stdlib_module_names:
            raise InputError(f"{option} {name}: Python has a module of this name; rename yours")
        try:
            modules.append(importlib.import_module(name.removesuffix(".py")))
        except Exception as error:
            raise InputError(
                f"{option} {name}: cannot be imported: {type(error).__name__}: {error}"
            ) from error
    return modules
