# %% [markdown]
# # 4. Encoders, with and without pretraining, without internet
#
# A U-Net's encoder may start from weights that have seen other images. `--networks::NAME::weights imagenet` downloads
# those of ImageNet; in a hospital without internet you carry a **file** in. This page makes such a file itself, and measures
# what it is worth with few and with many patients.
#
# **What the file is here:** an encoder trained on *other synthetic scans of the same kind*. That is the best case of
# pretraining. What ImageNet's weights do for your images only your images tell, by the same cells.

# %%
import json
import shutil
from pathlib import Path

import desk
import matplotlib.pyplot as plt
import pandas as pd
import torch

desk.begin("encoders")
DATA = desk.data("thyroid", synthetic="many")  # or any folder laid out as TN3K

# %% [markdown]
# ## Somebody else's images
#
# 80 patients that will never be tested on: another seed is other anatomy.

# %%
# !monai-thyroid phantom elsewhere --cases 80 --seed 100

# %% [markdown]
# ## Train on them, and keep the encoder
#
# MobileNetV2 is the smallest encoder of the menu.

# %%
# !python -m monai.bundle run --config_file bundles/thyroid/train.yaml --dataset_dir elsewhere \
#     --network mobilenet_v2_unet --image_size 64 --batch_size 8 --max_epochs 8 --output_dir elsewhere_runs \
#     2>&1 | grep -E "^(Training|test)"

# %% [markdown]
# A file of weights is a state dict of exactly that encoder, `.pth` or `.safetensors`. `config.json` beside it tells the mean and
# standard deviation of the images it has seen; 0 and 1 leave that to the recipe, as it was for ours.

# %%
(source,) = (path.parent for path in Path("elsewhere_runs").rglob("run.json"))
weights = torch.load(source / "model.pt", weights_only=True)
encoder = {
    name.removeprefix("encoder."): tensor
    for name, tensor in weights.items()
    if name.startswith("encoder.")
}
Path("carried").mkdir()
torch.save(encoder, "carried/encoder.pth")
Path("carried/config.json").write_text('{"mean": [0, 0, 0], "std": [1, 1, 1]}')
size = Path("carried/encoder.pth").stat().st_size / 1e6
print(f"carried/encoder.pth: {len(encoder)} tensors, {size:.1f} MB")

# %% [markdown]
# ## Our own images: many patients, or few
#
# The same test patients for both; `few` keeps every sixth patient of the training part.

# %%
# !test -d {DATA} || monai-thyroid phantom {DATA} --cases 60 --seed 3

# %%
shutil.copytree(DATA, "few")
cases = pd.read_csv("few/cases.csv", dtype=str)
patients = sorted(set(cases.case[cases.part == "trainval"]))
for file in cases.file[(cases.part == "trainval") & ~cases.case.isin(patients[::6])]:
    Path("few/trainval-image", file).unlink()
    Path("few/trainval-mask", file).unlink()
left = cases[(cases.part == "test") | cases.case.isin(patients[::6])]
left.to_csv("few/cases.csv", index=False)
print(f"few: {len(patients[::6])} of {len(patients)} patients")

# %% [markdown]
# ## Four trainings
#
# With the file and without: on few, 64 epochs of 2 steps; on many, 8 of 10. All are short, so compare the two on few, and the two
# on many, and not few with many. Arguments of a network are not in the name
# of a run's folder, so each way has its own `--output_dir`.

# %% magic_args="-s {DATA}" language="bash"
# set -eo pipefail
# train() {
#     python -m monai.bundle run --config_file bundles/thyroid/train.yaml \
#         --network mobilenet_v2_unet --image_size 64 --batch_size 8 \
#         --output_dir $@ > train.log 2>&1 || tail -n 5 train.log
#     grep "^test" train.log
# }
# file="--networks::mobilenet_v2_unet::weights carried/encoder.pth"
# train random --dataset_dir few --max_epochs 64
# train random --dataset_dir $1 --max_epochs 8
# train pretrained --dataset_dir few --max_epochs 64 $file
# train pretrained --dataset_dir $1 --max_epochs 8 $file

# %% [markdown]
# ## What it is worth
#
# Above, validation patients while it learns; below, the mean Dice of the test patients, the same for all four.

# %%
runs = []
for path in [*Path("random").rglob("run.json"), *Path("pretrained").rglob("run.json")]:
    record = json.loads(path.read_text())
    (scores,) = path.parent.glob("evaluations/*/cases.csv")
    runs.append(
        {
            "data": "few" if record["dataset"] == "few" else "many",
            "encoder": path.parts[0],
            "history": pd.read_csv(path.parent / "history.csv"),
            "cases": pd.read_csv(scores, dtype={"case": str, "group": str}),
        }
    )
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for ax, data in zip(axes, ("few", "many"), strict=True):
    for run in (one for one in runs if one["data"] == data):
        steps = run["history"].epoch / run["history"].epoch.max()
        style = "-" if run["encoder"] == "pretrained" else "--"
        ax.plot(100 * steps, run["history"].val_dice, style, label=run["encoder"])
    ax.set(title=f"{data} patients", xlabel="% of the training", ylim=(0, 1))
axes[0].set_ylabel("Dice, validation patients")
axes[0].legend(title="encoder", loc="lower right");

# %%
table = pd.DataFrame(
    {"trained on": run["data"], "encoder": run["encoder"], "Dice": run["cases"].dice.mean()}
    for run in runs
)
table.pivot(index="trained on", columns="encoder", values="Dice").round(3)

# %% [markdown]
# One seed each: a hint, not a finding. Before you claim it, give both as blocks of a config to `monai-thyroid compare` with three
# seeds, as in [the second tutorial](2_compare.ipynb). A report ranks weights that have seen the test's own dataset apart.
#
# Next: [from a run to a clinic](5_deploy.ipynb).
