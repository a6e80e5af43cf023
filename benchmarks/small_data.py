"""What should a clinic with few masks do? A network from scratch beside one that has learned the other datasets first.

Run: ``python benchmarks/small_data.py --data-dir DIR --output docs/results/small [--targets thyroid,polyp]
[--counts 25,50,100] [--seeds 0,1,2] [--network unet] [--size 80] [--steps 400]``

DIR holds a folder a bundle (``thyroid``, ``thyroid_gland``, ``fetal_head``, ``nerve``, ``polyp``, ``lung``), laid out
as the bundle's README says. For each target a U-Net (half as wide as the bundles', or on MobileNetV2) learns all five
other datasets together first: a batch of each in turn, a channel of its output for each of their classes, the loss on
the dataset's own channels alone. Of the target's training part (its validation part too, since nothing is chosen on it)
whole groups are drawn by the seed until there are as many images as asked for; of the last group what fits. Two
networks learn them by the bundle's strong recipe in the same number of steps: one from scratch, one from those weights
(all but the last layer, which begins anew). The last weights, averaged, are scored on the target's test part, on the
original grid, at a half.

Writes ``small.csv`` after each training, ``summary.csv``, ``small.png`` and ``about.json``; a start with the same
options goes on; with ``--summarise`` the last three are made from the first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from active import between, endless, fit, interval, rounded, scored, subset
from matrix import config_of
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet

from monai_thyroid.data import Datalist, ResidentDataset
from monai_thyroid.evaluation import AutocastInferer, default_precision
from monai_thyroid.evaluation.environment import machine, versions
from monai_thyroid.files import atomic_path, read_csv, write_csv, write_json
from monai_thyroid.images import read_masks
from monai_thyroid.networks import EncoderUNet, to_channels_last
from monai_thyroid.training.layout import channels_last_is_faster

BUNDLES = ("thyroid", "thyroid_gland", "fetal_head", "nerve", "polyp", "lung")
STARTS = ("scratch", "pretrained")
# How each network is made, and where its last layer is.
NETWORKS: dict[str, tuple[Callable[[int], torch.nn.Module], str]] = {
    "unet": (
        lambda classes: BasicUNet(
            spatial_dims=2, in_channels=3, out_channels=classes, features=(16, 16, 32, 64, 128, 16)
        ),
        "final_conv.",
    ),
    "mobilenet_v2_unet": (
        lambda classes: EncoderUNet(encoder="mobilenet_v2", in_channels=3, out_channels=classes),
        "head.",
    ),
}
COLUMNS = [
    *("target", "count", "groups", "seed", "start", "test_dice", "test_misses", "n_test", "train_loss", "cpu_seconds"),
]
SUMMARY = ["target", "count", "start", "seeds", "test_dice", "low", "high", "gain", "gain_low", "gain_high"]


class Source:
    """One dataset by its bundle's strong recipe: three channels, as many steps as asked for."""

    def __init__(self, bundle: str, args: argparse.Namespace) -> None:
        parser = ConfigParser()
        parser.read_config(str(config_of(bundle, "strong")))
        parser["dataset_dir"] = str(args.data_dir / bundle)
        parser["image_size"], parser["channels"] = args.size, 3
        self.data: Datalist = parser.get_parsed_content("data")
        self.classes: list[str] = parser.get_parsed_content("classes")
        self.loss: torch.nn.Module = parser.get_parsed_content("loss")
        self.transforms = parser.get_parsed_content("train::preprocessing")
        self._parser = parser

    def batches(self, dataset: ResidentDataset, *, batch_size: int, seed: int) -> Iterator[dict[str, Any]]:
        """Of the dataset without end, with the recipe's augmentation drawn by this seed."""
        self._parser["seed"] = seed
        augmentation = self._parser.get_parsed_content("augmentation", lazy=False)
        size = min(batch_size, len(dataset))
        return endless(dataset, augmentation, batch_size=size, seed=seed, statistics=dataset.statistics())

    def read(self, parts: Sequence[str]) -> tuple[list[dict[str, Any]], ResidentDataset]:
        """Items of some parts, and their images."""
        items = [item for part in parts for item in self.data.part(part)]
        return items, ResidentDataset(items, self.transforms)


def network_of(classes: int, args: argparse.Namespace, *, seed: int) -> torch.nn.Module:
    """The network, random by the seed, in the order of axes that is faster."""
    torch.manual_seed(seed)
    network = NETWORKS[args.network][0](classes)
    inferer = AutocastInferer(device="cpu", precision=args.precision)
    if channels_last_is_faster(network, inferer=inferer, shape=(args.batch_size, 3, args.size, args.size)):
        to_channels_last(network)
    return network


def pretrained(target: str, args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Weights of a network that has learned all datasets but the target's, from a file if it is there already; such a
    file is what ``--init_from`` takes.
    """
    path = args.weights / f"all-but-{target}-{args.network}-{args.size}-{args.pretraining_steps}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    feeds, classes = [], 0
    for number, bundle in enumerate(one for one in BUNDLES if one != target):
        source = Source(bundle, args)
        _, dataset = source.read(("train", "validation", "test"))
        channels = slice(classes, classes + len(source.classes))
        classes = channels.stop
        batches = source.batches(dataset, batch_size=args.batch_size, seed=number)
        feeds.append((batches, channels, source.loss))
        print(f"{target}: learns {len(dataset)} images of {bundle} ({', '.join(source.classes)}) first", flush=True)

    def in_turn() -> Iterator[tuple[dict[str, Any], slice, torch.nn.Module]]:
        for batches, channels, loss in itertools.cycle(feeds):
            yield next(batches), channels, loss

    def tell(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"{target}: step {step} of {args.pretraining_steps}, loss {loss:.4f}", flush=True)

    network, _ = fit(
        network_of(classes, args, seed=0),
        in_turn(),
        steps=args.pretraining_steps,
        learning_rate=args.learning_rate,
        inferer=AutocastInferer(device="cpu", precision=args.precision),
        tell=tell,
    )
    with atomic_path(path) as temporary:
        torch.save(network.state_dict(), temporary)
    return torch.load(path, weights_only=True)


def drawn(items: Sequence[dict[str, Any]], count: int, seed: int) -> list[int]:
    """Indices of ``count`` images of whole groups in an order of the seed; of the last group as many as still fit."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item["group"], []).append(index)
    names = np.random.default_rng(seed).permutation(sorted(groups))
    return sorted(list(itertools.chain.from_iterable(groups[str(name)] for name in names))[:count])


@torch.no_grad()
def probabilities(
    network: torch.nn.Module, images: torch.Tensor, statistics: dict[str, Any], inferer: AutocastInferer
) -> torch.Tensor:
    """(N, width, height) of the only class."""
    network.eval()
    mean, std = (torch.tensor(statistics[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    parts = [inferer((batch.float() / 255 - mean) / std, network).sigmoid() for batch in images.split(32)]
    return torch.cat(parts)[:, 0]


def study(args: argparse.Namespace) -> None:
    """Every target, count, seed and start, the small ones first; a row of small.csv after each."""
    options = {
        name: value for name, value in vars(args).items() if name not in ("output", "data_dir", "weights", "summarise")
    }
    about = args.output / "about.json"
    inferer = AutocastInferer(device="cpu", precision=args.precision)
    targets = {}
    for target in args.targets:
        source = Source(target, args)
        items, pool = source.read(("train", "validation"))
        test, held_out = source.read(("test",))
        references = [read_masks(item["label"], classes=1)[0] for item in test]
        targets[target] = (source, items, pool, held_out, references)
    record = {
        "options": json.loads(json.dumps(options, default=str)),
        "targets": {
            name: {
                "split": source.data.how,
                "data_hash": source.data.inspect().data_hash,
                "pool": {"images": len(items), "groups": len({item["group"] for item in items})},
                "test": {"images": len(references)},
            }
            for name, (source, items, _, _, references) in targets.items()
        },
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }
    rows = read_csv(args.output / "small.csv") if (args.output / "small.csv").is_file() else []
    if rows and json.loads(about.read_text())["options"] != record["options"]:
        raise SystemExit(f"{args.output}: holds a study with other options; give another folder")
    write_json(about, record)
    done = {tuple(str(row[key]) for key in ("target", "count", "seed", "start")) for row in rows}
    for count, seed, target, start in itertools.product(args.counts, args.seeds, args.targets, STARTS):
        if (target, str(count), str(seed), start) in done:
            continue
        source, items, pool, held_out, references = targets[target]
        last = NETWORKS[args.network][1]
        state = pretrained(target, args) if start == "pretrained" else {}
        state = {name: value for name, value in state.items() if not name.startswith(last)}
        begun = time.process_time()
        own = drawn(items, count, seed)
        dataset = subset(pool, own)
        network = network_of(1, args, seed=seed)
        missing, unknown = network.load_state_dict(state, strict=False)
        assert not unknown
        assert start == "scratch" or all(name.startswith(last) for name in missing)
        batches = source.batches(dataset, batch_size=args.batch_size, seed=seed)
        delivered, loss = fit(
            network,
            ((batch, slice(None), source.loss) for batch in batches),
            steps=args.steps,
            learning_rate=args.learning_rate,
            inferer=inferer,
        )
        found = scored(probabilities(delivered, held_out.images, dataset.statistics(), inferer), references)
        rows.append(
            {
                **{"target": target, "count": len(own), "groups": len({items[index]["group"] for index in own})},
                **{"seed": seed, "start": start, "test_dice": round(float(np.mean([dice for dice, _ in found])), 5)},
                "test_misses": sum(missed for _, missed in found),
                "n_test": len(found),
                "train_loss": round(loss, 5),
                "cpu_seconds": round(time.process_time() - begun, 1),
            }
        )
        write_csv(args.output / "small.csv", COLUMNS, rows)
        print(json.dumps(rows[-1]), flush=True)


def summarise(output: Path) -> None:
    """The table, printed and as summary.csv, and the figure, of the counts that all seeds have with both starts."""
    rows = read_csv(output / "small.csv")
    dice = {(row["target"], int(row["count"]), row["seed"], row["start"]): float(row["test_dice"]) for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    table: list[dict[str, Any]] = []
    for target, count in sorted({key[:2] for key in dice}, key=lambda key: (list(BUNDLES).index(key[0]), key[1])):
        complete = [seed for seed in seeds if all((target, count, seed, start) in dice for start in STARTS)]
        if not complete:
            continue
        for start in STARTS:
            values = [dice[target, count, seed, start] for seed in complete]
            before = [dice[target, count, seed, STARTS[0]] for seed in complete]
            differences = [a - b for a, b in zip(values, before, strict=True)]
            gain = interval(differences) if start != STARTS[0] else (None, None, None)
            keys = [target, count, start, len(complete)]
            table.append(dict(zip(SUMMARY, [*keys, *rounded(*interval(values)), *rounded(*gain)], strict=True)))
    write_csv(output / "summary.csv", SUMMARY, table)
    for row in table:
        gain = row["gain"]
        told = "" if gain is None else f"   gain {gain:+.3f}{between(row['gain_low'], row['gain_high'], '+.3f')}"
        print(f"{row['target']:>10} {row['count']:>5} {row['start']:>11}  test Dice {row['test_dice']:.3f}{told}")
    draw(table, dice, output / "small.png")


def draw(table: list[dict[str, Any]], dice: dict[tuple[str, int, str, str], float], path: Path) -> None:
    """A panel a target: Dice against images, mean of the seeds, and each seed as a mark."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator

    looks = {"scratch": ("#0072B2", "s", "--"), "pretrained": ("#D55E00", "o", "-")}  # Okabe and Ito's
    words = {"scratch": "from scratch", "pretrained": "after the five other datasets"}
    targets = list(dict.fromkeys(row["target"] for row in table))
    figure, panels = plt.subplots(1, len(targets), figsize=(1 + 3.6 * len(targets), 3.8), squeeze=False, sharey=True)
    for axes, target in zip(panels[0], targets, strict=True):
        counts = sorted({row["count"] for row in table if row["target"] == target})
        for start, (colour, shape, dash) in looks.items():
            means = [row["test_dice"] for row in table if row["target"] == target and row["start"] == start]
            axes.plot(counts, means, color=colour, marker=shape, linestyle=dash, label=words[start])
            for (name, count, _, kind), value in dice.items():
                if name == target and kind == start and count in counts:
                    axes.scatter(count, value, color=colour, marker=shape, s=14, alpha=0.55, linewidths=0)
        axes.set(title=target, xlabel="training images", xscale="log")
        axes.xaxis.set_major_locator(FixedLocator(counts))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(count) for count in counts])
        axes.grid(alpha=0.3)
    panels[0, 0].set_ylabel("mean Dice of the test part")
    panels[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle("Lines: mean of the seeds; small marks: each seed", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Study, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": lambda text: text.split(",")}
    numbers = {"type": lambda text: [int(one) for one in text.split(",")]}
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="where the pretrained weights are kept; --output of itself")
    parser.add_argument("--targets", default=["thyroid", "polyp"], **several)
    parser.add_argument("--counts", default=[25, 50, 100], **numbers)
    parser.add_argument("--seeds", default=[0, 1, 2], **numbers)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pretraining-steps", type=int, default=2000)
    parser.add_argument("--network", choices=NETWORKS, default="unet")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", default=default_precision("cpu"))
    parser.add_argument("--summarise", action="store_true")
    args = parser.parse_args()
    args.weights = args.weights or args.output
    torch.set_num_threads(1)
    for folder in (args.output, args.weights):
        folder.mkdir(parents=True, exist_ok=True)
    if not args.summarise:
        study(args)
    summarise(args.output)


if __name__ == "__main__":
    main()
