# %% [markdown]
# # 3. Your own images
#
# You have a folder of images and a folder of masks. Two commands lie between you and a network: `audit` says what is wrong
# with them before anyone trains, and `new` writes a bundle that fits them.
#
# This page makes such folders from synthetic scans, with the faults that real ones have.

# %%
import shutil
from pathlib import Path

import desk
import numpy as np
import pandas as pd
from PIL import Image

from monai_thyroid.images import phantom_scan

desk.begin("own")

# %% [markdown]
# ## A folder as one gets it
#
# Forty patients with two images each, `<patient>_<number>.png`.

# %%
images, masks = Path("clinic/images"), Path("clinic/masks")
for folder in (images, masks):
    folder.mkdir(parents=True)
for patient in range(40):
    for view in range(2):
        scan = phantom_scan(patient, view, seed=7, height=120, width=160)
        name = f"{patient:03d}_{view}.png"
        Image.fromarray(scan.image).save(images / name)
        Image.fromarray(scan.label * np.uint8(255)).save(masks / name)

# %% [markdown]
# And what goes wrong on the way: an image under two patients' numbers, a file cut off, a mask that somebody enlarged, one
# that was never drawn.

# %%
shutil.copy(images / "003_0.png", images / "017_1.png")
shutil.copy(masks / "003_0.png", masks / "017_1.png")
whole = (images / "008_1.png").read_bytes()
(images / "008_1.png").write_bytes(whole[: len(whole) // 2])
Image.open(masks / "021_0.png").resize((320, 240)).save(masks / "021_0.png")
(masks / "030_1.png").unlink()

# %%
figure, axes = desk.grid(1, 3, width=3.2, height=2.7)
desk.show(axes[0, 0], images / "003_0.png", title="003_0.png")
desk.show(axes[0, 1], images / "017_1.png", title="017_1.png: the same picture")
enlarged = np.asarray(Image.open(masks / "021_0.png").convert("L"))
height, width = enlarged.shape
title = f"the mask of 021_0.png: {width} x {height}, not 160 x 120"
desk.show(axes[0, 2], enlarged, title=title)

# %% [markdown]
# ## Look it through
#
# Patients are in the files' names, which a program cannot know. A table beside the folders says it: `patients.csv`.

# %%
files = sorted(images.iterdir())
table = pd.DataFrame({"file": [path.name for path in files]})
table["patient"] = table.file.str[:3]
table.to_csv("clinic/patients.csv", index=False)
table.head(3)

# %%
# !monai-thyroid audit clinic --output audit.html 2> /dev/null || echo "status $?"

# %% [markdown]
# Status 1: something would falsify the results. `audit.html` shows the pictures to each line. Now mend it, by leaving out
# what cannot be used; the twin goes from both patients, as nobody knows whose it is.

# %%
for name in ("003_0", "017_1", "008_1", "021_0", "030_1"):
    (images / f"{name}.png").unlink()
    (masks / f"{name}.png").unlink(missing_ok=True)
table = table[table.file.map(lambda name: (images / name).exists())]
table.to_csv("clinic/patients.csv", index=False)

# %%
# !monai-thyroid audit clinic 2> /dev/null

# %% [markdown]
# ## A bundle of your own
#
# `new` looks at every file and writes a recipe that fits: grey or colour, how many classes, what size.

# %%
# !monai-thyroid new clinic --images clinic/images --masks clinic/masks \
#     --groups-from '^(\d+)_' 2> /dev/null

# %%
# !monai-thyroid check bundles/clinic/train.yaml --image_size 64 --max_epochs 12

# %% [markdown]
# ## Train
#
# Small, narrow and short again, so that this page takes a minute; the bundle's own settings take longer and reach more.

# %%
# !python -m monai.bundle run --config_file bundles/clinic/train.yaml \
#     --image_size 64 --max_epochs 12 --networks::unet::features "[16,16,32,64,128,16]" \
#     2>&1 | grep -E "^(Training|test|A threshold|Run folder)"

# %%
(run,) = (path.parent for path in Path("runs").rglob("run.json"))
(evaluation,) = (run / "evaluations").iterdir()
cases = pd.read_csv(evaluation / "cases.csv", dtype={"case": str, "group": str})
cases = cases.sort_values("dice")
figure, axes = desk.grid(1, 3, width=3.2, height=2.7)
rows, names = (0, len(cases) // 2, -1), ("worst", "median", "best")
for ax, row, name in zip(axes.flat, rows, names, strict=True):
    case = cases.iloc[row]
    desk.show(
        ax,
        evaluation / "images" / f"{case.case}.jpg",
        reference=evaluation / "references" / f"{case.case}.png",
        prediction=evaluation / "predictions" / f"{case.case}.png",
        title=f"{name}: patient {case.group}, Dice {case.dice:.2f}",
    )
desk.legend(figure)

# %% [markdown]
# ## Is the split honest?
#
# Patients of the test part occur nowhere else. `split.json` keeps who is where, for every later comparison.

# %%
import json

split = json.loads((run / "split.json").read_text())
patients = {
    name: {case[:3] for case in part["cases"]} for name, part in split["parts"].items()
}
print({name: f"{len(group)} patients" for name, group in patients.items()})
elsewhere = patients["train"] | patients["validation"]
print("in test and elsewhere:", len(patients["test"] & elsewhere))

# %% [markdown]
# Next: [pretrained encoders without internet](4_pretrained_encoders.ipynb).
