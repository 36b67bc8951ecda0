"""How much memory something takes, measured as the benches do."""

from bench import peaks

held = peaks.held


def peak_of(run, device="cpu"):
    """See `bench.peaks.peak_of`; something must have been given out."""
    peak = peaks.peak_of(run, device)
    assert device == "cuda" or peak > 0
    return peak
