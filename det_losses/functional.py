"""The losses as pure functions, unreduced: ``eiou_loss(pred, target, *, eps)`` and so on.

A loss of a whole box or of a softmax returns ``[N]``, an elementwise one the shape of ``pred``.
Every module that defines a loss gives its functions here; each is explained at its class.
"""

import inspect
import sys

from det_losses.losses import CLASSES as _CLASSES

_FUNCTIONS = {
    name: function
    for module in {cls.__module__ for cls in _CLASSES.values()}
    for name, function in inspect.getmembers(sys.modules[module], inspect.isfunction)
    if name.endswith("_loss") and function.__module__ == module
}
globals().update(_FUNCTIONS)

__all__ = sorted(_FUNCTIONS)
