import pytest

from det_losses.report import answer
from det_losses.report.next_step import NextStep, next_step, without_seeds
from det_losses.report.study import Study
from det_losses.statistics import Verdict

TWO = {"base": 0.1, "new": 0.05}
SAME = {"a": 0.1, "b": 0.1}
THREE = {"a": 0.1, "b": 0.1, "worse": 0.4}
COMMAND = "det-losses compare x --losses a 'b(c=1)' --seeds 0 1 2 --jobs 2"


def study_of(make_comparison, **planted):
    within = planted.pop("within", None)
    meta = {"command": COMMAND} | planted.pop("meta", {})
    return Study.load([make_comparison(meta=meta, **planted)], within=within)


def test_a_decided_comparison_has_no_next_step(planted):
    assert planted.verdict().decided
    assert next_step(planted) is None


def test_more_seeds_than_at_the_last_look_are_fixed_in_advance(make_comparison):
    """The runs of seed s take 60 + s seconds, 61 on average, and two train at the same time."""
    study = study_of(make_comparison, noise=THREE, within=0.06)
    verdict = study.verdict()
    assert set(verdict.candidates) == {"a", "b"} and not verdict.decided
    wanted = verdict.seeds_to_decide()
    assert wanted > 8
    seeds = " ".join(map(str, range(wanted)))
    assert next_step(study) == NextStep(
        f"To tell the two apart to within 6 AP: about {wanted - 3} more seeds, "
        f"{round((wanted - 3) * 3 * 61 / 2 / 60)} minutes here:",
        (f"det-losses compare x --losses a 'b(c=1)' --jobs 2 --seeds {seeds}",),
    )


def test_up_to_the_last_look_seeds_are_added_to_the_candidates(make_comparison):
    """Two candidates of three, from 3 seeds to the look at 5, two runs of 61 s at a time."""
    study = study_of(make_comparison, noise=THREE, within=0.08)
    assert set(study.verdict().candidates) == {"a", "b"} and not study.verdict().decided
    assert 3 < study.verdict().seeds_to_decide() <= 5
    assert next_step(study) == NextStep(
        "To tell the two apart to within 8 AP: about 2 more seeds, 2 minutes here:",
        ("det-losses compare x --losses a 'b(c=1)' --jobs 2 --until-decided --within 8",),
    )


def test_seeds_of_a_noisy_variant(make_comparison, monkeypatch):
    """Three seeds would do for the median variant, but the regret bound is 8.4 of 7.5 points.

    It decreases with the square root of the seeds: 3 (8.4 / 7.5)^2 = 3.8, so 4, at the look at 5.
    """
    monkeypatch.setattr(Verdict, "seeds_to_decide", lambda verdict: 3)
    study = study_of(make_comparison, noise=THREE, within=0.075)
    assert 0.083 < study.verdict().regret < 0.085
    assert "about 2 more seeds" in next_step(study).text


def test_looks_include_the_seeds_that_were_used(make_comparison, monkeypatch):
    monkeypatch.setattr(Verdict, "seeds_to_decide", lambda verdict: 4)
    study = study_of(make_comparison, noise=THREE, within=0.02, seeds=(5, 6, 7))
    assert not study.verdict().decided
    (command,) = next_step(study).commands
    assert command.endswith("--until-decided --within 2 --seeds 5 6 7 0 1 2 3 4")


def test_more_images_where_seeds_alone_do_not_help(make_comparison):
    study = study_of(make_comparison, noise=SAME, within=0.001)
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


def test_the_budget_of_the_command_limits_its_time(make_comparison):
    # Seeds 0, 1 and 2 of b take about 61 s each, one at a time.
    command = "det-losses compare x --losses a b --budget 90s"
    unfinished = {("b", seed): "pending" for seed in range(3)}
    for budget, repeat in ((90, "; each command trains for 2 minutes, so repeat it"), (200, "")):
        study = study_of(
            make_comparison,
            name=f"budget_{budget}",
            noise=SAME,
            unfinished=unfinished,
            meta={"command": command, "budget": budget},
        )
        text = f"Finish the 3 missing runs first (3 minutes here{repeat}):"
        assert next_step(study) == NextStep(text, (command,))


def merged(make_comparison, *parts):
    roots = []
    for number, planted in enumerate(parts):
        name = "ab"[number]
        command = f"det-losses compare x --losses {name} --seeds 0"
        roots.append(make_comparison(name, meta={"command": command}, **planted))
    return next_step(Study.load(roots)), roots


def test_further_seeds_of_merged_comparisons_are_trained_in_one_directory(
    make_comparison, monkeypatch
):
    # Both directories have both variants; seed 2 is the first that neither has.
    monkeypatch.setattr(Verdict, "seeds_to_decide", lambda verdict: 4)
    step, roots = merged(
        make_comparison, {"noise": SAME, "seeds": (0,)}, {"noise": SAME, "seeds": (1,)}
    )
    assert step == NextStep(
        "To tell the two apart to within 1 AP: about 2 more seeds, 4 minutes here, then merge the "
        "directories again:",
        (f"det-losses compare x --losses a --seeds 0 2 3  # {roots[0]}",),
    )


def test_merged_comparisons_of_different_variants_are_all_extended(make_comparison):
    step, roots = merged(
        make_comparison, {"noise": {"a": 0.1}, "seeds": (0,)}, {"noise": {"b": 0.1}, "seeds": (0,)}
    )
    assert step.commands == tuple(
        f"det-losses compare x --losses {name} --seeds 0 1 2  # {root}"
        for name, root in zip("ab", roots, strict=True)
    )


def test_missing_runs_of_merged_comparisons_are_finished_in_their_directories(make_comparison):
    step, roots = merged(
        make_comparison,
        {"noise": SAME, "seeds": (0,)},
        {"noise": SAME, "seeds": (1,), "unfinished": {("b", 1): "pending"}},
    )
    assert step == NextStep(
        "Finish the missing run first (1 minute here), then merge the directories again:",
        (f"det-losses compare x --losses b --seeds 0  # {roots[1]}",),
    )


def test_several_commands_are_all_extended(make_comparison):
    commands = ["c --losses a --seeds 0", "c --losses a --seeds 0 1 2", "c --losses b"]
    study = study_of(make_comparison, noise=TWO, seeds=(0,), meta={"commands": commands})
    assert next_step(study).commands == (
        "c --losses a --seeds 0 1 2",
        "c --losses b --seeds 0 1 2",
    )


def test_without_a_ranking_there_is_no_next_step(planted_root, monkeypatch):
    monkeypatch.setattr(answer, "TOO_LOW", 1.0)
    assert next_step(Study.load([planted_root], within=1e-6)) is None


@pytest.mark.parametrize(
    "options", ["--seeds 0 1", "--seeds=0", "--budget 2h", "--until-decided --within 2"]
)
def test_options_on_seeds_are_replaced(options):
    assert without_seeds(f"c x {options} --losses a") == "c x --losses a"


@pytest.mark.parametrize("options", ["--until-decided", "--budget 2h", "--within 2", "--seeds=1"])
def test_a_config_after_an_option_on_seeds_is_kept(options):
    assert without_seeds(f"c {options} x --losses a") == "c x --losses a"


def test_with_folds_a_further_round_is_the_next_step(make_comparison):
    """Three folds are not precise enough, and more of them do not exist."""
    study = study_of(make_comparison, noise=SAME, folds=3, within=0.001)
    assert study.verdict().seeds_to_decide() is None
    found = next_step(study)
    assert "more annotated images, or another run on each fold" in found.text
    assert found.commands[0].endswith("--seeds 0 1 2 3 4 5")
