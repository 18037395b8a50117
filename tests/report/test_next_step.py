import pytest

from det_losses.report import answer
from det_losses.report.next_step import NextStep, next_step, with_seeds
from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}
SAME = {"a": 0.1, "b": 0.1}
COMMAND = "det-losses compare x --losses a 'b(c=1)' --seeds 0 1 2 --jobs 2"


def study_of(make_comparison, **planted):
    within = planted.pop("within", None)
    meta = {"command": COMMAND} | planted.pop("meta", {})
    return Study.load([make_comparison(meta=meta, **planted)], within=within)


def test_a_decided_comparison_has_no_next_step(planted):
    assert planted.verdict().decided
    assert next_step(planted) is None


def test_seeds_that_tell_two_candidates_apart(make_comparison):
    """The runs of seed s take 60 + s seconds, 61 on average, and two train at the same time."""
    study = study_of(make_comparison, noise=SAME, within=8)
    verdict = study.verdict()
    assert not verdict.decided and len(verdict.candidates) == 2
    more = verdict.seeds_to_decide() - 3
    assert more > 1
    seeds = " ".join(map(str, range(3 + more)))
    minutes = round(more * 2 * 61 / 2 / 60)
    assert next_step(study) == NextStep(
        f"To tell the two apart to within 8 AP: about {more} more seeds, {minutes} "
        f"minute{'s' if minutes > 1 else ''} here:",
        (f"det-losses compare x --losses a 'b(c=1)' --jobs 2 --seeds {seeds}",),
    )


def test_more_images_where_seeds_alone_do_not_help(make_comparison):
    study = study_of(make_comparison, noise=SAME, within=0.1)
    assert study.verdict().seeds_to_decide() is None
    assert next_step(study) == NextStep(
        "To tell the two apart to within 0.1 AP, evaluate more images: further seeds alone are "
        "not enough."
    )


def test_one_seed_needs_two_more(make_comparison):
    """Two variants with two runs of 60 s each, two at the same time: 2 minutes."""
    study = study_of(make_comparison, noise=TWO, seeds=(5,))
    assert next_step(study) == NextStep(
        "For a first result: 2 more seeds, 2 minutes here:",
        ("det-losses compare x --losses a 'b(c=1)' --jobs 2 --seeds 5 0 1",),
    )


def test_missing_runs_come_first(make_comparison):
    study = study_of(make_comparison, noise=SAME, unfinished={("b", 1): "failed"})
    step = next_step(study)
    assert step == NextStep("Finish the missing run first (1 minute here):", (COMMAND,))
    unfinished = {("a", 0): "failed", ("b", 0): "pending"}
    study = study_of(make_comparison, name="other", seeds=(0,), noise=SAME, unfinished=unfinished)
    step = next_step(study)  # no run has a time yet
    assert step == NextStep("Finish the 2 missing runs first:", (COMMAND,))


def test_without_a_command_only_the_number_of_seeds(planted_root):
    files = {
        label: [planted_root / f"runs/{label}/seed_0/detections.json"]
        for label in ("L1Loss", "EIoULoss")
    }
    study = Study.from_detections(planted_root / "ground_truth.json", files, resamples=100)
    assert next_step(study) == NextStep("For a first result: 2 more seeds.")


def test_merged_comparisons_have_no_single_command(make_comparison):
    roots = [make_comparison(name, noise=SAME, seeds=(n,)) for n, name in enumerate("ab")]
    assert next_step(Study.load(roots)).commands == ()


def test_several_commands_are_all_extended(make_comparison):
    commands = ["c --losses a --seeds 0", "c --losses a --seeds 0 1 2", "c --losses b"]
    study = study_of(make_comparison, noise=TWO, seeds=(0,), meta={"commands": commands})
    assert next_step(study).commands == (
        "c --losses a --seeds 0 1 2",
        "c --losses b --seeds 0 1 2",
    )


def test_without_a_ranking_there_is_no_next_step(planted_root, monkeypatch):
    monkeypatch.setattr(answer, "TOO_LOW", 1.0)
    assert next_step(Study.load([planted_root], within=1e-4)) is None


@pytest.mark.parametrize("options", ["--seeds 0 1", "--seeds=0", "--budget 2h", "--budget=2h"])
def test_seeds_and_budget_are_replaced(options):
    assert with_seeds(f"c x {options} --losses a", [0, 7]) == "c x --losses a --seeds 0 7"
