"""The methods of a report: every formula in plain English, with its source."""

from det_losses.report.runs import Runs
from det_losses.report.section import Section
from det_losses.statistics import LOOKS


def methods(study: Runs) -> Section:
    """Return how the numbers were computed; folded."""
    parts = [
        _metrics(study),
        _fork(study),
        _differences(study),
        _SEEDS,
        *([_folds(study)] if study.folds else [_images(study), _STANDARD_ERROR]),
        _baseline(study),
        _BEST,
        _PAIRS,
        _MISSING,
        _POWER,
        _looks(study),
        _other_metrics(study),
        "Error rates measured by simulation are in docs/statistics.md of the source code.",
    ]
    if max((len(study.done(label)) for label in study.compared), default=0) < 2:
        parts.append(_ONE_SEED)
    return Section("Methods", "\n\n".join(filter(None, parts)), folded=True)


def _metrics(study: Runs) -> str:
    files = max((len(run.get("detections") or [0]) for run in study.runs), default=1)
    averaged = f" The metrics of a run are means over its last {files} evaluations."
    return f"""\
Metrics follow COCO's definition with at most {study.max_dets} detections per image and class, are \
computed from each run's detections, and are given in points: an AP of 0.393 is 39.3.\
{averaged if files > 1 else ""} The mean and the standard deviation (SD) of a variant are over its \
seeds."""


def _fork(study: Runs) -> str:
    if not study.fork:
        return ""
    epoch, epochs, baseline = (study.fork[key] for key in ("epoch", "epochs", "baseline"))
    return f"""\
Fork. For each seed, {baseline} was trained from scratch and kept a checkpoint after epoch {epoch} \
of {epochs}. Every other variant continued from it, with the same weights, optimizer state, \
learning-rate schedule, data order and random numbers; running statistics of its losses started \
there. The spread over seeds is that of forked runs: it includes the first part, which differs \
between seeds and is shared by the variants."""


def _differences(study: Runs) -> str:
    pairs = (
        "Two runs with the same seed have the same initial weights, data order and augmentation"
        if study.origins
        else "Files at the same position in the lists of two variants form a pair"
    )
    if study.trained_by:
        pairs = (
            f"Two runs with the same seed form a pair; what the seed determines is up to "
            f"{study.trained_by}"
        )
    images = "all runs are" if not study.folds else "these are trained and"
    return f"""\
Differences are paired. {pairs}, and {images} evaluated on the same images. Below, one variant \
is the reference; d is the difference of variant j to it, k the number of the other variants, S_j \
the number of common seeds, and s_j² the variance of the per-seed differences. In the table of \
variants the reference is the baseline."""


_SEEDS = """\
Variance over seeds. The variances of the per-seed differences are pooled over the variants, and a \
variant that is noisier than the others gets a larger variance. nu are the degrees of freedom of \
the pooled variance V, because differences to one reference have the correlation 1/2. v1 is the \
variance of d over seeds:

V = Σ (S_j - 1) s_j² / Σ (S_j - 1); nu = 4 Σ (S_j - 1) / (k + 3)

V_j = max(V, [4 V + (S_j - 1) s_j²] / (S_j + 3)); v1 = V_j / S_j"""


def _images(study: Runs) -> str:
    return f"""\
Variance over images. It is from {study.resamples:,} bootstrap resamples of the images, the same \
for all variants and seeds (pigeonhole bootstrap, Owen 2007). An image drawn n times counts n \
times; a class without objects in a resample is left out for all variants. D(b, s) is the \
difference on resample b in seed s, and M(b) its mean over the S seeds. The second term is \
subtracted because the variance over seeds contains it already:

vc = max(0, var_b M(b) - Σ_s var_b [D(b, s) - M(b)] / (S (S - 1)))"""


def _folds(study: Runs) -> str:
    return f"""\
Folds. The run with seed s was trained on all images but those of fold s mod {study.folds}, and \
evaluated on these. The results are about other training sets of this size, other images and \
other seeds. Runs on the same fold are averaged first, and S_j counts folds. Their variance \
contains that over images, which is not resampled. Because the training sets of any two folds have \
images in common, the variance of the mean is corrected by the ratio of evaluated to training \
images (Nadeau and Bengio 2003), for {study.folds} folds 1 / {study.folds - 1}. SE has nu degrees \
of freedom:

SE² = V_j (1 / S_j + 1 / {study.folds - 1})"""


_STANDARD_ERROR = """\
Standard error. It has Satterthwaite's (1946) degrees of freedom, for I images. With two seeds, \
the critical value c is the mean of those of the two parts, weighted by their variances (Cochran \
and Cox 1957):

SE² = v1 + vc; df = (v1 + vc)² / (v1² / nu + vc² / (I - 1))"""


def _baseline(study: Runs) -> str:
    error = study.verdict().error if study.comparable else 0.05
    return f"""\
Differences to the baseline. The interval is d ± c SE, cut at -100 and 100 points, with the \
two-sided critical value c of Dunnett (1955). The intervals are simultaneous: the probability that \
any of them misses the true difference to {study.baseline} is {100 * error:.3g}%. p is the error \
at which the interval would just reach zero, so the interval excludes zero exactly if p is below \
{error:.3g}."""


_BEST = """\
Candidates. Which variants may be the best is decided by multiple comparisons with the best (Hsu \
1981; Edwards and Hsu 1983 for unequal variances). Each variant i in turn is the reference, and c \
is Dunnett's one-sided value. With y the means, i is a candidate if y(i) - y(j) + c SE > 0 for all \
j; otherwise it is worse than the best. Choosing i costs at most the largest value of \
y(j) - y(i) + c SE over the other candidates j, and nothing if none is above zero. All these \
statements together hold with a probability of 95%. They are one-sided, so a variant can be \
excluded although its two-sided interval in the table includes zero. Variants whose costs are \
within the margin can be exchanged for each other: the best is one of the candidates, and none of \
these variants is further from it than the margin."""


_PAIRS = """\
All pairs. Intervals and p use Tukey's studentized range (1953), with the variance pooled over the \
differences to the baseline. Variants that share a letter were not found to differ (compact letter \
display, Piepho 2004). That does not show that they are equal."""


_MISSING = """\
Missing runs. If variants have different seeds, means and differences are least-squares estimates \
of the model variant + seed, so that no variant is ranked by which seeds it has."""


_POWER = """\
Detectable difference. The true difference δ for which a noncentral t variable with noncentrality \
δ / SE exceeds c with a probability of 80%. The number of further seeds is the one at which the \
one-sided interval of two equal variants is no wider than the margin, with the variances as they \
are estimated now; a clear difference needs fewer."""


def _looks(study: Runs) -> str:
    shares = ", ".join(
        f"{100 * 0.05 * share:g}% at {seeds} seeds" for seeds, share in LOOKS.items()
    )
    if study.look is not None:
        return f"""\
Looks. The number of seeds was not fixed in advance: results were looked at as seeds were added. \
Each scheduled look may use a share of the error of 5%: {shares}. This report is the look at \
{study.look} seeds, and its intervals have that error. All looks together have 95%."""
    return f"""\
Looks. The number of seeds counts as fixed in advance. Adding seeds because a result was not \
clear, until it is, makes false positives more frequent: 13% to 19% instead of 5% with looks at 3 \
to 10 seeds. Scheduled looks share the error ({shares})."""


def _other_metrics(study: Runs) -> str:
    return f"""\
Metrics other than {study.metric} are exploratory: their intervals are not adjusted for the number \
of metrics, and among many of them some will exclude zero by chance."""


_ONE_SEED = """\
With one seed, the variance over seeds is unknown and left out: the intervals are for other images \
with the same trained models. There are no p-values, letters or candidates."""
