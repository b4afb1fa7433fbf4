"""Does a short series rise? Two tests that single outliers can't sway; pure.

Mann-Kendall asks whether later values tend to be higher than earlier ones (Mann, Econometrica 13,
1945; Kendall, Rank Correlation Methods), Theil-Sen by how much (Sen, JASA 63, 1968). Neither
assumes anything about the noise but that it doesn't lean one way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from statistics import median


def mann_kendall(values: Sequence[float]) -> float:
    """The test's z, positive for a rise: 3 and more comes by chance about once in a thousand times.

    Ties are allowed for; fewer than three values, or equal ones, give 0.
    """
    count = len(values)
    if count < 3:
        return 0.0
    score = sum((b > a) - (b < a) for a, b in combinations(values, 2))
    ties = sum(t * (t - 1) * (2 * t + 5) for t in Counter(values).values())
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    if variance <= 0 or score == 0:
        return 0.0
    # Corrected for continuity: a score moves in steps of two.
    return (score - math.copysign(1, score)) / math.sqrt(variance)


def theil_sen(values: Sequence[float]) -> float:
    """The median slope between any two of equally spaced values, per step; 0 for fewer than two."""
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(enumerate(values), 2)]
    return median(slopes) if slopes else 0.0
