"""Does it help to annotate first what a model is least sure of? Annotation replayed, with masks that are there already.

Run: ``python benchmarks/active.py --dataset-dir DIR --output docs/results/active [--seeds 0,1,2] [--size 96]``

DIR is in TN3K's layout. All of its training part is the pool: 20 images of it, the same for every strategy of a seed,
are "annotated" to begin with, then in each round 20 more, chosen from the rest by

- ``uncertain``: those whose masks of image and mirror image agree least (`monai_thyroid.deploy.learning.disagreement`),
- ``random``: by chance,
- ``first``: in the order of their names, in which images of one patient are neighbours.

After each round the network trains on from what it was, for a fixed number of steps, with the augmentation of the
strong recipe, and is scored on the official test part, on the original grid; no test image is of a patient in the pool.
The seed decides weights, first images, chance and augmentation. Nothing is chosen on a validation part.

Writes ``active.csv`` after each training (a part of a replay is usable), ``summary.csv``, ``active.png`` and
``about.json``; with ``--summarise`` only the last three are made from the first, also while a replay goes on.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Resized
from scipy.stats import t as student
from strong_recipe import DATASETS

from monai_thyroid.data import ResidentDataset, ResidentLoader, load_datalist
from monai_thyroid.data.layouts.listing import natural_key
from monai_thyroid.deploy.learning import disagreement
from monai_thyroid.evaluation import AutocastInferer, default_precision
from monai_thyroid.evaluation.environment import machine, versions
from monai_thyroid.files import atomic_path, read_csv, write_csv, write_json
from monai_thyroid.images import read_mask
from monai_thyroid.metrics import METRICS
from monai_thyroid.metrics.registry import Counts, evaluate
from monai_thyroid.networks import EncoderUNet
from monai_thyroid.training import WeightAverage, decay_groups
from monai_thyroid.transforms import BatchAugmentation, LoadMaskd, LoadScand

STRATEGIES = ("uncertain", "random", "first")
COLUMNS = [
    *("seed", "strategy", "round", "labelled", "patients", "test_dice", "test_misses", "n_test"),
    *("pool_unmarked", "cpu_seconds"),
]
SUMMARY = ["labelled", "strategy", "seeds", "test_dice", "low", "high", "gain_over_random", "gain_low", "gain_high"]


class Learner:
    """A network that is trained on and on; what is delivered, and goes on, is the average of its weights."""

    def __init__(self, args: argparse.Namespace, seed: int, statistics: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        self.args, self.seed, self.statistics, self.rounds = args, seed, statistics, 0
        if args.network == "unet":
            self.network: torch.nn.Module = UNet(
                spatial_dims=2, in_channels=1, out_channels=1, channels=(16, 32, 64, 128, 128), strides=(2, 2, 2, 2)
            )
        else:
            self.network = EncoderUNet(encoder=args.network, in_channels=1, out_channels=1, weights=None)
        self.inferer = AutocastInferer(device="cpu", precision=args.precision)

    def state(self) -> dict[str, Any]:
        """What training on depends on."""
        return {"rounds": self.rounds, "network": self.network.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.rounds = state["rounds"]
        self.network.load_state_dict(state["network"])

    def train(self, dataset: ResidentDataset, steps: int) -> None:
        """Train for a number of steps with a warm-up and a cosine of their own."""
        args, self.rounds = self.args, self.rounds + 1
        seed = 1000 * self.seed + self.rounds
        augmentation = BatchAugmentation(seed=seed, **DATASETS["thyroid"]["augmentation"])
        batches = endless(dataset, augmentation, batch_size=args.batch_size, seed=seed, statistics=self.statistics)
        loss = DiceCELoss(sigmoid=True)
        average, _ = fit(
            self.network,
            ((batch, slice(None), loss) for batch in batches),
            steps=steps,
            learning_rate=args.learning_rate,
            inferer=self.inferer,
        )
        self.network = copy.deepcopy(average).requires_grad_(True)

    @torch.no_grad()
    def views(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities of images and of their mirror images, mirrored back: (2, N, width, height)."""
        self.network.eval()
        mean, std = self.statistics["mean"][0], self.statistics["std"][0]
        found = []
        for batch in images.split(32):
            given = (batch.float() / 255 - mean) / std
            plain = self.inferer(given, self.network).sigmoid()
            mirrored = self.inferer(given.flip(2), self.network).sigmoid().flip(2)
            found.append(torch.stack([plain, mirrored])[:, :, 0])
        return torch.cat(found, dim=1)


def endless(
    dataset: ResidentDataset, augmentation: Any, *, batch_size: int, seed: int, statistics: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Batches of a dataset, an epoch after the other."""
    loader = ResidentLoader(
        dataset, batch_size=batch_size, seed=seed, shuffle=True, drop_last=True, augmentation=augmentation,
        **statistics,
    )  # fmt: skip
    for epoch in itertools.count(1):
        loader.set_epoch(epoch)
        yield from loader


def fit(
    network: torch.nn.Module,
    batches: Iterator[tuple[dict[str, Any], slice, torch.nn.Module]],
    *,
    steps: int,
    learning_rate: float,
    inferer: AutocastInferer,
    tell: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[torch.nn.Module, float]:
    """Train by the strong recipe, in place; the averaged network, and the mean loss of the last tenth of the steps.

    ``batches`` gives each batch with the channels of the output that it is about, and its loss; ``tell`` is told each
    step and the mean loss of the last hundred.
    """
    optimizer = torch.optim.AdamW(decay_groups(network, 0.05), lr=learning_rate)
    average = WeightAverage(network, decay=0.99)
    network.train()
    warm, losses = max(1, steps // 10), []
    for step in range(steps):
        batch, channels, loss_function = next(batches)
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / warm) * cosine
        optimizer.zero_grad(set_to_none=True)
        loss = loss_function(inferer(batch["image"], network)[:, channels], batch["label"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average(None)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the training loss became {losses[-1]} in step {step + 1}")
        tell(step + 1, float(np.mean(losses[-100:])))
    return average.network, float(np.mean(losses[-max(1, steps // 10) :]))


def scored(probabilities: torch.Tensor, references: list[np.ndarray]) -> list[tuple[float, bool]]:
    """Dice of each image on its original grid by the scoring policy, and whether nothing of its object was found."""
    found = []
    for one, reference in zip(probabilities, references, strict=True):
        height, width = reference.shape
        grid = F.interpolate(one[None, None].float(), size=(width, height), mode="bilinear", align_corners=False)
        counts = Counts.of(reference, (grid[0, 0] > 0.5).numpy().T)
        found.append((float(evaluate(METRICS["dice"], counts)), counts.tp == 0))
    return found


def replay(args: argparse.Namespace) -> None:
    """All seeds and strategies, a round at a time, so that what there is at any moment is complete up to a round."""
    recipe = DATASETS["thyroid"]
    data = load_datalist(args.dataset_dir, layout=recipe["layout"], classes=recipe["classes"])
    pool = sorted([*data.part("train"), *data.part("validation")], key=lambda item: natural_key(item["case"]))
    test = data.part("test")
    size = (args.size, args.size)
    loading = [
        LoadScand("image", channels=1),
        Resized("image", spatial_size=size, mode="bilinear", anti_aliasing=True),
        LoadMaskd("label", classes=recipe["classes"]),
        Resized("label", spatial_size=size, mode="nearest"),
    ]
    everything, held_out = ResidentDataset(pool, loading), ResidentDataset(test, loading)
    references = [read_mask(item["label"]) for item in test]
    about = {
        "dataset": data.name,
        "data_hash": data.inspect().data_hash,
        "split": "test: official part; pool: all else; no patient in both",
        "pool": {"images": len(pool), "patients": len({item["group"] for item in pool})},
        "test": {"images": len(test), "patients": len({item["group"] for item in test})},
        "options": {
            name: value
            for name, value in vars(args).items()
            if name not in ("output", "dataset_dir", "state", "summarise")
        },
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(args.output / "about.json", json.loads(json.dumps(about, default=str)))
    kept = torch.load(args.state, weights_only=True) if args.state and args.state.is_file() else None
    if kept and kept["about"] != json.dumps(about["options"], default=str):
        raise SystemExit(f"{args.state}: is of a replay with other options")
    rows: list[dict[str, Any]] = kept["rows"] if kept else []
    labelled: dict[str, list[int]] = kept["labelled"] if kept else {}
    seeds = [int(seed) for seed in args.seeds.split(",")]
    learners: dict[str, Learner] = {}
    statistics: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        start = sorted(int(one) for one in np.random.default_rng(seed).permutation(len(pool))[: args.start])
        statistics[seed] = subset(everything, start).statistics()
        for name in STRATEGIES:
            key = f"{seed}-{name}"
            labelled.setdefault(key, start)
            learners[key] = Learner(args, seed, statistics[seed])
            if kept and key in kept["learners"]:
                learners[key].load(kept["learners"][key])
    done = {(row["round"], row["seed"], row["strategy"]) for row in rows}
    for step, seed, name in itertools.product(range(args.rounds + 1), seeds, STRATEGIES):
        if (step, seed, name) in done:
            continue
        key, begun, unmarked = f"{seed}-{name}", time.process_time(), None
        learner, own = learners[key], labelled[key]
        if step == 0 and name != STRATEGIES[0]:  # all begin with the same
            learner.load(learners[f"{seed}-{STRATEGIES[0]}"].state())
        else:
            if step:
                rest = sorted(set(range(len(pool))) - set(own))
                if name == "uncertain":
                    chosen, unmarked = least_agreed(learner, everything.images[rest], rest, args.step)
                elif name == "random":
                    draws = np.random.default_rng([seed, step])
                    chosen = [int(index) for index in draws.choice(rest, args.step, replace=False)]
                else:
                    chosen = rest[: args.step]
                own = labelled[key] = sorted([*own, *chosen])
            learner.train(subset(everything, own), args.steps if step else args.first_steps)
        found = scored(learner.views(held_out.images)[0], references)
        rows.append(
            {
                **{"seed": seed, "strategy": name, "round": step, "labelled": len(own)},
                "patients": len({pool[index]["group"] for index in own}),
                "test_dice": round(float(np.mean([dice for dice, _ in found])), 5),
                "test_misses": sum(missed for _, missed in found),
                "n_test": len(found),
                "pool_unmarked": unmarked,
                "cpu_seconds": round(time.process_time() - begun, 1),
            }
        )
        write_csv(args.output / "active.csv", COLUMNS, rows)
        print(json.dumps(rows[-1]), flush=True)
        if args.state:
            with atomic_path(args.state) as temporary:
                told = json.dumps(about["options"], default=str)
                states = {one: learner.state() for one, learner in learners.items()}
                torch.save({"about": told, "rows": rows, "labelled": labelled, "learners": states}, temporary)


def subset(dataset: ResidentDataset, indices: list[int]) -> ResidentDataset:
    """Some of a dataset's images."""
    return ResidentDataset.of_tensors(dataset.images[indices], dataset.labels[indices])


def least_agreed(learner: Learner, images: torch.Tensor, indices: list[int], count: int) -> tuple[list[int], int]:
    """The images whose masks agree least, equal ones by name; and in how many neither mask marks anything."""
    views = (learner.views(images) > 0.5).numpy().astype(np.uint8)
    scores = {index: disagreement(list(views[:, place]), classes=1) for place, index in enumerate(indices)}
    return sorted(indices, key=lambda index: (-scores[index], index))[:count], int((~views.any(axis=(0, 2, 3))).sum())


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval over seeds; no interval of one."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def summarise(output: Path) -> None:
    """The table, printed and as summary.csv, and the figure, of the rounds that all seeds and strategies have."""
    rows = read_csv(output / "active.csv")
    dice = {(int(row["labelled"]), row["strategy"], row["seed"]): float(row["test_dice"]) for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    counts = [
        count
        for count in sorted({int(row["labelled"]) for row in rows})
        if all((count, name, seed) in dice for name in STRATEGIES for seed in seeds)
    ]
    table: list[dict[str, Any]] = []
    for count, label in [*((count, str(count)) for count in counts), (0, "mean of later rounds")]:
        over = [count] if count else counts[1:]
        if not over:
            continue
        by_seed = {
            name: [float(np.mean([dice[one, name, seed] for one in over])) for seed in seeds] for name in STRATEGIES
        }
        for name in STRATEGIES:
            mean, low, high = interval(by_seed[name])
            differences = [a - b for a, b in zip(by_seed[name], by_seed["random"], strict=True)]
            gain = interval(differences) if name != "random" and count != counts[0] else (None, None, None)
            keys = {"labelled": label, "strategy": name, "seeds": len(seeds)}
            table.append(dict(zip(SUMMARY, [*keys.values(), *rounded(mean, low, high), *rounded(*gain)], strict=True)))
    write_csv(output / "summary.csv", SUMMARY, table)
    print(f"{'labelled':>21} {'strategy':>10}  test Dice (95 % t-interval, n={len(seeds)} seeds)   less random")
    for row in table:
        gain = row["gain_over_random"]
        told = "" if gain is None else f"{gain:+.3f}{between(row['gain_low'], row['gain_high'], '+.3f')}"
        score = f"{row['test_dice']:.3f}{between(row['low'], row['high'])}"
        print(f"{row['labelled']:>21} {row['strategy']:>10}  {score}".ljust(64) + told)
    draw(table, counts, dice, seeds, output / "active.png")


def between(low: float | None, high: float | None, form: str = ".3f") -> str:
    """An interval in words; nothing where one seed has none."""
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def rounded(*values: float | None) -> list[float | None]:
    """To four digits; what is no number is left out."""
    return [None if value is None or math.isnan(value) else round(value, 4) for value in values]


def draw(
    table: list[dict[str, Any]],
    counts: list[int],
    dice: dict[tuple[int, str, str], float],
    seeds: list[str],
    path: Path,
) -> None:
    """Mean over seeds against images annotated with its interval, each seed as a dot, and the differences."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    # Okabe and Ito's colours, and a shape and a dash each.
    looks = {
        "uncertain": ("#D55E00", "o", "-"),
        "random": ("#0072B2", "s", "--"),
        "first": ("#009E73", "^", ":"),
    }
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 7.5), sharex=True, height_ratios=[3, 2])
    width = (counts[1] - counts[0] if len(counts) > 1 else 20) / 10
    for number, name in enumerate(STRATEGIES):
        colour, shape, dash = looks[name]
        rows = [row for row in table if row["strategy"] == name and row["labelled"].isdigit()]
        places = np.array(counts) + (number - 1) * width
        means = np.array([row["test_dice"] for row in rows])
        errors = [[row["high"] - row["test_dice"] if row["high"] is not None else 0 for row in rows]] * 2
        above.errorbar(places, means, yerr=errors, color=colour, marker=shape, linestyle=dash, capsize=3, label=name)
        for seed in seeds:
            values = [dice[count, name, seed] for count in counts]
            above.scatter(places, values, color=colour, marker=shape, s=16, alpha=0.7, linewidths=0)
        later = [row for row in rows if row["gain_over_random"] is not None]
        if later:
            gains = np.array([row["gain_over_random"] for row in later])
            bars = [row["gain_high"] - row["gain_over_random"] if row["gain_high"] is not None else 0 for row in later]
            below.errorbar(
                places[1:], gains, yerr=[bars, bars], color=colour, marker=shape, linestyle=dash, capsize=3, label=name
            )
    below.axhline(0, color="#0072B2", linewidth=1, linestyle="--")
    above.set_ylabel("mean Dice of the test part")
    below.set_ylabel("Dice less that of random, same seed")
    below.set_xlabel("images annotated")
    below.set_xticks(counts)
    above.set_title(f"Mean of {len(seeds)} seeds with 95 % t-interval; small marks are seeds", fontsize=10)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Replay, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--network", default="unet", help="unet (MONAI's UNet, a small one), or the encoder of a U-Net")
    parser.add_argument("--start", type=int, default=20, help="images annotated to begin with")
    parser.add_argument("--step", type=int, default=20, help="images a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--first-steps", type=int, default=400, help="of training before the first round")
    parser.add_argument("--steps", type=int, default=120, help="of training in each round")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", default=default_precision("cpu"))
    parser.add_argument(
        "--state", type=Path, help="a file to keep the networks in, from which a stopped replay goes on"
    )
    parser.add_argument("--summarise", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    if not args.summarise:
        replay(args)
    summarise(args.output)


if __name__ == "__main__":
    main()
