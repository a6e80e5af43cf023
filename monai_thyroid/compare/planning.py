"""Before a comparison: how many patients and seeds it takes to find a difference, and what the planned one can find."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from monai_thyroid.compare import figures
from monai_thyroid.compare.contents import plural
from monai_thyroid.compare.outlook import outlook_sentence
from monai_thyroid.compare.power import (
    DEFAULT,
    MOST_GROUPS,
    MOST_SEEDS,
    Components,
    Outlook,
    curves,
    outlook,
    power,
    seeds_needed,
)
from monai_thyroid.compare.report import build
from monai_thyroid.compare.study import components_here
from monai_thyroid.errors import UserError

__all__ = ["plan_power", "plan_problems"]

_POWER = 0.8


def plan_problems(
    detect: float | None, *, power: float | None, like: Sequence[str], networks: int, plan: bool
) -> list[str]:
    """What is wrong with the options of a plan, all of it.

    Args:
        detect: the difference to be found; None: no such plan is asked for.
        power: the probability; None for 0.8.
        like: paths of runs.
        networks: to be compared.
        plan: whether a plan is asked for at all.
    """
    if detect is None:
        return [f"{name}: belongs to --detect" for name, given in (("--power", power), ("--like", like)) if given]
    problems = [] if plan else ["--detect: belongs to --plan, which trains nothing"]
    if not 0 < detect < 1:
        problems.append(f"--detect {detect:g}: give a difference of Dice, above 0 and below 1")
    if power is not None and not 0 < power < 1:
        problems.append(f"--power {power:g}: give a probability, above 0 and below 1")
    if networks < 2:
        problems.append("--detect: asks for a difference between networks; give two or more to --networks")
    problems += [f"--like {path}: there is no such folder" for path in like if not Path(path).is_dir()]
    return problems


def plan_power(
    detect: float,
    *,
    power: float | None = None,
    networks: int,
    seeds: int,
    groups: int,
    like: Sequence[str | os.PathLike[str]] = (),
    output: Path,
) -> str:
    """Say what a planned comparison can find and what a difference needs; writes power.png and power.svg.

    Args:
        detect: the difference of Dice to be found.
        power: with which probability; None for 0.8.
        networks: planned.
        seeds: of each.
        groups: that will be tested.
        like: run folders, or folders above them, whose variance components are taken; none: stated defaults.
        output: folder of the figure, made where it is lacking.

    Raises:
        UserError: the runs cannot be used for that.
    """
    components = _components(like) if like else DEFAULT
    asked = _POWER if power is None else power
    one = outlook(
        components,
        networks=networks,
        seeds=seeds,
        groups=groups,
        power=asked,
        differences=[detect],
        most=1.0,
        draws=2000,
    )
    found = curves(one, difference=detect)
    output.mkdir(parents=True, exist_ok=True)
    figures.power_curves(
        output,
        "power",
        differences=found.differences,
        power=found.power,
        groups=found.groups,
        detectable=found.detectable,
        asked=asked,
        here=groups,
        difference=detect,
        axis="Dice",
    )
    return "\n".join([*_told(one, detect), f"Curves: {output / 'power.png'}"])


def _components(like: Sequence[str | os.PathLike[str]]) -> Components:
    """Of the runs; of several datasets or classes those that ask for most."""
    found, problems = [], []
    for analysis in build([Path(path) for path in like], images=False).analyses:
        study = analysis.study
        components = components_here(analysis) if analysis.architectures else None
        if components is None:
            why = " ".join(analysis.architecture_notes)
            problems.append(
                f"--like: the runs of {study.dataset} ({study.name}) do not tell the spreads, which takes two networks "
                f"of two common seeds or more that did not collapse. {why}".strip()
            )
        elif components.total == 0:
            problems.append(f"--like: the runs of {study.dataset} ({study.name}) all score alike, which is no spread")
        else:
            found.append(components)
    if problems:
        raise UserError(problems)
    return max(found, key=lambda one: one.interaction**2 + one.chance**2 + one.spread**2)


def _told(one: Outlook, detect: float) -> list[str]:
    planned = power(one.components, networks=one.networks, seeds=one.seeds, groups=one.groups, difference=detect)
    what = f"a difference of {detect:g} Dice between two of {one.networks} networks"
    lines = [
        f"Planned, {plural(one.groups, 'group')} under test and {plural(one.seeds, 'seed')} each: {what} is found with"
    ]
    lines[0] += f" a probability of {_share(planned)}."
    lines.append(outlook_sentence(one, axis="Dice", planned=True))
    needed = seeds_needed(one.components, networks=one.networks, groups=one.groups, difference=detect, power=one.power)
    least = f"{needed} seeds each" if needed else f"no number of seeds up to {MOST_SEEDS}"
    lines.append(f"To find it with a probability of {_share(one.power)}: with these {one.groups} groups, {least};")
    for row in one.table:
        count = (
            f"no number of groups up to {MOST_GROUPS:,}" if row.groups[0] is None else plural(row.groups[0], "group")
        )
        what = " (of the weights in hand only)" if row.seeds == 1 else ""
        lines.append(f"  with {plural(row.seeds, 'seed')} each, {count}{what}")
    if one.seeds == 1:
        lines.append("One seed allows no claim about architectures; what is told of it is about the weights in hand.")
    return lines


def _share(probability: float) -> str:
    return f"{math.floor(1000 * probability + 0.5) / 10:g} %"
