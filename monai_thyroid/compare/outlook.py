"""What a comparison can find, in words."""

from __future__ import annotations

import math
from collections.abc import Callable

from monai_thyroid.compare.contents import plural
from monai_thyroid.compare.power import Outlook

__all__ = ["found_sentence", "outlook_sentence"]


def _told(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.3g}"


def found_sentence(one: Outlook, *, axis: str, planned: bool = False) -> str:
    """What the groups and seeds at hand find.

    Args:
        one: of them.
        axis: name of the score.
        planned: nothing was trained yet.
    """
    could = "can be" if planned else "could have been"
    of = f"{plural(one.networks, 'network')}, {plural(one.seeds, 'seed')} each, and {plural(one.groups, 'group')}"
    if one.detectable is None:
        return f"With {of} no difference of {axis} {could} found, however large."
    what = "of one network to another" if one.seeds > 1 else "between two of these weights"
    return (
        f"With {of} a difference of {axis} {what} of {_told(one.detectable)} {could} found with a probability "
        f"of {100 * one.power:.0f} %; smaller ones are more often missed than that."
    )


def outlook_sentence(
    one: Outlook, *, axis: str, form: Callable[[float | None], str] = lambda x: f"{x:.3g}", planned: bool = False
) -> str:
    """What can be found, from what, and how sure that is.

    Args:
        one: of a comparison.
        axis: name of the score.
        form: how a standard deviation is told.
        planned: nothing was trained yet.
    """
    c = one.components
    told = [found_sentence(one, axis=axis, planned=planned)]
    if one.seeds > 1:
        spread = f", of a training from seed to seed {form(c.spread)}"
        if c.spread_interval:
            low, high = c.spread_interval
            spread += f" (95 % interval {form(low)} to {form(high)})"
            if one.detectable_if_wide is not None:
                spread += f"; were it {form(high)}, the difference found would be {_told(one.detectable_if_wide)}"
        told.append(
            f"That comes of the standard deviations of {axis} a group: what one network finds easier than another "
            f"{form(c.interaction)}, and one training than the next {form(c.chance)}{spread}."
        )
    else:
        told.append(
            f"That comes of the standard deviation of {axis} a group between one network and another, "
            f"{form(math.hypot(c.interaction, c.chance))}. One seed a network tells nothing of the spread from one "
            "training to the next."
        )
    told.append(f"Taken from {c.source}, as if normal; the rule then is that of the claims, the other networks alike.")
    return " ".join(told)
