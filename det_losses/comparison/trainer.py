"""What trains a run: this package's engine, or any program that leaves a COCO result file.

A config names its trainer as ``trainer = dict(type="my_package.module:MyTrainer", ...)``; the other
entries are the arguments of the class. Without this entry, it is :class:`EngineTrainer`.
"""

import itertools
import re
import shlex
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmengine.config import Config

from det_losses.comparison.process import train_command
from det_losses.engine.run import CONFIG_FILE
from det_losses.errors import InputError, located, one_line
from det_losses.losses.core.text import loss_text, parse_loss
from det_losses.registry import import_modules

DETECTIONS_FILE = "detections.json"


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a trainer is told about a run.

    Attributes:
        label: name of the variant in tables.
        losses: slot -> its loss as text, such as ``{"loss_bbox": "SmoothL1Loss(beta=0.5)"}``. A
            loss weight is part of the text, as ``loss_weight``. Empty for a variant without losses.
        seed: random seed of the run.
        work_dir: its directory, which exists; an absolute path.
        train_ann: COCO json of the training images; with folds, that of this run.
        train_images: the folder of these images.
        val_ann: COCO json of the images that are evaluated. The result file has its ids.
        val_images: the folder of these images.
        config: the config of the comparison with the changes of this run. It is in the directory
            too, as ``config.py``.
        resume: whether an earlier attempt was interrupted or failed, and its files may be here.
        start: the checkpoint from which the run starts, with ``--fork-at``; None: from the config.
    """

    label: str
    losses: Mapping[str, str]
    seed: int
    work_dir: Path
    train_ann: Path | None
    train_images: Path | None
    val_ann: Path | None
    val_images: Path | None
    config: Config
    resume: bool = False
    start: Path | None = None

    @property
    def loss(self) -> str | None:
        """The loss of the first slot as text; None for a variant without losses."""
        return next(iter(self.losses.values()), None)

    @property
    def data_options(self) -> dict[str, Path | None]:
        """The files of the run as options of a command line, such as ``--train-ann``."""
        names = ("train_ann", "train_images", "val_ann", "val_images", "work_dir")
        return {f"--{name.replace('_', '-')}": getattr(self, name) for name in names}

    @property
    def weight(self) -> float | None:
        """The ``loss_weight`` of this loss; None if it has none."""
        return _split_weight(self.loss or "")[1]


class Trainer:
    """Trains runs of a comparison, each by a command. Subclass it in a package of your own.

    The command succeeds if its exit status is 0 and it leaves a COCO result file: the detections on
    the images of ``run.val_ann``. Evaluation, statistics and report are those of all comparisons.

    Attributes:
        slots: names of the losses that it can set (``--component``); None: any name.
        description: what the report says the runs were trained by.
    """

    slots: ClassVar[Sequence[str] | None] = None

    @property
    def description(self) -> str:
        """The name of the class."""
        return type(self).__name__

    def check(self, run: TrainingRun) -> None:
        """Raise InputError if a run cannot be trained; called before the first one starts."""

    def command(self, run: TrainingRun) -> list[str]:
        """Return the program and its arguments that train a run, in the present directory.

        On a Ray cluster with separate file systems, files inside ``run.work_dir`` are copied.
        """
        raise NotImplementedError

    def detections(self, run: TrainingRun) -> Path:
        """Return the path of the COCO result file that the command leaves."""
        return run.work_dir / DETECTIONS_FILE

    def evaluations(self, run: TrainingRun) -> dict[int, Path]:
        """Return step -> result file of earlier evaluations, for the curves of the report.

        By default, files beside that of :meth:`detections` whose name has a number before its
        ending: ``predictions_500.json``. A command can write ``history.jsonl`` itself instead.
        """
        last = self.detections(run)
        name = re.compile(rf"{re.escape(last.stem)}_(\d+){re.escape(last.suffix)}")
        found = [(name.fullmatch(file.name), file) for file in last.parent.glob(f"{last.stem}_*")]
        return {int(match[1]): file for match, file in found if match}

    def environment(self, run: TrainingRun) -> dict[str, str]:
        """Return environment variables of the command, in addition to those of this process."""
        return {}


class EngineTrainer(Trainer):
    """This package's engine: the ``train`` tool.

    Its runs write their own ``metrics.json``, which has proof that the named losses trained.

    Args:
        tensorboard: whether each run writes its scalars for TensorBoard too.
    """

    def __init__(self, tensorboard: bool = False) -> None:
        self._options = ["--tensorboard"] if tensorboard else []

    def command(self, run: TrainingRun) -> list[str]:
        """Return the command of the ``train`` tool; it resumes by itself."""
        return [*train_command(run.work_dir / CONFIG_FILE, run.work_dir, run.start), *self._options]


class CommandTrainer(Trainer):
    """A command with placeholders, such as ``python train.py --loss {loss} --out {work_dir}``.

    The command is divided into arguments as a shell does, then placeholders are replaced, so values
    with spaces stay one argument. ``{{`` and ``}}`` are braces.

    Args:
        command: the command. ``python`` as the program is the interpreter of this process.
        detections_file: name of the COCO result file in the directory of the run.

    Attributes:
        names: the placeholders in the command.

    Raises:
        InputError: a placeholder is unknown, or the command cannot be divided.
    """

    def __init__(self, command: str, detections_file: str = "predictions.json") -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise InputError(f"--command {one_line(command)!r}: {error}") from None
        if not self._words:
            raise InputError("--command is empty")
        if Path(detections_file).is_absolute() or ".." in Path(detections_file).parts:
            raise InputError(
                f"--detections-file {detections_file}: must be a name in the directory of the run"
            )
        self._file = detections_file
        names = [name for word in self._words for name in _placeholders(word, command)]
        self.names = set(names)
        if unknown := [n for n in names if n not in PLACEHOLDERS and not n.startswith("loss_")]:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise InputError(
                f"--command: no such placeholder: {{{unknown[0]}}}. The placeholders are {known}, "
                "and slots such as {loss_cls}; literal braces are doubled"
            )

    @property
    def description(self) -> str:
        """The command up to its first option or placeholder."""
        texts = itertools.takewhile(lambda w: not w.startswith("-") and "{" not in w, self._words)
        return shlex.join(texts) or self._words[0]

    def check(self, run: TrainingRun) -> None:
        """Raise InputError if there is no such program."""
        program = self.command(run)[0]
        if shutil.which(program) is None:
            raise InputError(f"--command: there is no program {program!r}")

    def command(self, run: TrainingRun) -> list[str]:
        """Return the command with its placeholders replaced."""
        values = self._values(run)
        words = [word.format_map(values) for word in self._words]
        return [sys.executable if words[0] in ("python", "python3") else words[0], *words[1:]]

    def detections(self, run: TrainingRun) -> Path:
        """Return the path of the result file."""
        return run.work_dir / self._file

    def _values(self, run: TrainingRun) -> dict[str, str]:
        values = {**{name: getattr(run, name) for name in PLACEHOLDERS}, **run.losses}
        if run.loss and "weight" in self.names:
            values["loss"], weight = _split_weight(run.loss)
            values["weight"] = f"{1.0 if weight is None else weight:g}"
        values["resume"] = "true" if run.resume else "false"
        missing = [name for name in sorted(self.names) if values.get(name) is None]
        if missing:
            raise InputError(f"--command has {{{missing[0]}}}, which {run.label} does not have")
        return {name: str(value) for name, value in values.items()}


def _split_weight(text: str) -> tuple[str, float | None]:
    """Return a loss as text without its loss weight, and the weight.

    >>> _split_weight("SmoothL1Loss(beta=0.5, loss_weight=2)"), _split_weight("my giou")
    (('SmoothL1Loss(beta=0.5)', 2), ('my giou', None))
    """
    if apart := re.fullmatch(r"(.*)\(loss_weight=(\d+\.?\d*)\)", text):
        return apart[1], float(apart[2])
    try:
        loss = parse_loss(text)
    except InputError:  # a name of another program
        return text, None
    weight = loss.pop("loss_weight", None)
    return (text if weight is None else loss_text(loss)), weight


PLACEHOLDERS: Mapping[str, str] = {
    "loss": "the loss as given; without its loss_weight if the command has {weight}",
    "weight": "the loss_weight, 1 if none is given",
    "label": "the name of the variant in tables",
    "seed": "the random seed",
    "work_dir": "the directory of the run",
    "train_ann": "COCO json of the training images",
    "train_images": "folder of the training images",
    "val_ann": "COCO json of the images to detect on",
    "val_images": "folder of these images",
    "resume": "true if an earlier attempt was interrupted or failed, else false",
}


def _placeholders(word: str, command: str) -> list[str]:
    """Return the names in braces.

    Raises:
        InputError: the braces do not match, or have more than a name in them.
    """
    try:
        fields = [field for field in string.Formatter().parse(word) if field[1] is not None]
        return [name + (f":{form}" if form else "") for _, name, form, _ in fields]
    except ValueError as error:
        raise InputError(
            f"--command {one_line(command)!r}: {error}; literal braces are doubled"
        ) from None


def build_trainer(cfg: Config) -> Trainer:
    """Return the trainer of a config.

    Raises:
        InputError: it cannot be imported, is not a trainer, or rejects an argument.
    """
    own = dict(cfg.get("trainer") or {"type": "EngineTrainer"})
    with located("trainer"):
        name = own.pop("type", None)
        found = _find(name)
        try:
            trainer = found(**own)
        except TypeError as error:
            raise InputError(f"{name}: {one_line(error)}") from error
    return trainer


def detector_of(cfg: Config) -> str:
    """Return the name of what is trained: the detector of the config, or the trainer."""
    return build_trainer(cfg).description if is_foreign(cfg) else cfg.model.type


def is_foreign(cfg: Mapping[str, Any]) -> bool:
    """Return whether a config is trained by another program than this package's engine."""
    return bool(cfg.get("trainer"))


def _find(name: Any) -> type[Trainer]:
    """Return a trainer of this module by name, or any other by ``"module:Class"``."""
    own = {each.__name__: each for each in (EngineTrainer, CommandTrainer)}
    if name in own:
        return own[name]
    module, _, attribute = str(name).partition(":")
    if not attribute:
        raise InputError(f"type={name!r}: expected 'module:Class', or one of {', '.join(own)}")
    found = getattr(import_modules([module], "trainer.type")[0], attribute, None)
    if found is None:
        raise InputError(f"type={name!r}: the module has no {attribute}")
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise InputError(f"type={name!r}: is not a subclass of {Trainer.__module__}.Trainer")
    return found
