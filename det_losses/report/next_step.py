"""What to do next: which runs would decide a comparison, how long they take, and the command."""

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from det_losses.errors import counted
from det_losses.report.answer import margin, supports_ranking
from det_losses.report.formats import rough_duration
from det_losses.report.runs import WITHIN, Runs
from det_losses.report.stored import Stored
from det_losses.statistics import LOOKS, Verdict

_FIRST_LOOK = min(LOOKS)  # seeds that a first result needs
_MOST_COMMANDS = 3
# options that determine seeds -> the number of their values
_SEED_OPTIONS = {"--seeds": math.inf, "--budget": 1, "--until-decided": 0, "--within": 1}


@dataclass(frozen=True)
class NextStep:
    """What to do next.

    Attributes:
        text: one sentence; it ends with a colon if there are commands.
        commands: the commands that do it; none if they are unknown.
    """

    text: str
    commands: tuple[str, ...] = ()


def next_step(study: Runs) -> NextStep | None:
    """Return what to do next; None if nothing is left to do, or nothing is known."""
    if study.interim:
        return _wait(study)
    if len(study.labels) < 2 or (study.comparable and not supports_ranking(study)):
        return None
    verdict = study.verdict() if study.comparable else None
    if verdict is not None and verdict.tested and verdict.decided:
        return None
    if unfinished := [run["variant"] for run in study.runs if run["status"] != "done"]:
        runs = "missing run" if len(unfinished) == 1 else f"{len(unfinished)} missing runs"
        commands = _stored_commands(study)
        time = _time(study, unfinished, study.meta.get("budget")) if commands else ""
        return _step(study, f"Finish the {runs} first{f' ({time})' if time else ''}", commands)
    if verdict is None:
        return None
    return _decide(study, verdict) if verdict.tested else _first_result(study)


def _wait(study: Runs) -> NextStep:
    """Return how long the runs take that have neither finished nor failed."""
    waiting = [run["variant"] for run in study.runs if run["status"] not in ("done", "failed")]
    time = _time(study, waiting) if waiting else ""
    left = f"About {time.removesuffix(' here')} left. " if time else ""
    return NextStep(f"{left}The answer follows when all planned runs have ended.")


def _first_result(study: Runs) -> NextStep | None:
    now = _seeds_now(study)
    if now >= _FIRST_LOOK:
        return None  # the runs of each variant are the same for all seeds
    more = _FIRST_LOOK - now
    return _fixed_seeds(study, "For a first result", more, counted(more, "more seed"))


def _decide(study: Runs, verdict: Verdict) -> NextStep:
    """Return how to bound the cost of choosing the leader by the margin.

    Up to the last scheduled look, seeds are added to the candidates only, and the looks share the
    error. More seeds than that are fixed in advance, for all variants.
    """
    purpose = f"To tell {_them(verdict)} apart to within {margin(verdict)}"
    now = _seeds_now(study)
    wanted = _wanted(verdict, now)
    if wanted is None and verdict.folds:
        again = "more annotated images, or another run on each fold, which may not be enough"
        return _fixed_seeds(study, purpose, verdict.folds, again)
    if wanted is None:
        return _step(
            study, f"{purpose}, evaluate more images: further seeds alone are not enough", ()
        )
    look = min((look for look in LOOKS if look >= wanted), default=None)
    several = len(study.origins) > 1 or len(_distinct(study)) > 1
    if look is None or several or now < _FIRST_LOOK:
        more = wanted - now
        return _fixed_seeds(study, purpose, more, f"about {counted(more, 'more seed')}")
    more = look - now
    options = ["--until-decided"]
    if verdict.within != WITHIN:
        options += ["--within", f"{100 * verdict.within:.3g}"]
    if _used_seeds(study) != list(range(now)):
        options += ["--seeds", *map(str, _with_further(study, max(LOOKS) - now))]
    commands = tuple(_with(command, options) for command in _distinct(study))
    trained = list(verdict.candidates)
    if study.fork and study.fork["baseline"] not in trained:
        trained.append(study.fork["baseline"])  # it trains the first part for the others
    time = _time(study, trained * more) if commands else ""
    about = f"about {counted(more, 'more seed')}"
    return _step(study, f"{purpose}: {', '.join(filter(None, [about, time]))}", commands)


def _wanted(verdict: Verdict, now: int) -> int | None:
    """Return about how many seeds decide a comparison, more than now; None if no number does.

    Where the median variant would be precise enough already, the regret bound, which is of a
    noisier one, is taken to decrease with the square root of the number of seeds.
    """
    wanted = verdict.seeds_to_decide()
    if wanted is None or wanted > now:
        return wanted
    return max(now + 1, math.ceil(now * (verdict.regret / verdict.within) ** 2))


def _fixed_seeds(study: Runs, purpose: str, more: int, what: str) -> NextStep:
    """Return the commands that give each variant further seeds; a merged one in each directory."""
    further = _with_further(study, more)[-more:]
    commands = tuple(
        _with(command, ["--seeds", *map(str, [*_seeds_in(part), *further])]) + _place(study, part)
        for part in _training_parts(study)
        for command in _distinct_of(part)
    )
    commands = commands if len(commands) <= _MOST_COMMANDS else ()
    time = _time(study, study.compared * more) if commands else ""
    return _step(study, f"{purpose}: {', '.join(filter(None, [what, time]))}", commands)


def _step(study: Runs, text: str, commands: tuple[str, ...]) -> NextStep:
    if not commands:
        return NextStep(f"{text}.")
    merge = ", then merge the directories again" if len(study.origins) > 1 else ""
    return NextStep(f"{text}{merge}:", commands)


def _seeds_now(study: Runs) -> int:
    return max(len(study.done(label)) for label in study.compared)


def _used_seeds(study: Runs) -> list[int]:
    return sorted({run["seed"] for run in study.runs})


def _with_further(study: Runs, more: int) -> list[int]:
    used = _used_seeds(study)
    return used + [seed for seed in range(len(used) + more) if seed not in used][:more]


def _them(verdict: Verdict) -> str:
    count = len(verdict.candidates)
    return "the two" if count == 2 else f"the {count}"


def _time(study: Runs, variants: Sequence[str], budget: float | None = None) -> str:
    """Return how long runs of these variants take here: "40 minutes here"; empty if unknown.

    Args:
        study: the comparison.
        variants: the variant of each run.
        budget: seconds after which the command stops; it is repeated if they are not enough.
    """
    times: dict[str, list[float]] = {}
    for run in study.runs:
        if run["status"] == "done" and run.get("train_seconds"):
            times.setdefault(run["variant"], []).append(run["train_seconds"])
    if not times:
        return ""
    means = {label: sum(own) / len(own) for label, own in times.items()}
    usual = sum(means.values()) / len(means)
    total = sum(means.get(label, usual) for label in variants)
    seconds = total / min(_jobs(study), len(variants))
    text = f"{rough_duration(seconds)} here"
    if budget and seconds > budget:
        text += f"; each command trains for {rough_duration(budget)}, so repeat it"
    return text


def _jobs(study: Runs) -> int:
    """Return how many runs train at the same time; older results have it in the command only."""
    if study.meta.get("jobs"):
        return study.meta["jobs"]
    found = re.search(r"--jobs[ =](\d+)", str(study.meta.get("command") or ""))
    return max(1, int(found[1])) if found else 1


def _stored_commands(study: Runs) -> tuple[str, ...]:
    """Return the commands that finish the missing runs of each directory."""
    missing = {(run["variant"], run["seed"]) for run in study.runs if run["status"] != "done"}
    found: list[str] = []
    for part in study.origins:
        if missing & {(run["variant"], run["seed"]) for run in part.runs}:
            stored = _commands(part)
            stored = stored[-1:] if len(_distinct_of(part)) == 1 else stored
            found += [command + _place(study, part) for command in stored]
    return _at_most(found)


def _training_parts(study: Runs) -> list[Stored]:
    """Return directories that together have all compared variants: the first one of each."""
    first: dict[str, Stored] = {}
    for part in study.origins:
        for label in part.meta["variants"]:
            first.setdefault(label, part)
    wanted = [first[label].folder for label in study.compared if label in first]
    return [part for part in study.origins if part.folder in wanted]


def _seeds_in(part: Stored) -> list[int]:
    return sorted({run["seed"] for run in part.runs})


def _place(study: Runs, part: Stored) -> str:
    """Return the directory of a command as a comment, if several are merged."""
    return f"  # {part.folder}" if len(study.origins) > 1 else ""


def _with(command: str, options: Sequence[str]) -> str:
    return shlex.join([*shlex.split(command), *options])


def _distinct(study: Runs) -> tuple[str, ...]:
    """Return the commands of all directories without seeds and budget; none if there are many."""
    return _at_most([command for part in study.origins for command in _distinct_of(part)])


def _distinct_of(part: Stored) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(without_seeds, _commands(part))))


def _at_most(commands: Sequence[str]) -> tuple[str, ...]:
    distinct = tuple(dict.fromkeys(commands))
    return distinct if len(distinct) <= _MOST_COMMANDS else ()


def _commands(part: Stored) -> tuple[str, ...]:
    """Return the commands of a directory, without repetitions."""
    command = part.meta.get("command")
    return tuple(part.meta.get("commands") or ([command] if command else []))


def without_seeds(command: str) -> str:
    """Return a command of compare without the options that determine seeds.

    >>> without_seeds("det-losses compare x --seeds 0 1 --budget=2h --losses 'A(b=1)' B")
    "det-losses compare x --losses 'A(b=1)' B"
    """
    kept, values = [], 0
    for word in shlex.split(command):
        option, equals, _ = word.partition("=")
        if option in _SEED_OPTIONS:
            values = 0 if equals else _SEED_OPTIONS[option]
        elif values > 0 and not word.startswith("--"):
            values -= 1
        else:
            values = 0
            kept.append(word)
    return shlex.join(kept)
