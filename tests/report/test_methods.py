from det_losses.report.methods import methods
from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}


def test_the_methods_are_folded_and_name_their_sources(planted):
    found = methods(planted)
    assert found.folded
    for source in ("Dunnett (1955)", "Hsu 1981", "Tukey", "Owen 2007", "Satterthwaite"):
        assert source in found.text
    assert "100 bootstrap resamples" in found.text
    assert "counts as fixed in advance" in found.text


def test_a_scheduled_look_is_named(make_comparison):
    """At a look at 3 seeds the tests use a fifth of the error of 5%."""
    looks = [{"seeds": 3}]
    study = Study.load([make_comparison(noise=TWO, meta={"looks": looks})])
    assert abs(study.verdict().error - 0.01) < 1e-12
    assert "This report is the look at 3 seeds" in methods(study).text


def test_methods_say_what_one_seed_leaves_out(make_comparison, planted):
    one = Study.load([make_comparison(seeds=(0,), noise=TWO)])
    sentence = "the variance over seeds is unknown"
    assert sentence in methods(one).text and sentence not in methods(planted).text
