"""A fair recipe for each network: a grid of settings, the same budget for all, the choice made on validation alone."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.files import canonical_hash
from monai_thyroid.runfolder import evaluation_records, read_run

__all__ = ["Choice", "Setting", "Tuning", "choose", "diverged", "in_words", "setting_hash", "trial_score"]

Setting = dict[str, Any]
"""Values by the ids of options, as the command line takes them."""

MOST = 100
"""Settings of a grid: more is likely a mistake, and each is trained for each network."""

# What a grid cannot hold, and why.
_REFUSED = {
    **dict.fromkeys(
        ("network", "seed", "fold", "folds", "output_dir", "resume", "overwrite"), "is no part of a recipe"
    ),
    **dict.fromkeys(("max_epochs", "hours", "first_stage_epochs"), "is the budget, the same for all: --tune-epochs"),
    **dict.fromkeys(("device", "num_workers", "channels_last", "mlflow", "trust"), "changes no result, only its cost"),
    **dict.fromkeys(("score_test", "tuning"), "is set by the tuning itself"),
    **dict.fromkeys(
        (
            *("dataset_dir", "split_file", "split", "split_seed", "validation_fraction", "test_fraction", "stratify"),
            *("sites", "test_sites", "classes", "phantom_cases", "phantom_seed", "allow_empty_parts", "data"),
        ),
        "changes what is scored, and scores of other cases say nothing about a recipe",
    ),
}


@dataclass(frozen=True)
class Tuning:
    """What is tried for each network.

    Attributes:
        grid: values by option; all combinations are tried.
        seeds: with which each is trained.
        epochs: the most that each is trained for; None for as long as what is compared.
    """

    grid: dict[str, list[Any]]
    seeds: tuple[int, ...]
    epochs: int | None = None

    @classmethod
    def read(cls, texts: Sequence[str], *, seeds: Sequence[int], epochs: int | None = None) -> Tuning:
        """Read a grid from the command line.

        Args:
            texts: such as ``learning_rate=1e-4,3e-4,1e-3``, one an option. Values are read as those of options are;
                a comma within brackets or quotes parts none.
            seeds: at least 0 each.
            epochs: at least 1.

        Raises:
            UserError: an option is there twice or cannot be tuned, a value is empty or there twice, there is one value
                only; all that was found.
        """
        grid: dict[str, list[Any]] = {}
        problems: list[str] = []
        for text in texts:
            name, equals, values = text.partition("=")
            name = name.strip().lstrip("-").replace("-", "_").replace("#", "::")
            if not equals or not name:
                problems.append(f"--tune {text}: write NAME=VALUE,VALUE,..., such as learning_rate=1e-4,1e-3")
            elif name in grid:
                problems.append(f"--tune {name}: is there twice; give all its values at once")
            elif why := _REFUSED.get(name.split("::")[0]):
                problems.append(f"--tune {name}: cannot be tuned, it {why}")
            else:
                grid[name], wrong = _values(values)
                problems += [f"--tune {name}: {one}" for one in wrong]
        if not problems and (size := math.prod(map(len, grid.values()))) > MOST:
            problems.append(f"--tune: {size} settings of each network; give at most {MOST}")
        if epochs is not None and epochs < 1:
            problems.append(f"--tune-epochs {epochs}: give at least 1")
        problems += [] if seeds else ["--tune-seeds: give at least one"]
        problems += [f"--tune-seeds {seed}: give whole numbers of at least 0" for seed in seeds if seed < 0]
        problems += [
            f"--tune-seeds: {seed} is named twice" for seed in sorted({s for s in seeds if seeds.count(s) > 1})
        ]
        if problems:
            raise UserError(problems)
        return cls(grid, tuple(seeds), epochs)

    @property
    def settings(self) -> list[Setting]:
        """All combinations, the last option varying fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def record(self) -> dict[str, Any]:
        """Grid and budget, for a config: options are values here, no keys, for MONAI reads ``::`` in a key."""
        return {
            "grid": [{"option": name, "values": values} for name, values in self.grid.items()],
            "epochs": self.epochs,
            "seeds": list(self.seeds),
        }

    def trial(self, setting: Setting) -> dict[str, Any]:
        """What a trial's config says besides: its setting and budget, and that the test part is left alone."""
        budget = {} if self.epochs is None else {"max_epochs": self.epochs}
        return {**setting, **budget, "score_test": False}

    def tuned(self, choice: Choice) -> dict[str, Any]:
        """What the config of a network whose setting was chosen says besides."""
        record = {**self.record(), "tried": choice.tried(), "chosen": list(choice.setting.values())}
        return {**choice.setting, "tuning": record}


@dataclass(frozen=True)
class Choice:
    """What was tried for a network, and which setting is taken.

    Attributes:
        settings: in the grid's order.
        scores: of each setting and each seed the mean Dice on validation; None where the training diverged.
        taken: index of the setting with the best mean over seeds, the first of equal ones.
    """

    settings: Sequence[Setting]
    scores: Sequence[Sequence[float | None]]
    taken: int

    @property
    def setting(self) -> Setting:
        """The setting that is taken."""
        return self.settings[self.taken]

    def tried(self) -> list[dict[str, Any]]:
        """Each setting's values in the grid's order, its mean over seeds (None: it diverged) and the score of each."""
        return [
            {"values": list(setting.values()), "dice": _mean(scores), "dice_of_seeds": list(scores)}
            for setting, scores in zip(self.settings, self.scores, strict=True)
        ]

    def sentence(self) -> str:
        """The choice and all scores, in words."""
        told = [
            f"{in_words(setting)}: {'diverged' if (mean := _mean(scores)) is None else f'{mean:.4f}'}"
            for setting, scores in zip(self.settings, self.scores, strict=True)
        ]
        return f"{in_words(self.setting)} (Dice on validation: {'; '.join(told)})"


def choose(settings: Sequence[Setting], scores: Sequence[Sequence[float | None]]) -> Choice | None:
    """Take the setting whose mean over seeds is best; None where every one of them has a seed that diverged."""
    means = [_mean(one) for one in scores]
    known = [index for index, mean in enumerate(means) if mean is not None]
    if not known:
        return None
    return Choice(settings, scores, max(known, key=lambda index: (means[index], -index)))


def trial_score(path: Path) -> float | None:
    """Mean Dice over cases and classes of a trial on its validation part, on the original grid; None: it diverged.

    Raises:
        UserError: it has no such score.
    """
    record = read_run(path)
    if diverged(path):
        return None
    for one in evaluation_records(path):
        same = one.data_hash == record.data_hash and one.checkpoint_sha256 == record.checkpoint_sha256
        if one.part == "validation" and same and one.classes:
            return float(np.mean([one.classes[name]["dice_mean"] for name in record.classes or []]))
    raise UserError(f"{path}: has no scores of its validation part")


def diverged(path: Path) -> bool:
    """Whether a training ended because its loss was no finite number any more, which is an answer to a trial."""
    record = read_run(path)
    return record.status == "failed" and (record.error or "").startswith("FloatingPointError")


def in_words(setting: Setting) -> str:
    """Such as ``learning_rate 0.001, batch_size 8``."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def setting_hash(setting: Setting) -> str:
    """Names the folder of its trials."""
    return canonical_hash(setting)[:8]


def _mean(scores: Sequence[float | None]) -> float | None:
    found = [one for one in scores if one is not None]
    return float(np.mean(found)) if found and len(found) == len(scores) else None


def _values(text: str) -> tuple[list[Any], list[str]]:
    from fire.parser import DefaultParseValue

    values: list[Any] = []
    problems: list[str] = []
    for word in _parted(text):
        if not word:
            problems.append("a value is empty")
            continue
        if re.match(r"[A-Za-z_][\w:]*=", word):
            problems.append(f"{word}: give each option a --tune of its own")
            continue
        value = word if "#" in word else DefaultParseValue(word)
        if isinstance(value, str) and ("#" in value or value[0] in "$@%"):
            problems.append(f"{word}: give a plain value, no expression or reference")
        elif any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values):
            problems.append(f"{word} is there twice")
        else:
            values.append(value)
    if not problems and len(values) < 2:
        problems.append("has one value only; give several, or make it an option of every run")
    return values, problems


def _parted(text: str) -> list[str]:
    """Part at commas, but for those within brackets or quotes."""
    words, word, open_, quote = [], "", 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "([{":
            open_ += 1
        elif sign in ")]}":
            open_ -= 1
        if sign == "," and not quote and open_ <= 0:
            words.append(word.strip())
            word = ""
        else:
            word += sign
    return [*words, word.strip()]
