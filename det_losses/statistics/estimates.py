"""Differences between losses and their variances over seeds and over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from det_losses.errors import InputError

_NOTHING = 1e-20  # a variance below it is rounding: scores are within 0..1


@dataclass(frozen=True, eq=False)
class Scores:
    """One metric of one variant: on all images, and on resamples of them.

    Resample b draws images with replacement. It is the same for all variants and seeds: images are
    crossed with seeds.

    Attributes:
        seeds: the S seeds of the runs.
        full: [S], the metric on all images, in 0..1; NaN without ground truth for it.
        resampled: [B, S], the metric on each resample; NaN without ground truth in it.

    Raises:
        ValueError: a seed is repeated, the shapes do not match, or a score is infinite.
    """

    seeds: tuple[int, ...]
    full: np.ndarray
    resampled: np.ndarray

    def __post_init__(self) -> None:
        seeds = tuple(self.seeds)
        full = np.asarray(self.full, dtype=np.float64)
        resampled = np.asarray(self.resampled, dtype=np.float64)
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be one or more distinct numbers, got {seeds}")
        if full.shape != (len(seeds),):
            raise ValueError(f"full must have one score per seed, [{len(seeds)}], got {full.shape}")
        if resampled.ndim != 2 or resampled.shape[1] != len(seeds) or len(resampled) < 2:
            raise ValueError(
                f"resampled must be [resamples, {len(seeds)}] of at least 2 resamples, "
                f"got {resampled.shape}"
            )
        if np.isinf(full).any() or np.isinf(resampled).any():
            raise ValueError("full and resampled must be finite or NaN, got an infinite score")
        for name, value in (("seeds", seeds), ("full", full), ("resampled", resampled)):
            object.__setattr__(self, name, value)


def by_fold(scores: Mapping[str, Scores], folds: int) -> dict[str, Scores]:
    """Return the means over the runs of each fold, as scores of these folds instead of seeds.

    A run with seed s is evaluated on fold s mod K. Further runs on the same fold are no further
    images, so folds are what is independent. If some losses lack a run on a fold, their means are
    those of the model loss + seed on this fold. Folds without ground truth for the metric are left
    out, unless all are.
    """
    seeds = sorted({seed for own in scores.values() for seed in own.seeds})
    means: dict[str, dict[int, np.ndarray]] = {label: {} for label in scores}
    for fold in sorted({seed % folds for seed in seeds}):
        for label, own in _fold_means(scores, [s for s in seeds if s % folds == fold]).items():
            means[label][fold] = own
    return {label: _of_folds(own) for label, own in means.items()}


def _fold_means(scores: Mapping[str, Scores], seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the mean of each loss with such runs, [1 + B]: on all images, and on resamples."""
    runs = {label: own for label, own in scores.items() if set(own.seeds) & set(seeds)}
    there = np.array([[seed in own.seeds for seed in seeds] for own in runs.values()])
    draws = len(next(iter(runs.values())).resampled)
    stacked = np.zeros((1 + draws, *there.shape))
    for row, own in enumerate(runs.values()):
        at = [own.seeds.index(seed) for seed in seeds if seed in own.seeds]
        stacked[:, row, there[row]] = np.vstack([own.full[at], own.resampled[:, at]])
    found = stacked.reshape(1 + draws, -1) @ _mean_weights(there).T
    return dict(zip(runs, found.T, strict=True))


def _mean_weights(there: np.ndarray) -> np.ndarray:
    """Return the weights of the runs of a fold; plain means if no common seeds connect losses."""
    try:
        return _least_squares(there)
    except InputError:
        rows = there / there.sum(axis=1, keepdims=True)
        return (np.eye(len(there))[:, :, None] * rows).reshape(len(there), -1)


def _of_folds(means: Mapping[int, np.ndarray]) -> Scores:
    known = {fold: own for fold, own in means.items() if not np.isnan(own[0])} or means
    columns = np.stack(list(known.values()), axis=1)
    return Scores(tuple(known), columns[0], columns[1:])


def table(scores: Mapping[str, Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of L losses as arrays over the union of their S seeds.

    Resamples in which the metric of any run is undefined are left out.

    Returns:
        The scores on all images, [L, S], NaN for a missing run; and the covariance of all runs over
        the resamples, [L * S, L * S], NaN if fewer than two resamples are left.

    Raises:
        ValueError: the numbers of resamples differ.
    """
    seeds = list(dict.fromkeys(seed for own in scores.values() for seed in own.seeds))
    draws = {label: len(own.resampled) for label, own in scores.items()}
    if len(set(draws.values())) > 1:
        counts = ", ".join(f"{label} {count}" for label, count in draws.items())
        raise ValueError(f"all variants need the same resamples, got different numbers: {counts}")
    full = np.full((len(scores), len(seeds)), np.nan)
    resampled = np.zeros((next(iter(draws.values())), *full.shape))
    for row, own in enumerate(scores.values()):
        columns = [seeds.index(seed) for seed in own.seeds]
        full[row, columns] = own.full
        resampled[:, row, columns] = own.resampled
    flat = resampled.reshape(len(resampled), -1)
    flat = flat[~np.isnan(flat).any(axis=1)]
    if len(flat) < 2:
        return full, np.full((full.size, full.size), np.nan)
    return full, np.atleast_2d(np.cov(flat, rowvar=False))


@dataclass(frozen=True, eq=False)
class Estimates:
    r"""Differences of all pairs of L losses, with the two parts of their variance.

    Arrays [..., r, j] are of loss j minus loss r, the reference. Leading dimensions are independent
    comparisons.

    Attributes:
        means: [..., L], the losses' least-squares means. With all runs they are plain means;
            otherwise those of the model loss + seed, so that a loss is not ranked by which seeds it
            has.
        own: [..., L, L], :math:`s_j^2`, variance of the per-seed differences over the common seeds;
            0 where there are fewer than two.
        common: [L, L], :math:`S_j`, numbers of common seeds.
        share: [L, L], variance of the difference as a part of the variance of a per-seed
            difference: 1 / S with all runs; with folds more, see :func:`estimate`.
        image: [..., L, L], :math:`v_c`, variance of the difference over images.
        images: I, number of images.
    """

    means: np.ndarray
    own: np.ndarray
    common: np.ndarray
    share: np.ndarray
    image: np.ndarray
    images: int

    @property
    def value(self) -> np.ndarray:
        """[..., L, L], the differences."""
        return self.means[..., None, :] - self.means[..., :, None]

    @property
    def pooled(self) -> np.ndarray:
        r"""[..., L]: the variance of a per-seed difference to each reference, pooled.

        .. math::
            V = \sum_j (S_j - 1) s_j^2 / \sum_j (S_j - 1)

        A reference without two common seeds has the mean of the other references; 0 if no two
        losses have two common seeds.
        """
        free = self._free
        total = free.sum(axis=-1)
        found = (free * self.own).sum(axis=-1) / np.maximum(total, 1)
        known = total > 0
        others = found[..., known].mean(axis=-1) if known.any() else np.zeros(found.shape[:-1])
        return np.where(known, found, others[..., None])

    @property
    def df(self) -> np.ndarray:
        r"""[L]: degrees of freedom of :attr:`pooled`; NaN if no two losses have two common seeds.

        .. math::
            \nu = 4 \sum_j (S_j - 1) / (k + 3)

        for k losses beside the reference that have two seeds in common with it. Differences to one
        reference have the correlation 1/2, and their squares 1/4, so that the mean of k variances
        has a variance of (1 + (k - 1) / 4) / k of a single one's (Satterthwaite, 1946).
        """
        free = self._free
        pairs = (free > 0).sum(axis=-1)
        found = 4 * free.sum(axis=-1) / (pairs + 3)
        known = pairs > 0
        return np.where(known, found, found[known].min() if known.any() else np.nan)

    def seed(self, pooled: np.ndarray) -> np.ndarray:
        r"""Return [..., L, L], :math:`v_1`: the variance of the differences over seeds.

        A loss that is noisier than the others has the pooled variance raised towards its own, with
        the weight of four degrees of freedom for the pooled one. Pooling alone would give up to 21%
        false positives.

        .. math::
            V_j = \max\left(V, \frac{4 V + (S_j - 1) s_j^2}{S_j + 3}\right), \qquad
            v_1 = V_j / S_j

        Args:
            pooled: V, in a shape that broadcasts with [..., L, L].
        """
        free = self._free
        own = (4 * pooled + free * self.own) / (free + 4)
        return np.maximum(pooled, own) * self.share

    @property
    def _free(self) -> np.ndarray:
        free = np.maximum(self.common - 1, 0)
        return free - np.diag(np.diag(free))


def estimate(
    full: np.ndarray, covariance: np.ndarray | None, images: int, overlap: float = 0.0
) -> Estimates:
    r"""Estimate all differences and the parts of their variance.

    The variance over images comes from resamples b of the images (pigeonhole bootstrap). With
    :math:`D_{bs}` the difference in seed s on resample b,

    .. math::
        v_c = \max\left(0, \mathrm{var}_b(\bar D_b)
              - \frac{\sum_s \mathrm{var}_b(D_{bs} - \bar D_b)}{S (S - 1)}\right)

    The second term removes the noise of single images in single runs, which the variance over seeds
    contains already. A pair with one common seed uses the mean of that term over the other pairs.

    If each run is evaluated on images of its own (folds), the variance over runs contains the one
    over images: :math:`v_c = 0`. It is too small, because the training sets of the runs have images
    in common. Nadeau and Bengio correct it by the ratio of the numbers of images:

    .. math::
        v_1 = V_j \left(\frac{1}{S_j} + \frac{n_\mathrm{test}}{n_\mathrm{train}}\right)

    Args:
        full: [..., L, S], scores on all images. NaN is a missing run; the same runs are missing in
            all leading dimensions.
        covariance: [..., L * S, L * S], of the runs over resamples of the images; None without
            image noise.
        images: number of images.
        overlap: :math:`n_\mathrm{test} / n_\mathrm{train}`, with folds; 0 if all runs are
            evaluated on the same images.

    Raises:
        InputError: losses are not connected by common seeds.

    References: A. B. Owen, "The Pigeonhole Bootstrap", Annals of Applied Statistics 1 (2007);
    C. Nadeau and Y. Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003).
    """
    losses, seeds = full.shape[-2:]
    there = ~np.isnan(full.reshape(-1, losses, seeds)[0])
    weights = _least_squares(there)
    filled = np.where(there, full, 0.0)
    both = there[:, None] & there[None]
    common = both.sum(axis=-1)
    n = np.maximum(common, 1)
    per_seed = np.where(both, filled[..., None, :, :] - filled[..., :, None, :], 0)
    centred = np.where(both, per_seed - (per_seed.sum(axis=-1) / n)[..., None], 0)
    own = (centred**2).sum(axis=-1) / np.maximum(common - 1, 1)
    contrast = weights[None] - weights[:, None]
    share = (contrast**2).sum(axis=-1) / 2
    means = (weights @ filled.reshape(*filled.shape[:-2], -1, 1))[..., 0]
    if there.all():
        means = full.mean(axis=-1)  # the same without rounding
    own = np.where(own < _NOTHING, 0, own)
    image = np.zeros_like(own)
    others = 1 - np.eye(losses, dtype=int)
    if overlap and (common * others).max() > 1:
        share = share + overlap * others
    elif covariance is not None:
        image = _image_variance(covariance, weights, both, share)
    return Estimates(means, own, common, share, image, images)


def _least_squares(there: np.ndarray) -> np.ndarray:
    """Return the weights of the runs in the least-squares mean of each loss, [L, L * S]."""
    losses, seeds = there.shape
    if there.all():
        return np.repeat(np.eye(losses), seeds, axis=1) / seeds
    loss, seed = np.nonzero(there)
    design = np.zeros((len(loss), losses + seeds))
    design[np.arange(len(loss)), loss] = 1
    design[np.arange(len(loss)), losses + seed] = 1
    if np.linalg.matrix_rank(design) < losses + seeds - 1:
        raise InputError(
            "the variants are not connected by common seeds: run all of them with the same seeds"
        )
    effects = np.linalg.pinv(design)
    weights = np.zeros((losses, losses * seeds))
    weights[:, loss * seeds + seed] = effects[:losses] + effects[losses:].mean(axis=0)
    return weights


def _image_variance(
    covariance: np.ndarray, weights: np.ndarray, both: np.ndarray, share: np.ndarray
) -> np.ndarray:
    losses, seeds = both.shape[0], both.shape[-1]
    of_means = weights @ covariance @ weights.T
    variance = _of_differences(of_means)
    cells = covariance.reshape(*covariance.shape[:-2], losses, seeds, losses, seeds)
    cells = np.moveaxis(cells, -2, -3)  # [..., L, L, S, S]
    per_seed = _of_differences(np.moveaxis(cells, (-2, -1), (-4, -3)))  # [..., S, S, L, L]
    per_seed = np.moveaxis(per_seed, (-4, -3), (-2, -1)) * (both[..., :, None] & both[..., None, :])
    common = both.sum(axis=-1)
    own = np.trace(per_seed, axis1=-2, axis2=-1) - per_seed.sum(axis=(-2, -1)) / np.maximum(
        common, 1
    )
    free = np.maximum(common - 1, 0) * (1 - np.eye(losses, dtype=int))
    usual = (own * (free > 0)).sum(axis=(-2, -1)) / max(free.sum(), 1)
    single = np.where(free > 0, own / np.maximum(free, 1), usual[..., None, None])
    found = np.maximum(variance - share * single, 0)
    return np.where(found < _NOTHING, 0, found)


def _of_differences(covariance: np.ndarray) -> np.ndarray:
    """Return the variances of all differences, [..., L, L], of variables with that covariance."""
    diagonal = np.diagonal(covariance, axis1=-2, axis2=-1)
    crossed = covariance + np.swapaxes(covariance, -2, -1)
    return diagonal[..., None, :] + diagonal[..., :, None] - crossed
