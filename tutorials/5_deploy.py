# %% [markdown]
# # 5. From a run to a clinic: one package, DICOM in and out
#
# A run folder holds all that a model is. `pack` makes one folder of it that other people's tools read; `predict` takes
# DICOM images and answers with DICOM: a report, a segmentation, a picture.
#
# **For research. Nothing here is cleared for diagnosis**, and the scans are synthetic.

# %%
from pathlib import Path

import desk
import numpy as np
import pandas as pd
import pydicom
from IPython.display import Markdown
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

desk.begin("deploy")
DATA = desk.data("thyroid")  # or any folder laid out as TN3K or DDTI

# %%
# !test -d {DATA} || monai-thyroid phantom {DATA} --cases 60 --seed 4

# %% [markdown]
# ## A run
#
# As in [the first tutorial](1_train_and_look.ipynb).

# %%
# !python -m monai.bundle run --config_file bundles/thyroid/train.yaml \
#     --dataset_dir {DATA} --image_size 64 --max_epochs 16 \
#     --networks::unet::features "[16,16,32,64,128,16]" 2>&1 | grep "^test"

# %%
(run,) = (path.parent for path in Path("runs").rglob("run.json"))

# %% [markdown]
# ## Pack it
#
# The layout of MONAI's model zoo, with an export that needs no Python of ours: TorchScript here, ONNX and OpenVINO likewise.
# Each export is compared with the network it was made of, on validation images.

# %%
# !monai-thyroid pack {run} --output dist/nodules --format torchscript 2> /dev/null

# %%
package = Path("dist/nodules")
for path in sorted(path for path in package.rglob("*") if path.is_file()):
    if path.suffix in (".md", ".html", ".pt", ".ts", ".json") and "run" not in path.parts:
        print(f"{path.relative_to(package)!s:32} {path.stat().st_size / 1000:9,.0f} kB")

# %% [markdown]
# The model card is made from the run: what it was trained on, how it scored, what it is not for. Its beginning:

# %%
card = "\n" + (package / "docs/README.md").read_text()
Markdown(card.split("The trained network")[0].replace("\n#", "\n###"))

# %% [markdown]
# ## Anybody's tool can load it

# %%
import torch

network = torch.jit.load(package / "models/model.ts").eval()
with torch.no_grad():
    print("logits of one image:", tuple(network(torch.zeros(1, 1, 64, 64)).shape))

# %% [markdown]
# ## An image as a scanner sends it
#
# A DICOM file of a patient who does not exist, with 0.22 mm a pixel.

# %%
source = sorted(Path(DATA, "test-image").iterdir())[2]
pixels = np.asarray(Image.open(source).convert("L"))
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = UltrasoundImageStorage
image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.3.4"
image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.3", "1.2.3.1"
image.PatientName, image.PatientID = "Nobody^Ada", "P-17"
image.StudyDate, image.StudyTime = "20260102", "101112"
image.Modality, image.InstanceNumber = "US", 1
image.Rows, image.Columns = pixels.shape
image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
image.PixelRepresentation = 0
image.PixelSpacing = [0.22, 0.22]
image.PixelData = pixels.tobytes()
Path("inbox").mkdir()
image.save_as("inbox/neck.dcm", enforce_file_format=True)

# %% [markdown]
# ## Segment it

# %%
# !monai-thyroid predict dist/nodules inbox --output outbox --dicom --runtime torch \
#     2>&1 | grep -oE "^.* images? segmented"

# %%
for path in sorted(Path("outbox").rglob("neck*")):
    kind = pydicom.dcmread(path).SOPClassUID.name if path.suffix == ".dcm" else ""
    print(f"{path.name:16} {kind}")

# %% [markdown]
# ## What the radiologist gets
#
# The picture for viewers that show nothing else, with outline and measurements below it:

# %%
picture = pydicom.dcmread(next(Path("outbox").rglob("neck_sc.dcm")))
Image.fromarray(picture.pixel_array)

# %% [markdown]
# And the structured report, which a PACS can search. Its measurements:

# %%
def numbers(item):
    """Name, value and unit of each measurement below an item of a report."""
    for child in item.get("ContentSequence", []):
        if child.ValueType == "NUM":
            value = child.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeMeaning
            yield child.ConceptNameCodeSequence[0].CodeMeaning, value.NumericValue, unit
        yield from numbers(child)


report = pydicom.dcmread(next(Path("outbox").rglob("neck_sr.dcm")))
pd.DataFrame(numbers(report), columns=["measurement", "value", "unit"])

# %% [markdown]
# ## The segmentation, pixel by pixel
#
# A DICOM SEG is a mask that other programs open. It is the mask of the PNG file, and both are the network's.

# %%
mask = desk.mask(next(Path("outbox").rglob("neck_mask.png")))
segmentation = pydicom.dcmread(next(Path("outbox").rglob("neck_seg.dcm")))
assert ((segmentation.pixel_array > 0).squeeze() == mask).all()
figure, axes = desk.grid(1, 2, width=3.6, height=2.8)
desk.show(axes[0, 0], pixels, title="the DICOM image")
reference = Path(DATA, "test-mask", source.name)
desk.show(axes[0, 1], pixels, reference=reference, prediction=mask, title="the DICOM SEG")
desk.legend(figure, ["reference", "segmentation"])

# %% [markdown]
# ## In the hospital's network
#
# The same model as a node of a PACS, and in MONAI Label, where people correct it. Both are servers, so they are not started
# here. [docs/deploy.md](../docs/deploy.md) goes from Orthanc to a SEG in Orthanc in five commands.
#
# ```bash
# monai-thyroid pacs --model dist/nodules --spool spool --send-to 127.0.0.1:4242:ORTHANC
# ```
#
# MONAI Label pins other versions, so it gets an environment of its own; [docs/label.md](../docs/label.md) says what it does there.
#
# ```bash
# monai-thyroid label --make-env .venv-label
# .venv-label/bin/monai-thyroid label --model dist/nodules --studies inbox
# ```
#
# Next: [why random frame splits lie](6_leaky_splits.ipynb).
