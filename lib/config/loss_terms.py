"""The formula of the loss, read without torch so that a mistake in the settings is answered at once."""

import difflib
import re

TERMS = ("bce", "border_bce", "dice", "tversky", "focal_tversky", "focal", "lovasz", "boundary")
WEIGHTED_TERM = re.compile(r"(?:(?P<weight>\d+\.?\d*|\.\d+)\s*\*\s*)?(?P<name>[A-Za-z_]\w*)")


def parse_terms(formula: str) -> dict[str, float]:
    """Read a weighted sum such as `dice + focal + 0.1*boundary` into {term: weight}, in the order written.

    Raises ValueError for anything that is not such a sum, an unknown or repeated term, or a weight of zero.
    """
    weights = {}
    for part in formula.split("+"):
        match = WEIGHTED_TERM.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"'{part.strip()}' is not a term; write a sum such as dice + focal + 0.1*boundary")
        name, weight = match["name"], float(match["weight"] or 1)
        if name not in TERMS:
            raise ValueError(f"unknown term '{name}'{_nearest(name)}; known: {', '.join(TERMS)}")
        if name in weights:
            raise ValueError(f"term '{name}' stands twice; add its weights up")
        if weight == 0:
            raise ValueError(f"term '{name}' has weight 0; leave it out")
        weights[name] = weight
    return weights


def _nearest(name: str) -> str:
    nearest = difflib.get_close_matches(name.lower(), TERMS, n=1)
    return f", did you mean '{nearest[0]}'?" if nearest else ""
