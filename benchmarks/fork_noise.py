"""What a forked comparison finds, beside a comparison of whole trainings.

    python benchmarks/fork_noise.py WHOLE_DIR FORKED_DIR... --metric AP

WHOLE_DIR is a finished comparison, each FORKED_DIR one of the same losses and seeds with
`--fork-at` (of any baseline). For each directory and each pair of losses, the table shows the mean
of the paired difference over seeds and its standard deviation. In the summary, bias is the slope
of the forked mean differences on those of whole trainings (1: no bias), spread the pooled standard
deviation of the paired differences relative to that of whole trainings, and the last column the
true difference of whole trainings that is detected at equal training time, relative to that of
whole trainings: spread / bias * sqrt(time). Below 1, forking pays.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

Scores = dict[tuple[str, int], float]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("whole_dir", type=Path)
    parser.add_argument("forked_dirs", type=Path, nargs="+")
    parser.add_argument("--metric", default="AP")
    args = parser.parse_args()
    folders = [args.whole_dir, *args.forked_dirs]
    metas, scores = zip(*(read(folder, args.metric) for folder in folders), strict=True)
    labels = list(metas[0]["variants"])
    seeds = sorted({s for _, s in scores[0]})
    seeds = [s for s in seeds if all((v, s) in own for own in scores for v in labels)]
    pairs = list(itertools.combinations(labels, 2))
    print(f"{args.metric}, seeds {seeds}: mean difference, SD over seeds\n")
    print("| fork | " + " | ".join(f"{b} - {a}" for a, b in pairs) + " |")
    print("|---" * (len(pairs) + 1) + "|")
    found = []
    for meta, own in zip(metas, scores, strict=True):
        differences = [[100 * (own[b, s] - own[a, s]) for s in seeds] for a, b in pairs]
        mean, sd = np.mean(differences, axis=1), np.std(differences, axis=1, ddof=1)
        found.append((mean, np.sqrt(np.mean(sd**2)), time(meta)))
        cells = [f"{m:+.2f}, {d:.2f}" for m, d in zip(mean, sd, strict=True)]
        print(f"| {name(meta)} | " + " | ".join(cells) + " |")
    print("\n| fork | time | bias | spread | detectable at equal time |\n|---|---|---|---|---|")
    whole, noise, full = found[0]
    for meta, (mean, sd, cost) in zip(metas, found, strict=True):
        bias, spread, part = mean @ whole / (whole @ whole), sd / noise, cost / full
        relative = spread / bias * np.sqrt(part)
        print(f"| {name(meta)} | {part:.2f} | {bias:.2f} | {spread:.2f} | {relative:.2f} |")


def read(folder: Path, metric: str) -> tuple[dict, Scores]:
    """Return the metadata of a comparison, and (label, seed) -> score of its finished runs."""
    results = json.loads((folder / "results.json").read_text())
    done = [run for run in results["runs"] if run["status"] == "done"]
    return results["meta"], {(r["variant"], r["seed"]): r["metrics"][metric] for r in done}


def name(meta: dict) -> str:
    """Return where the runs of a comparison fork."""
    fork = meta.get("fork")
    return f"{fork['epoch']} of {fork['epochs']}, {fork['baseline']}" if fork else "none"


def time(meta: dict) -> float:
    """Return the training time of one seed, in whole trainings."""
    count, fork = len(meta["variants"]), meta.get("fork")
    return 1 + (count - 1) * (1 - fork["epoch"] / fork["epochs"]) if fork else float(count)


if __name__ == "__main__":
    main()
