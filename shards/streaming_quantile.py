"""A quantile of a stream in one number, without a window and without sorting. Pure.

Source: Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating Quantiles", 2013, section 4; here in
steps that are shares of the estimate, as latencies differ by orders of magnitude.
"""

GAIN = 0.2
"""How far one sample moves the estimate: a smaller one is calmer, a larger one follows sooner."""

_LEAST = 1e-6


def updated(estimate: float | None, sample: float, *, quantile: float, gain: float = GAIN) -> float:
    """Return the estimate after one more sample; None before the first, which is taken as it is.

    Where a share `quantile` of the samples lies below the estimate, steps up and down cancel out. Both are
    positive, in any unit.
    """
    if estimate is None:
        return max(sample, _LEAST)
    if sample > estimate:
        return estimate * (1.0 + gain * quantile)
    return max(estimate * (1.0 - gain * (1.0 - quantile)), _LEAST)
