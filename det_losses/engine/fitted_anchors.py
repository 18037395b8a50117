"""Anchors fitted to the training data (``--fit-anchors``): entries of the config, made once."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from det_losses.config_diff import plain
from det_losses.engine.build import build_datasets
from det_losses.engine.checks import config_errors
from det_losses.engine.config import select_fold
from det_losses.engine.coverage import FEW, Coverage, advise, measure, untrained
from det_losses.engine.settings import check_settings
from det_losses.errors import InputError, one_line, printable

_KEYS = ("anchors", "anchor_sizes")  # of the model; FCOS has the second


def use_fitted_anchors(cfg: Config, stored: Config | Mapping[str, Any] | None = None) -> str:
    """Set the anchors that are advised for the training data, if too few boxes have one.

    The training data are those of all folds together. The number of anchors per position stays, so
    weights of the heads can still be loaded.

    Args:
        cfg: the config, changed in place.
        stored: the config of a run or comparison that is continued. If its anchors are not those of
            ``cfg``, they were fitted when it was started, and are kept.

    Returns:
        A line that says what was done.

    Raises:
        UserError: data or detector cannot be built, or are of another package.
    """
    if stored is not None:
        kept = _anchors(stored)
        if kept and kept != _anchors(cfg):
            cfg.model.update(kept)
            return "anchors: those with which this was started"
    options, text = fitted(_coverage(cfg))
    cfg.merge_from_dict(options)
    return f"anchors: {printable(text)}"


def fitted(coverage: Coverage) -> tuple[dict[str, Any], str]:
    """Return the entries of the config that ``--fit-anchors`` sets, and a sentence on them."""
    count, share = len(coverage.covered), coverage.covered.mean()
    now = f"{100 * share:.0f}% of {count:,} training boxes have {coverage.what}"
    if coverage.is_enough:
        return {}, f"not changed: {now}"
    if count < FEW:
        return {}, f"not changed: {now}, too few to fit sizes to"
    advices = advise(coverage, (1.0,))
    if not advices:
        return {}, f"not changed: {now}, and other sizes do not give clearly more boxes one"
    [advice] = advices
    name, after = advice.worst
    before = next(share for own, _, share in coverage.by_class() if own == name)
    return advice.options, (
        f"fitted to the training data: {100 * advice.share:.0f}% of {count:,} boxes have "
        f"{coverage.what}, before {100 * share:.0f}% ({name}: {100 * after:.0f}%, before "
        f"{100 * before:.0f}%); {' '.join(advice.texts)}"
    )


def _anchors(cfg: Config | Mapping[str, Any]) -> dict[str, Any]:
    model = plain(cfg)["model"]
    return {key: model[key] for key in _KEYS if model.get(key)}


def _coverage(cfg: Config) -> Coverage:
    """Return which boxes of the training data have an anchor.

    Raises:
        UserError: data or detector cannot be built, or are of another package.
    """
    check_settings(cfg)
    own = copy.deepcopy(cfg)
    select_fold(own, None)
    scope = {"default_scope": own.get("default_scope")}
    one = Config({**scope, "train_dataloader": own.train_dataloader})
    with config_errors(own):
        dataset = build_datasets(one)["train_dataloader"]
        detector = untrained(own.model, dataset)
    try:
        coverage = measure(detector, dataset)
    except Exception as error:  # of a backbone or a transform of the user, on a blank image
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"--fit-anchors: boxes without anchors cannot be counted: {reason}") from (
            error
        )
    if coverage is None:
        raise InputError(
            f"--fit-anchors: it is not known which boxes of a {type(dataset).__name__} have an "
            f"anchor of a {own.model.type}; set its anchors with --cfg-options"
        )
    return coverage
