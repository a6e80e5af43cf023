# %% [markdown]
# # 1. Train a network and look at what it does
#
# From nothing to a trained segmentation network in a minute, without a GPU: thyroid nodules in ultrasound.
# Here the scans are **synthetic**, so that anybody can run this page; they show how things work and say nothing about
# patients. With `MONAI_THYROID_DATA=DIR` in the environment, or a path in `DATA`, the same cells take real images.

# %%
import json
from pathlib import Path

import desk
import matplotlib.pyplot as plt
import pandas as pd

desk.begin("train")
DATA = desk.data("thyroid")  # or any folder laid out as TN3K or DDTI
IMAGE_SIZE, EPOCHS = 64, 16  # small and short; the bundle's own are 256 and 100

# %% [markdown]
# ## The images
#
# `phantom` draws necks with one to three nodules, each seen from up to three sides, in the layout of the public TN3K.

# %%
# !test -d {DATA} || monai-thyroid phantom {DATA} --cases 80

# %%
images = sorted(Path(DATA, "trainval-image").iterdir())[:30:10]
figure, axes = desk.grid(1, len(images), width=3.2, height=2.7)
for ax, image in zip(axes.flat, images, strict=True):
    mask = Path(DATA, "trainval-mask", image.name)
    desk.show(ax, image, reference=mask, title=image.stem)
desk.legend(figure, ["reference mask"])

# %% [markdown]
# ## Check before you train
#
# A mistyped option costs a second here, and not a night:

# %%
# !monai-thyroid check bundles/thyroid/train.yaml --quick \
#     --dataset_dir {DATA} --epochs {EPOCHS} || echo "status $?"

# %% [markdown]
# ## Train
#
# One command. Every constant at the top of
# [`train.yaml`](../bundles/thyroid/train.yaml) is an option; `--networks::unet::features` makes the U-Net narrow, so that
# this page takes seconds. Test patients are set aside and scored once, at the end.

# %%
# !python -m monai.bundle run --config_file bundles/thyroid/train.yaml \
#     --dataset_dir {DATA} --image_size {IMAGE_SIZE} --max_epochs {EPOCHS} \
#     --networks::unet::features "[16,16,32,64,128,16]" \
#     2>&1 | grep -E "^(Training|test|A threshold|Run folder)"

# %% [markdown]
# ## What it left behind
#
# One **run folder**, from which everything else is made: the model is applied, evaluated, compared and packed from here.

# %%
(run,) = (path.parent for path in Path("runs").rglob("run.json"))
for path in sorted(run.iterdir()):
    print(path.name + ("/" if path.is_dir() else ""))

# %% [markdown]
# ## Did it learn?
#
# The loss falls on images it trains on and on patients it has never seen; where the two part, a network learns by heart. The
# loss asks for certainty as well, so it is still high when the outline (Dice: 1 is perfect, 0 is no overlap) is already good.

# %%
history = pd.read_csv(run / "history.csv")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(history.epoch, history.train_loss, label="training images")
left.plot(history.epoch, history.val_loss, "--", label="validation patients")
left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
left.legend()
right.plot(history.epoch, history.val_dice)
right.set(xlabel="epoch", ylabel="Dice, validation patients", ylim=(0, 1));

# %% [markdown]
# ## How good is it, on whom?
#
# `cases.csv` has every score of every test image, on the image's own grid. A mean hides its worst cases, so look at all of
# them, beside a threshold on brightness tuned on the training images: a network that does not beat it has learned nothing.

# %%
record = json.loads((run / "run.json").read_text())
(evaluation,) = (run / "evaluations").iterdir()
cases = pd.read_csv(evaluation / "cases.csv", dtype={"case": str, "group": str})
cases = cases.sort_values("dice")
figure, ax = plt.subplots(figsize=(9, 2.8), layout="constrained")
ax.bar(range(len(cases)), cases.dice, width=0.8)
ax.axhline(cases.dice.mean(), color="black", label=f"network, mean {cases.dice.mean():.2f}")
baseline = record["threshold_baseline"]["test_dice"]
label = f"brightness threshold, mean {baseline:.2f}"
ax.axhline(baseline, color="C1", linestyle="--", label=label)
ax.set(
    xlabel=f"{len(cases)} test images of {cases.group.nunique()} patients, worst first",
    ylabel="Dice",
    ylim=(0, 1),
    xticks=[],
)
ax.legend(loc="upper left", ncols=2, bbox_to_anchor=(0, 1.2));

# %% [markdown]
# ## Look at the worst, the median and the best

# %%
chosen = cases.iloc[[0, len(cases) // 2, -1]]
figure, axes = desk.grid(1, len(chosen), width=3.2, height=2.7)
names = ("worst", "median", "best")
for ax, case, name in zip(axes.flat, chosen.itertuples(), names, strict=True):
    desk.show(
        ax,
        evaluation / "images" / f"{case.case}.jpg",
        reference=evaluation / "references" / f"{case.case}.png",
        prediction=evaluation / "predictions" / f"{case.case}.png",
        title=f"{name}: Dice {case.dice:.2f}",
    )
desk.legend(figure)

# %% [markdown]
# ## Use it on new images
#
# The run folder knows the options of its training, so nobody has to repeat them. Files of any kind and size go in, masks of
# the same size come out, and a table.

# %%
# !monai-thyroid predict {run} {DATA}/test-image --output masks --runtime torch \
#     2>&1 | grep -oE "^.* images? segmented"

# %%
table = pd.read_csv("masks/predictions.csv")
table["source"] = table.source.map(lambda path: Path(path).name)
table[["source", "area_px", "components", "largest_diameter_px", "mean_probability"]].head()

# %% [markdown]
# Next: is another architecture better? [Compare them](2_compare.ipynb).
