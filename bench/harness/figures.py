"""Medians, spreads, and intervals of ratios."""

import random


def median(values):
    values = sorted(values)
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def ratio_interval(values, baseline, draws=2000, seed=1):
    """The ratio of the medians, and the 95 % interval of its bootstrap.

    The rounds are drawn, and not the values: what the machine did in a round happened to both.
    """
    rounds = [(v, b) for v, b in zip(values, baseline) if v is not None and b]
    if not rounds:
        return None
    source = random.Random(seed)
    ratios = []
    for _ in range(draws):
        drawn = [source.choice(rounds) for _ in rounds]
        ratios.append(median([v for v, _ in drawn]) / median([b for _, b in drawn]))
    ratios.sort()
    center = median([v for v, _ in rounds]) / median([b for _, b in rounds])
    return center, ratios[int(draws * 0.025)], ratios[int(draws * 0.975)]
