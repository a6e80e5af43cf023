# %% [markdown]
# # 2. Compare architectures and read the report
#
# "Network A is better than B" is easily said after one training each, and often wrong: another seed, other patients, and
# the order turns. This page trains three small networks twice each, and reads what may be claimed (three seeds
# are the default, two the fewest that tell anything).
#
# Synthetic scans again, unless `MONAI_THYROID_DATA` or `DATA` says otherwise.

# %%
import re
from pathlib import Path

import desk
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, Markdown

desk.begin("compare")
DATA = desk.data("thyroid")  # any folder laid out as TN3K or DDTI
IMAGE_SIZE, EPOCHS = 64, 12  # small and short

# %%
# !test -d {DATA} || monai-thyroid phantom {DATA} --cases 60 --seed 1

# %% [markdown]
# ## The candidates
#
# Two from the menu, made narrow, and one of our own: any network of MONAI or of yours is a block of a few lines. `shallow`
# halves the image once only, so it judges a pixel by its near surroundings.

# %%
Path("small.yaml").write_text("""
networks::unet::features: [16, 16, 32, 64, 128, 16]
networks::resunet::filters: [12, 24, 48, 96]
networks::shallow:
  _target_: monai.networks.nets.UNet
  _mode_: callable
  spatial_dims: 2
  in_channels: '@channels'
  out_channels: $len(@classes)
  channels: [16, 32]
  strides: [2]
""");

# %% [markdown]
# ## First ask whether it can work
#
# `--plan` trains nothing. It says what will be done, how long it would take on this machine as busy as it is, and how small a
# difference so many patients and seeds can find.

# %%
# !monai-thyroid compare bundles/thyroid/train.yaml --config small.yaml \
#     --networks unet,resunet,shallow --seeds 0,1 \
#     --dataset_dir {DATA} --image_size {IMAGE_SIZE} --max_epochs {EPOCHS} --batch_size 8 \
#     --output comparison --plan --detect 0.05

# %% [markdown]
# ## Train them all
#
# The same without `--plan`. Each run is a process of its own; what is stopped goes on with the same command.

# %%
# !monai-thyroid compare bundles/thyroid/train.yaml --config small.yaml \
#     --networks unet,resunet,shallow --seeds 0,1 \
#     --dataset_dir {DATA} --image_size {IMAGE_SIZE} --max_epochs {EPOCHS} --batch_size 8 \
#     --output comparison --jobs 2 2>&1 | tail -n 1

# %% [markdown]
# ## In short
#
# `report.html` is one file to read, print or mail; `report.md` says the same. Its first section:

# %%
report = Path("comparison/report")
page = (report / "report.md").read_text()
Markdown(re.search(r"## In short\n(.*?)\n\*\*", page, re.S)[1])

# %% [markdown]
# ## Every seed, every network
#
# Look at the scatter within a row before you believe a distance between rows.

# %%
runs = pd.read_csv(report / "summary.csv")
figure, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
networks = list(runs.groupby("network").dice_mean.mean().sort_values().index)
for seed, (_, group) in zip("os", runs.groupby("seed"), strict=False):
    rows = [networks.index(name) for name in group.network]
    ax.plot(group.dice_mean, rows, seed, label=f"seed {group.seed.iloc[0]}")
ax.set(yticks=range(len(networks)), yticklabels=networks, xlabel="mean Dice, test part")
ax.set_ylim(-0.5, len(networks) - 0.5)
ax.legend(loc="upper left")
ax.grid(axis="y", alpha=0.3);

# %% [markdown]
# ## Two questions, two answers
#
# *These weights*: which of the chosen models is better on such patients? *These architectures*: which network is better when
# it is trained **again**? The second counts seeds, so it takes more to answer. Each pair gets a verdict at a margin of 0.01,
# and "undecided" is an honest one.

# %%
pairs = pd.read_csv(report / "pairwise.csv")
pairs = pairs[pairs.metric == "dice"].round(3)
low, high = pairs.simultaneous_low.astype(str), pairs.simultaneous_high.astype(str)
pairs["95 % interval"] = low + " to " + high
pairs[["question", "first", "second", "difference", "95 % interval", "verdict"]]

# %%
Image(report / "figures" / "architectures-differences.png", width=640)

# %% [markdown]
# ## How steadily they learn

# %%
Image(report / "figures" / "curves.png", width=640)

# %% [markdown]
# ## Which one to use
#
# The recommendation names its rule and its reasons. Where there are too few patients to choose by, it recommends nothing.

# %%
Markdown(re.search(r"## Recommendation\n(.*?)\nThe rule", page, re.S)[1])

# %% [markdown]
# A real comparison, five networks on real nodules and polyps, is in [docs/comparison.md](../docs/comparison.md); how often the
# rule errs, by simulation, in [docs/claims.md](../docs/claims.md). Next: [your own images](3_your_own_images.ipynb).
