"""A whole comparison as one call."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from det_losses.comparison import comparison
from det_losses.errors import InputError
from det_losses.options import call
from det_losses.options.call import (
    checked,
    divide_data,
    given_texts,
    key_values,
    keyword_terms,
)
from det_losses.options.comparison import DEFAULTS, KINDS, ComparisonOptions
from det_losses.registry import MODELS
from det_losses.report.study import Study

PathLike = str | os.PathLike[str]
Loss = str | Mapping[str, Any]


def compare(
    config: PathLike | None = None,
    losses: Loss | Sequence[Loss] = (),
    *,
    component: str = "loss_bbox",
    cross: Sequence[Loss] = (),
    variant: str | Sequence[str] = (),
    baseline: str | None = None,
    metric: str = "AP",
    match_weights: str | None = None,
    weights: float | Sequence[float] = (),
    seeds: int | Sequence[int] | None = None,
    jobs: int | None = None,
    executor: str = "local",
    address: str | None = None,
    cpus_per_run: float = 1.0,
    gpus_per_run: float | None = None,
    budget: str | float | None = None,
    until_decided: bool = False,
    within: float = 1.0,
    screen: bool = False,
    fork_at: float | None = None,
    resamples: int = 1000,
    command: str | None = None,
    detections_file: str = "predictions.json",
    amp: bool = False,
    weights_from: PathLike | None = None,
    fit_anchors: bool = False,
    tensorboard: bool = False,
    dry_run: bool = False,
    data: PathLike | None = None,
    train_ann: PathLike | Sequence[PathLike] | None = None,
    train_images: PathLike | Sequence[PathLike] | None = None,
    val_ann: PathLike | Sequence[PathLike] | None = None,
    val_images: PathLike | Sequence[PathLike] | None = None,
    skip_broken: bool = False,
    classes: str | Sequence[str] | None = None,
    allow_outside: bool = False,
    folds: int | None = None,
    fold_key: str | None = None,
    work_dir: PathLike | None = None,
    cfg_options: Mapping[str, Any] | str | Sequence[str] = (),
    device: str | None = None,
    modules: str | Sequence[str] = (),
) -> Study | None:
    """Train one config with several losses, and test which ones differ.

    The arguments are the options of ``det-losses compare``, with the same names, defaults and
    checks, and this prints the same progress. Each run is a process of its own, started by its
    command line, so this works in a notebook, and in a script without
    ``if __name__ == "__main__"``. The same call resumes an interrupted comparison; a call with more
    losses or seeds trains only the new runs.

    Args:
        config: a config file, or the name of a shipped config; None: with ``command``, the data
            of the arguments.
        losses: losses of ``component``, as text or as a config: ``"GIoULoss"``,
            ``"SmoothL1Loss(beta=0.5)"``, ``dict(type="SmoothL1Loss", beta=0.5)``.
        component: the slot of these losses.
        cross: another slot and losses for it; each of ``losses`` is combined with each of these.
        variant: variants given by config keys, ``"name:key=value,key=value"``.
        baseline: label of the baseline; None: the first variant, or that of ``work_dir``.
        metric: the primary metric.
        match_weights: ``"gradient"`` sets each loss weight so that gradient norms match the
            baseline's.
        weights: each loss is trained with its weight times each of these.
        seeds: a list of seeds, or their number: 3 is 0, 1 and 2. None: 0, 1 and 2; with ``folds``
            one for each; with ``budget`` as many as fit; with ``until_decided`` as many of 0 to 7
            as are needed.
        jobs: number of parallel runs. None: the fastest, measured if the runs take minutes;
            on Ray, as many as the cluster has room for.
        executor: where the runs train: ``"local"`` or ``"ray"``, on a Ray cluster.
        address: address of the Ray cluster, or ``"auto"`` for that of this machine.
        cpus_per_run: cores of a run on Ray.
        gpus_per_run: GPUs of a run on Ray, such as 0.25; None: 1 if the cluster has any.
        budget: the time budget, ``"8h"`` or ``"90min"``; a number is hours.
        until_decided: look at the results at 3, 5 and 8 seeds, and train further seeds only for
            the losses that may still be the best.
        within: a difference that does not matter, in points of the metric.
        screen: train all losses briefly first, and compare the better half of them.
        fork_at: the fraction of the epochs that only the baseline trains.
        resamples: resamples of the validation images, for the intervals.
        command: train each run by this command instead, such as ``"python train.py --loss {loss}
            --seed {seed} --train {train_ann} --val {val_ann} --out {work_dir}"``
            (docs/any_trainer.md). Losses with names that are not registered are passed unchanged.
        detections_file: the COCO result file that the command leaves in ``{work_dir}``.
        amp: automatic mixed precision: float16 on a GPU, bfloat16 on a CPU that computes in it.
        weights_from: start from a trained detector: a checkpoint, or the name of torchvision's
            weights.
        fit_anchors: if many training boxes have no anchor, set the sizes that cover most of them,
            as ``check_data`` shows them; all runs have the same.
        tensorboard: write losses and metrics for TensorBoard too.
        dry_run: print the plan and the time it takes, and train nothing.
        data: training and validation data: a data.yaml of YOLO, or a folder of Pascal VOC.
        train_ann: annotation json of the training data, or several; or data as for ``data``.
        train_images: folder of its images; one for all jsons, or one for each.
        val_ann: the same for the validation data.
        val_images: the same for the validation data.
        skip_broken: leave out images that cannot be read, instead of stopping.
        classes: use only these classes; images without them are kept.
        allow_outside: read image files outside the image folder.
        folds: evaluate on this number of parts of the training data, instead of validation data.
        fold_key: entry of the json's images; images with the same value stay in one part.
        work_dir: the directory of the comparison; None: one in ``work_dirs``, named after config
            and slot.
        cfg_options: changes of the config: ``{"train_cfg.max_epochs": 24}``, or texts as on the
            command line.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None: the first GPU, or else the CPU.
        modules: modules that register your own losses (``--import``).

    Returns:
        The comparison in its directory: ``study.answer``, ``study.next_step``, ``study.table()``,
        ``study.plot()``. A run that failed has the status ``failed`` in ``study.runs``. None after
        a dry run.

    Raises:
        UserError: an argument, the config or the data cannot be used. Nothing was trained.
        KeyboardInterrupt: running trainings were stopped, and the results were written.
    """
    given = dict(locals())
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        given["seeds"] = range(seeds)
    if isinstance(cfg_options, Mapping):
        given["cfg_options"] = key_values("cfg_options", cfg_options)
    with keyword_terms(KINDS):
        texts = given_texts(KINDS, given, DEFAULTS)
        values = {**DEFAULTS, **checked(KINDS, texts)}
        divide_data(values)
        options = ComparisonOptions(**values)
        _check_importable([*options.losses, *options.cross, *options.variant])
        try:
            comparison.run(options, call.command("compare", KINDS, texts))
        except KeyboardInterrupt:
            if options.root.is_dir():
                print(f"interrupted; the same call resumes the comparison in {options.root}")
            raise
        return None if dry_run else Study.load(options.root)


def _check_importable(texts: Sequence[str]) -> None:
    """Check that no loss is defined in the script or notebook that calls.

    Raises:
        InputError: one is; the runs, which are processes of their own, could not import it.
    """
    for name in re.findall(r"\w+", " ".join(texts)):
        found = MODELS.module_dict.get(name)
        if getattr(found, "__module__", "") == "__main__":
            raise InputError(
                f"{name} is defined in this notebook or script, from which the runs, which are "
                "processes of their own, cannot import it. Move it into a module, and name that in "
                "modules"
            )
