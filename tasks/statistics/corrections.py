r"""p values of a family of tests, corrected for how many they are.

    Holm                    p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j)),  p_(1) <= ... <= p_(m)
    Benjamini-Hochberg      p'_(i) = min over j >= i of min(1, m p_(j) / j)

At a level a, Holm's rule keeps the chance of *any* false alarm in the family below a, whatever the
tests have to do with each other; that of Benjamini and Hochberg keeps the expected *share* of false
alarms among the alarms below a.

Source: Holm, Scand. J. Stat. 6, 1979; Benjamini & Hochberg, J. R. Stat. Soc. B 57, 1995.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CORRECTIONS = ("holm", "benjamini-hochberg")


def corrected(p: Array, method: str = "holm") -> Array:
    """The p values of one family as they are after the correction.

    Args:
        p: what the tests gave ``[test]``, without NaN.
        method: one of `CORRECTIONS`.

    Returns:
        The corrected values ``[test]``, in the order given.
    """
    if method == "benjamini-hochberg":
        from scipy.stats import false_discovery_control

        return np.asarray(false_discovery_control(p, method="bh")) if len(p) else p
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(steps, 1.0)
    return found
