r"""False alarms on real trainings: runs of one loss, regrouped as if they were of several losses.

    python tools/compare_losses.py quickstart/retinanet_shapes --losses GIoULoss \
        --seeds $(seq 0 17) --jobs 2 --work-dir work_dirs/same_loss
    python benchmarks/false_alarms.py work_dirs/same_loss

In each of 400 rounds, runs are drawn without replacement and grouped into L losses with 3 seeds.
All losses are equal, so every difference that is found is a false alarm, and every loss that is
excluded is one of the best. The rounds share the runs, so the rates are those of this set of runs.
"""

import argparse
from pathlib import Path

import numpy as np

from det_losses.report.study import Study
from det_losses.statistics import Scores, analyse

SEEDS, ROUNDS = 3, 400


def main() -> None:
    """Print the rates for 2, 3, 5 and 6 losses."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work_dir", type=Path, help="a finished comparison with one loss")
    study = Study.load([parser.parse_args().work_dir])
    (scores,) = study.scores("AP").values()
    images, runs = len(study.truth.image_ids), len(scores.seeds)
    print(f"{runs} runs, AP {100 * scores.full.mean():.1f}, SD {100 * scores.full.std(ddof=1):.2f}")
    print("| losses | differs from the baseline | any pair differs | a given loss is excluded |")
    print("|---|---|---|---|")
    generator = np.random.default_rng(0)
    for losses in (2, 3, 5, 6):
        if losses * SEEDS > runs:
            continue
        found = np.mean(
            [_round(scores, losses, images, generator) for _ in range(ROUNDS)],
            axis=0,
        )
        print(f"| {losses} | " + " | ".join(f"{rate:.1%}" for rate in found) + " |")


def _round(
    scores: Scores, losses: int, images: int, generator: np.random.Generator
) -> tuple[bool, bool, float]:
    chosen = generator.permutation(len(scores.seeds))[: losses * SEEDS].reshape(losses, SEEDS)
    grouped = {
        f"loss {number}": Scores(tuple(range(SEEDS)), scores.full[own], scores.resampled[:, own])
        for number, own in enumerate(chosen)
    }
    verdict = analyse(grouped, "loss 0", images)
    return (
        any(verdict.differs(each) for each in verdict.against_baseline),
        any(each.p < 1 - verdict.level for each in verdict.pairs),
        1 - len(verdict.candidates) / losses,
    )


if __name__ == "__main__":
    main()
