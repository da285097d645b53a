"""From a probability map to a mask: a rule is a threshold, optional gates and morphology steps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.base.errors import UserError
from lib.base.files import read_json
from lib.masks import morphology
from lib.masks.metrics import planes

NO_MASK = 256  # a threshold that no map reaches: every mask is empty

# In the order in which steps are applied: the operation, and its name with a place for the size, if it has one.
STEPS = {
    "opening": (morphology.opening, "opening {}"),
    "closing": (morphology.closing, "closing {}"),
    "dilation": (morphology.dilation, "dilation {}"),
    "erosion": (morphology.erosion, "erosion {}"),
    "fill": (morphology.fill_holes, "fill holes <={}"),
    "remove": (morphology.remove_small, "remove <{}"),
    "largest": (morphology.keep_largest, "largest only"),
    "hull": (morphology.convex_hulls, "convex hull"),
}


@dataclass(frozen=True)
class Step:
    """One morphology step. `size` is a radius in pixels (opening, closing, dilation, erosion), an area in pixels
    (fill: largest hole filled, None for any; remove: smallest component kept) or None (largest, hull)."""

    name: str
    size: int | None = None

    def apply(self, mask: np.ndarray) -> np.ndarray:
        operation, _ = STEPS[self.name]
        return operation(mask) if self.size is None else operation(mask, self.size)

    def __str__(self) -> str:
        if self.name == "fill" and self.size is None:
            return "fill holes"
        return STEPS[self.name][1].format(self.size)


def apply_steps(steps: tuple[Step, ...], image: np.ndarray) -> np.ndarray:
    """Apply the steps in turn to a mask or, for radius steps, a map; uint8 (height, width)."""
    for step in steps:
        image = step.apply(image)
    return image


def at_least(probability_map: np.ndarray, level: int) -> np.ndarray:
    """Mask uint8 0/1 of the pixels of a uint8 map, of any shape, that reach a level; above 255 no pixel does.

    Levels above 255 are not compared: numpy before 2.2 crashes (SIGSEGV) when it compares a view of bytes with one.
    """
    if level > 255:
        return np.zeros(probability_map.shape, np.uint8)
    return (probability_map >= level).view(np.uint8)


@dataclass(frozen=True)
class Gate:
    """The mask is empty unless at least `area` pixels of the map reach `top`."""

    top: int
    area: int

    def opens(self, probability_map: np.ndarray) -> bool:
        return np.count_nonzero(at_least(probability_map, self.top)) >= self.area

    def __str__(self) -> str:
        return f"empty unless {self.area} px >= {self.top}"


@dataclass(frozen=True)
class Rule:
    """From a map of one class to its mask. With a gate and no steps it is the triplet (top, area, bottom) of the
    winners of SIIM-ACR Pneumothorax Segmentation, `threshold` being the bottom. The gate decides on the whole image
    and is no hysteresis: once it opens, components without a pixel above `top` stay."""

    threshold: int  # 1 ... 255, a pixel is mask where map >= threshold; or NO_MASK
    gate: Gate | None = None
    steps: tuple[Step, ...] = ()
    presence: int | None = None  # 1 ... 255: the mask is empty unless the predicted presence of the class reaches it

    def apply(self, probability_map: np.ndarray, presence: int | None = None) -> np.ndarray:
        """Mask uint8 0/1 of a uint8 map, both (height, width).

        `presence`, 0 to 255, is the predicted presence of the class in the image. Raises UserError if the rule requires
        it and it is None.
        """
        if self.is_shut(probability_map, presence):
            return np.zeros_like(probability_map)
        return apply_steps(self.steps, at_least(probability_map, self.threshold))

    def is_shut(self, probability_map: np.ndarray, presence: int | None) -> bool:
        """Whether presence or gate empty the mask, whatever the threshold; arguments and errors as in `apply`."""
        if self.presence is not None and presence is None:
            raise UserError(f"the rule '{self}' asks for presence, which these maps do not hold; run 03 and 04 again")
        is_absent = self.presence is not None and presence < self.presence
        return is_absent or self.gate is not None and not self.gate.opens(probability_map)

    @property
    def is_empty(self) -> bool:
        """Whether every mask is empty, whatever the map."""
        return self.threshold >= NO_MASK

    def __str__(self) -> str:
        if self.is_empty:
            return "no mask at all"
        presence = [] if self.presence is None else [f"empty where presence < {self.presence}"]
        gate = [str(self.gate)] if self.gate else []
        return ", ".join([f"t={self.threshold}", *presence, *gate, *map(str, self.steps)])

    def to_dict(self) -> dict:
        """For JSON; `from_dict` reads it back."""
        return {
            "name": str(self),
            "threshold": self.threshold,
            "gate": vars(self.gate) if self.gate else None,
            "steps": [vars(step) for step in self.steps],
            **({} if self.presence is None else {"presence": self.presence}),
        }

    @classmethod
    def from_dict(cls, content: dict) -> "Rule":
        """The inverse of `to_dict`. Raises ValueError for impossible values."""
        gate = Gate(**content["gate"]) if content["gate"] else None
        steps = tuple(Step(**step) for step in content["steps"])
        rule = cls(content["threshold"], gate, steps, content.get("presence"))
        levels = [rule.threshold, *([gate.top] if gate else []), *([] if rule.presence is None else [rule.presence])]
        if not all(type(level) is int and 1 <= level <= NO_MASK for level in levels):
            raise ValueError(f"levels {levels} of a rule")
        if unknown := [step.name for step in rule.steps if step.name not in STEPS]:
            raise ValueError(f"steps {unknown} of a rule")
        return rule


def apply_rules(rules: Mapping[str, Rule], maps: np.ndarray, presence: np.ndarray | None = None) -> np.ndarray:
    """Masks uint8 0/1 of uint8 maps, both (height, width, classes), by rules in the order of the classes.

    `presence` (classes,) is needed by rules that require it. With ObjectRules the result is objects, int32.
    """
    presence = [None] * len(rules) if presence is None else presence.tolist()
    of_classes = zip(rules.values(), planes(maps), presence, strict=True)
    return np.stack([rule.apply(plane, of_class) for rule, plane, of_class in of_classes], axis=-1)


def read_rules(path: Path, classes: Iterable[str], kind: type = Rule) -> dict[str, Rule]:
    """The rule of each class, in the order given, from a threshold.json or postprocess.json.

    `kind` is ObjectRule for an objects.json. Raises UserError if a class has no rule, or one with impossible values.
    """
    try:
        choices = read_json(path)["classes"]
        return {name: kind.from_dict(choices[name]["rule"]) for name in classes}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} holds no rules; remove it and run the stage that writes it again") from None
