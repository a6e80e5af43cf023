# %% [markdown]
# # 7. Bring another tool's masks, and decide
#
# You have masks of nnU-Net, of a vendor's box, of a colleague's script. `score` needs masks, not models, and `report` ranks
# them beside your own runs, on the same images and by the same rules.
#
# The other tool here is a **random forest of pixels** on filtered images, as interactive programs offer it, written in a few
# lines of scikit-learn. Scans are synthetic, unless `MONAI_THYROID_DATA` or `DATA` says otherwise.

# %%
import json
import re
import shutil
from pathlib import Path

import desk
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Image as Picture
from IPython.display import Markdown
from PIL import Image
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

desk.begin("other")
DATA = desk.data("thyroid")  # or any folder laid out as TN3K or DDTI

# %%
# !test -d {DATA} || monai-thyroid phantom {DATA} --cases 70 --seed 5

# %% [markdown]
# ## Ours

# %%
# !python -m monai.bundle run --config_file bundles/thyroid/train.yaml \
#     --dataset_dir {DATA} --image_size 64 --max_epochs 16 \
#     --networks::unet::features "[16,16,32,64,128,16]" 2>&1 | grep "^test"

# %%
(run,) = (path.parent for path in Path("runs").rglob("run.json"))
split = json.loads((run / "split.json").read_text())
parts = {name: part["cases"] for name, part in split["parts"].items()}
print({name: f"{len(cases)} images" for name, cases in parts.items()})

# %% [markdown]
# ## Theirs
#
# It learns from the same training images, which `split.json` names; anything else would be another race.

# %%
def features(case, folder):
    """(height, width, n): brightness, edges and texture at several scales, and the place."""
    (path,) = Path(DATA, folder).glob(f"{case}.*")
    image = np.asarray(Image.open(path).convert("L")) / 255
    height, width = image.shape
    place = np.stack(np.mgrid[0:1:height * 1j, 0:1:width * 1j], axis=2)
    return np.concatenate([multiscale_basic_features(image, sigma_max=8), place], axis=2)


def training(case):
    """A few hundred pixels of an image, with their class."""
    seen = features(case, "trainval-image")
    (path,) = Path(DATA, "trainval-mask").glob(f"{case}.*")
    chosen = np.random.default_rng(0).choice(seen[..., 0].size, 300, replace=False)
    return seen.reshape(-1, seen.shape[2])[chosen], desk.mask(path).ravel()[chosen]


inputs, targets = zip(*(training(case) for case in parts["train"]), strict=True)
forest = RandomForestClassifier(
    40, min_samples_leaf=10, class_weight="balanced", n_jobs=1, random_state=0
).fit(np.concatenate(inputs), np.concatenate(targets))

# %%
found = Path("forest")
found.mkdir()
for case in parts["test"]:
    seen = features(case, "test-image")
    chance = forest.predict_proba(seen.reshape(-1, seen.shape[2]))[:, 1]
    mask = chance.reshape(seen.shape[:2]) > 0.5
    Image.fromarray(mask.astype(np.uint8)).save(found / f"{case}.png")  # 0 and 1

# %%
figure, axes = desk.grid(1, 3, width=3.2, height=2.7)
for ax, case in zip(axes.flat, parts["test"][::12], strict=False):
    (image,) = Path(DATA, "test-image").glob(f"{case}.*")
    (reference,) = Path(DATA, "test-mask").glob(f"{case}.*")
    mask = desk.mask(found / f"{case}.png")
    desk.show(ax, image, reference=reference, prediction=mask, title=case)
desk.legend(figure, ["reference", "pixel forest"])

# %% [markdown]
# ## Does it fit?
#
# Nothing is scored before everything fits. A file too few:

# %%
shutil.copytree(found, "spoilt")
Path("spoilt", f"{parts['test'][0]}.png").unlink()

# %%
# !monai-thyroid score --predictions spoilt --references {run} --name forest --output scored/spoilt \
#     2>&1 || echo "status $?"

# %% [markdown]
# And what looks well and is not: all masks mirrored, as a tool with another idea of left and right writes them.

# %%
Path("mirrored").mkdir()
for path in found.iterdir():
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(f"mirrored/{path.name}")

# %%
# !monai-thyroid score --predictions mirrored --references {run} --name forest --output scored/mirrored

# %% [markdown]
# ## Score it
#
# `--references` is our run: the cases, patients and reference masks are then its own.

# %%
# !monai-thyroid score --predictions forest --references {run} --name forest --output scored/forest

# %% [markdown]
# ## Compare

# %%
# !monai-thyroid report {run} scored/forest --output report

# %%
page = Path("report/report.md").read_text()
Markdown(re.search(r"## In short\n(.*?)\n\*\*", page, re.S)[1])

# %% [markdown]
# Image by image: above the line ours is better.

# %%
cases = pd.read_csv("report/cases.csv", dtype={"case": str})
table = cases.pivot_table(index="case", columns="network", values="dice")
figure, ax = plt.subplots(figsize=(3.6, 3.4), layout="constrained")
ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
ax.plot(table.forest, table.unet, "o", markersize=5)
ax.set(xlabel="Dice, pixel forest", ylabel="Dice, U-Net", xlim=(0, 1), ylim=(0, 1), aspect="equal");

# %% [markdown]
# ## Decide
#
# With one training each this is an answer about *these masks*, and not about forests and U-Nets. The verdict at a margin of 0.01:

# %%
Picture("report/figures/weights-verdicts.png", width=560)

# %%
Markdown(re.search(r"## Recommendation\n(.*?)\nThe rule", page, re.S)[1])

# %% [markdown]
# [docs/other-tools.md](../docs/other-tools.md) goes the same way with nnU-Net, from its training to the report.
