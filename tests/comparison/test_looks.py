"""Planted scores instead of trainings; the statistics are the real ones."""

import copy
import json

import numpy as np
import pytest
from mmengine.config import Config
from synthetic_comparison import write_comparison
from training import compare

from det_losses.comparison import comparison, looks
from det_losses.comparison.budget import Budget
from det_losses.comparison.looks import SEED_SD, decide, likely_to_find, scheduled, verdict_at
from det_losses.comparison.process import LocalExecutor
from det_losses.errors import InputError
from det_losses.report import Study
from det_losses.statistics import Scores, analyse

LABELS = ["L1Loss", "GIoULoss", "EIoULoss"]
# AP points of seeds 0 to 7: the seeds' own effect, and noise of a run of about one point.
SEED = [0.0, 1.5, -1.0, 0.5, -0.5, 1.0, 0.0, -1.5]
NOISE = {
    "L1Loss": [0.8, -1.0, 0.3, 0.9, -0.9, -0.4, 0.6, -0.3],
    "GIoULoss": [-0.9, 0.4, 0.7, -0.6, 0.8, 0.3, -0.5, -0.2],
    "EIoULoss": [0.2, 0.5, -1.1, -0.1, 0.3, -0.7, 0.2, 0.7],
}


def planted(means, done):
    """The scores of runs: label -> seeds; each seed has the same effect on all losses."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.02, (200, 1))  # images are equally difficult for all losses
    scores = {}
    for label, seeds in done.items():
        points = [means[label] + SEED[seed] + NOISE[label][seed] for seed in seeds]
        full = np.array(points) / 100
        scores[label] = Scores(tuple(seeds), full, full + shared)
    return scores


def verdict(means, seeds, within=0.01, look=None):
    done = dict.fromkeys(means, tuple(range(seeds)))
    return analyse(planted(means, done), "L1Loss", 500, within=within, look=look or seeds)


class TestDecide:
    def test_what_is_left_goes_on_to_the_next_look(self):
        step = decide(verdict({"L1Loss": 20, "GIoULoss": 40, "EIoULoss": 40.3}, 3), 3, 8)
        assert set(step.going) == {"GIoULoss", "EIoULoss"}
        assert step.text.startswith("Look at 3 seeds: 2 of 3 may be the best (EIoULoss and GIoULo")
        assert step.text.endswith("Next: 2 more seeds for these 2, then a look at 5.")

    def test_it_stops_with_one_candidate(self):
        step = decide(verdict({"L1Loss": 20, "GIoULoss": 30, "EIoULoss": 40}, 3), 3, 8)
        assert step.going == ()
        assert step.text == "Look at 3 seeds: EIoULoss is the best of 3. Decided."

    def test_it_stops_if_the_leader_costs_at_most_the_margin(self):
        means = {"L1Loss": 40, "GIoULoss": 40, "EIoULoss": 40.3}
        assert decide(verdict(means, 3, within=0.01), 3, 8).going != ()
        step = decide(verdict(means, 3, within=0.2), 3, 8)
        assert step.going == ()
        assert step.text.endswith("That is within the 20.0 AP of --within. Decided.")

    @pytest.mark.parametrize(("look", "most"), [(8, 8), (5, 5), (3, 4)])
    def test_it_stops_after_the_last_look_that_the_seeds_allow(self, look, most):
        means = {"L1Loss": 40, "GIoULoss": 40, "EIoULoss": 40.3}
        step = decide(verdict(means, look, within=0.001), look, most)
        assert step.going == ()
        assert step.text.endswith("Not decided; this was the last look.")

    def test_it_stops_where_nothing_can_be_tested(self):
        one_seed = verdict({"L1Loss": 40, "GIoULoss": 50}, 1, look=3)
        step = decide(one_seed, 3, 8)
        assert step.going == ()
        assert "cannot be estimated" in step.text


def test_looks_need_as_many_seeds_as_the_first():
    assert scheduled(range(8)) == [3, 5, 8]
    assert scheduled([4, 7, 9, 11]) == [3]
    with pytest.raises(ValueError, match="give at least 3 with --seeds, got 2"):
        scheduled([0, 1])


@pytest.fixture
def shapes_of(shapes, tmp_path, monkeypatch):
    """Compare LABELS with planted mean scores; gives the runs that trained, by label."""
    trained = {label: [] for label in LABELS}

    def start(means, broken=(), at=None, **options):
        def fake(command, log, tick, *, keep_open, env):
            config = Config.fromfile(command[command.index("train") + 1])
            label, seed = config.model.loss_bbox.type, config.randomness.seed
            trained[label].append(seed)
            if (label, seed) in broken:
                log.write_text("ValueError: broken")
                return 1
            score = planted(means, {label: [seed]})[label].full[0]
            metrics = {"AP": score}
            name = f"{label}()"
            proof = {"loss": name, "calls": 7, "gradient": True}
            record = {"status": "done", "metrics": metrics, "losses": {"loss_bbox": name}}
            record |= {"proof": {"loss_bbox": proof}, "train_seconds": 60.0}
            (log.parent / "metrics.json").write_text(json.dumps(record))
            return 0

        def planted_at(root, labels, seeds, settings):
            rows = json.loads((root / "results.json").read_text())["runs"]
            done = {
                label: [
                    row["seed"]
                    for row in rows
                    if (row["variant"], row["status"]) == (label, "done") and row["seed"] in seeds
                ]
                for label in labels
            }
            scores = planted(means, {label: own for label, own in done.items() if own})
            within = settings["within"]
            return analyse(scores, settings["baseline"], 500, within=within, look=len(seeds))

        monkeypatch.setattr(LocalExecutor, "run", staticmethod(fake))
        monkeypatch.setattr(looks, "verdict_at", at or planted_at)
        monkeypatch.setattr(comparison, "_report", lambda *args: None)
        for seeds in trained.values():
            seeds.clear()
        compare(shapes, tmp_path, LABELS, until_decided=True, **options)
        return trained

    return start


def meta(folder):
    return json.loads((folder / "results.json").read_text())["meta"]


FAR = {"L1Loss": 20, "GIoULoss": 40, "EIoULoss": 40.3}


def test_only_candidates_get_further_seeds_and_looks_are_stored(shapes_of, tmp_path, capsys):
    trained = shapes_of(FAR)
    assert trained == {"L1Loss": [0, 1, 2], "GIoULoss": list(range(8)), "EIoULoss": list(range(8))}
    stored = meta(tmp_path)
    assert [(each["seeds"], each["error"]) for each in stored["looks"]] == [
        (3, pytest.approx(0.01)),
        (5, pytest.approx(0.015)),
        (8, pytest.approx(0.025)),
    ]
    assert set(stored["looks"][0]["candidates"]) == {"GIoULoss", "EIoULoss"}
    assert stored["seeds"] == list(range(8))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["own_seeds"] == {"L1Loss": [0, 1, 2]}
    printed = capsys.readouterr().out
    assert "Looks at 3, 5 and 8 seeds, at most 24 runs" in printed
    assert printed.count("Look at ") == 3
    assert printed.count("Decided.") == 1
    assert "[1/4] GIoULoss seed 3" in printed  # a look's runs only

    # The same command takes the same looks and trains nothing.
    assert shapes_of(FAR) == {label: [] for label in LABELS}
    assert meta(tmp_path)["looks"] == stored["looks"]


def test_a_decided_comparison_stops_at_the_first_look(shapes_of, capsys):
    trained = shapes_of({"L1Loss": 20, "GIoULoss": 30, "EIoULoss": 40}, seeds=[2, 0, 1, 3, 4])
    assert trained == {label: [2, 0, 1] for label in LABELS}
    assert "EIoULoss is the best of 3. Decided." in capsys.readouterr().out


def test_a_failed_run_is_not_tried_again_at_the_next_look(shapes_of, tmp_path):
    trained = shapes_of(FAR, broken={("GIoULoss", 1)}, seeds=[0, 1, 2, 3, 4])
    assert trained["GIoULoss"] == [0, 1, 2, 3, 4]
    assert [each["seeds"] for each in meta(tmp_path)["looks"]] == [3, 5]


def test_an_interrupt_after_a_look_continues_with_its_candidates(shapes_of, tmp_path, monkeypatch):
    original = looks.decide

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(looks, "decide", interrupt)
        with pytest.raises(KeyboardInterrupt):
            shapes_of(FAR)
    assert looks.decide is original
    # Before its first look, a report uses that look's share of the error.
    assert meta(tmp_path)["looks"] == [{"seeds": 3, "error": pytest.approx(0.01)}]
    trained = shapes_of(FAR, seeds=[0, 1, 2, 3, 4])
    assert trained == {"L1Loss": [], "GIoULoss": [3, 4], "EIoULoss": [3, 4]}


def test_the_budget_ends_between_two_looks(shapes_of, tmp_path, monkeypatch, capsys):
    left = iter([True] * 10 + [False] * 10)
    monkeypatch.setattr(Budget, "allows_run", lambda *args: next(left))
    trained = shapes_of(FAR, budget=3600)
    assert sum(map(len, trained.values())) == 10  # nine, and one of the next four
    assert [each["seeds"] for each in meta(tmp_path)["looks"]] == [3]
    assert "The budget ended before the look at 5 seeds. Not decided." in capsys.readouterr().out
    assert "time budget ran out" in meta(tmp_path)["notes"][0]


def test_it_ends_where_no_look_is_possible(shapes_of, tmp_path, capsys):
    def impossible(*args):
        raise InputError("nothing to look at")

    trained = shapes_of(FAR, at=impossible)
    assert trained == {label: [0, 1, 2] for label in LABELS}
    assert "No look at 3 seeds: nothing to look at. Not decided." in capsys.readouterr().out


def test_a_budget_too_small_for_one_seed_is_an_error(shapes_of):
    with pytest.raises(ValueError, match="one seed needs 3 runs and about 3 min"):
        shapes_of(FAR, budget=100)


def test_the_report_agrees_with_the_last_look(shapes, tmp_path, monkeypatch, capsys):
    # From detections to the report. The error of a box is size_error[label] times its size.
    size_error = {"L1Loss": 0.16, "GIoULoss": 0.08, "EIoULoss": 0.08}
    out = tmp_path / "out"

    def detect(command, log, tick, *, keep_open, env):
        config = Config.fromfile(command[command.index("train") + 1])
        label, seed = config.model.loss_bbox.type, config.randomness.seed
        own = np.random.default_rng([seed, LABELS.index(label)])
        found = []
        for box in json.loads((out / "ground_truth.json").read_text())["annotations"]:
            x, y, w, h = box["bbox"]
            e = size_error[label] * own.normal(size=4)
            where = [x + w * e[0], y + h * e[1], w * np.exp(e[2]), h * np.exp(e[3])]
            at = {"image_id": box["image_id"], "category_id": box["category_id"]}
            found.append({**at, "bbox": where, "score": float(np.exp(-abs(e).sum()))})
        (log.parent / "detections.json").write_text(json.dumps(found))
        proof = {"loss_bbox": {"loss": f"{label}()", "calls": 7, "gradient": True}}
        record = {"status": "done", "metrics": {}, "proof": proof}
        (log.parent / "metrics.json").write_text(json.dumps(record))
        return 0

    monkeypatch.setattr(LocalExecutor, "run", staticmethod(detect))
    cfg = copy.deepcopy(shapes)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.update(data_root=str(tmp_path / "data"), num_train=4, num_val=30)
    options = dict(until_decided=True, seeds=[0, 1, 2, 3, 4], within=0.1, resamples=100)
    rows = compare(cfg, out, LABELS, **options)
    seeds = {label: [r["seed"] for r in rows if r["variant"] == label] for label in LABELS}
    assert seeds == {"L1Loss": [0, 1, 2], "GIoULoss": [0, 1, 2, 3, 4], "EIoULoss": [0, 1, 2, 3, 4]}
    last = meta(out)["looks"][-1]
    verdict = Study.load([out]).verdict()
    assert verdict.error == pytest.approx(last["error"]) == pytest.approx(0.015)
    assert list(verdict.candidates) == last["candidates"]
    assert verdict.regret == pytest.approx(last["regret"])
    printed = capsys.readouterr().out
    assert "Look at 3 seeds: 2 of 3 may be the best" in printed
    assert "this was the last look" in printed
    # Further runs are announced with the noise of those stored.
    compare(cfg, out, LABELS, **{**options, "seeds": list(range(8))})
    assert "8 seeds are likely (80%) to find a difference of" in capsys.readouterr().out


SETTINGS = {"baseline": "SmoothL1Loss", "metric": "AP", "within": 0.01, "resamples": 100}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    noise = {"SmoothL1Loss": 0.10, "GIoULoss": 0.10, "L1Loss": 0.16}
    root = tmp_path_factory.mktemp("looks") / "c"
    given = {**SETTINGS, "looks": [{"seeds": 3, "error": 0.01}]}
    return write_comparison(root, noise=noise, seeds=(0, 1, 2, 3), images=12, meta=given)


def test_a_look_uses_its_seeds_and_its_variants_only(stored):
    found = verdict_at(stored, ["SmoothL1Loss", "L1Loss"], (0, 1, 3), SETTINGS)
    assert {summary.label: summary.seeds for summary in found.summaries} == {
        "SmoothL1Loss": 3,
        "L1Loss": 3,
    }
    assert found.error == pytest.approx(0.01)
    runs = json.loads((stored / "results.json").read_text())["runs"]
    own = [r["metrics"]["AP"] for r in runs if r["variant"] == "L1Loss" and r["seed"] != 2]
    mean = next(s.mean for s in found.summaries if s.label == "L1Loss")
    assert mean == pytest.approx(np.mean(own), abs=1e-6)


def test_a_look_needs_a_result_of_the_baseline_and_of_another_variant(stored):
    for labels in (["SmoothL1Loss"], ["GIoULoss", "L1Loss"]):
        with pytest.raises(ValueError, match="the baseline or all other variants have no fini"):
            verdict_at(stored, labels, (0, 1, 2), SETTINGS)


def test_a_look_needs_an_ap_that_supports_a_ranking(stored, monkeypatch):
    monkeypatch.setattr(looks, "supports_ranking", lambda study: False)
    with pytest.raises(ValueError, match=r"too low to compare losses\. [A-Z]"):
        verdict_at(stored, ["SmoothL1Loss", "L1Loss"], (0, 1, 2), SETTINGS)


def test_a_report_uses_the_error_of_the_stored_look(stored):
    assert Study.load([stored]).verdict().error == pytest.approx(0.01)


def test_the_noise_of_stored_runs_says_what_is_likely_to_be_found(stored):
    sentence = likely_to_find(stored, 20, 3, 5)
    assert "5 seeds are likely (80%) to find a difference of" in sentence
    assert sentence.endswith(" by the noise of the stored runs")
    amount = [difference_in(likely_to_find(stored, 20, 3, n)) for n in (3, 5, 8)]
    assert amount[0] > amount[1] > amount[2]
    assert likely_to_find(stored, 20, 1, 5) is None


def difference_in(sentence):
    return float(sentence.split("difference of ")[1].split()[0])


def test_without_stored_runs_the_noise_of_the_quickstart_is_assumed(tmp_path):
    # Three losses, three seeds: the SE of a difference is SD / sqrt(3), the critical value about
    # 3.7 at 3.2 degrees of freedom, and a power of 80% adds about one SE: 4.9 SE / sqrt(3) SD.
    sentence = likely_to_find(tmp_path, 10**6, 3, 3)
    assert difference_in(sentence) == pytest.approx(100 * 4.9 / 3**0.5 * SEED_SD, rel=0.1)
    assert "as AP does in the quickstart" in sentence and "half to twice" in sentence
    assert difference_in(likely_to_find(tmp_path, 20, 3, 3)) > difference_in(sentence)
    assert likely_to_find(tmp_path, 20, 3, 1) is None


@pytest.mark.parametrize(("metric", "unit"), [("AP50", "AP50"), ("AP/bus", "AP of bus")])
def test_the_difference_is_one_of_the_compared_metric(tmp_path, stored, metric, unit):
    sentence = likely_to_find(tmp_path, 100, 3, 3, metric=metric)
    assert f" {unit} to the baseline. This is rough" in sentence
    assert f"and {unit} may vary more than AP" in sentence
    if metric == "AP50":  # the noise of stored runs is that of this metric, too
        own = Study.load([stored]).verdict("AP50").precision.seed_variance
        assert own != Study.load([stored]).verdict("AP").precision.seed_variance
        found = [difference_in(likely_to_find(stored, 20, 3, 5, metric=m)) for m in ("AP", metric)]
        assert found[0] != found[1]
