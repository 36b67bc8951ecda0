"""How reliable each person is, by the labels alone. Pure but for the libraries, which are slow to import: for a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from webapp.quality.consensus import Reliability

PRIOR_LABELS = 8  # pseudo-labels that draw a person's rates towards ACCURACY while there are few real ones
ACCURACY = 0.75
LEAST, MOST = 0.5, 0.99  # nobody's word counts for its opposite, and nobody's is final
MEASURED_AFTER = 20  # shared labels before a person's reliability is used


@dataclass(frozen=True)
class Fitted:
    """Each person's rates, Krippendorff's alpha and the share of liked images. Where everybody says the same of everything
    there are no rates, and alpha is not defined."""

    rates: dict[int, Reliability] = field(default_factory=dict)
    alpha: float | None = None
    prior: float = 0.5


def fit(rows: Sequence[tuple[int, int, bool]]) -> Fitted:
    """By the model of Dawid and Skene (1979), of (image, person, liked) of images with more than one rater."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene
    from crowdkit.metrics.data import alpha_krippendorff

    frame = pd.DataFrame(rows, columns=["task", "worker", "label"])
    if frame["label"].nunique() < 2:
        return Fitted()
    fitted = DawidSkene(n_iter=50).fit(frame)
    prior = float(fitted.priors_.get(True, 0.5))
    likely = fitted.probas_[True]  # P(liked) of each image
    frame["p"] = frame["task"].map(likely)
    rates = {}
    for user, part in frame.groupby("worker"):
        liked, disliked = part["p"].sum(), (1 - part["p"]).sum()
        rates[int(user)] = Reliability(
            _rate(part.loc[part["label"], "p"].sum(), liked),
            _rate((1 - part.loc[~part["label"], "p"]).sum(), disliked),
        )
    alpha = alpha_krippendorff(frame[["task", "worker", "label"]])
    return Fitted(rates, alpha, min(0.95, max(0.05, prior)))


def _rate(right: float, total: float) -> float:
    """The share, drawn towards ACCURACY while there is little of it, within what a word may count for."""
    rate = (right + PRIOR_LABELS * ACCURACY) / (total + PRIOR_LABELS)
    return float(min(MOST, max(LEAST, rate)))
