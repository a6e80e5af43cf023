"""A predictor gives the masks of the bundle's own inference, whatever the bundle, the file and the runtime."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_trained import ROOT, in_every_format, made_trained, marker
from monai.bundle import create_workflow
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor, TrainedRun
from monai_thyroid.evaluation.configured import ConfiguredPath
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.pixels import PixelPath
from monai_thyroid.evaluation.runtimes import built, candidates, chosen, mean_dice
from monai_thyroid.images import read_raster
from monai_thyroid.images.reading import read_labels

UNPADDED = {"network": "unpadded_unet", "networks::unpadded_unet::filters": [4, 8], "image_size": 40}
STRONG = {"file": "train.yaml"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "grey": ("thyroid", {}),
    "colour": ("polyp", {}),
    "unpadded, padded to a square": ("fetal_head", UNPADDED),
    "unpadded, of the centre": ("thyroid", UNPADDED),
    "several classes": ("nerve", {}),
    "normalised": ("thyroid", STRONG),
    "normalised, in colour": ("polyp", STRONG),
    "normalised, padded to a square": ("fetal_head", STRONG),
    "postprocessed": ("nerve", {"postprocessing": {"threshold": 0.4, "fill_holes": True, "smallest": 0.002}}),
    "softmax": ("nerve", {"activation": "softmax", "networks::unet::out_channels": 3}),
}


def pictures(folder: Path) -> Path:
    """Noise with structure, of odd sizes, smaller and larger than the network's, grey, coloured, 16-bit and others."""
    random = np.random.RandomState(0)
    paths = in_every_format(folder, marker())
    for index, shape in enumerate([(41, 67), (90, 33), (25, 19), (32, 32)]):
        coarse = random.randint(0, 256, (5, 6, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        picture.convert("RGB" if index % 2 else "L").save(folder / f"noise{index}.png")
    assert paths
    return folder


def with_softmax(overrides: dict[str, Any]) -> dict[str, Any]:
    if overrides.get("activation") != "softmax":
        return overrides
    return {**overrides, "to_original_grid::2::sigmoid": False, "to_original_grid::2::softmax": True}


def undecided(probabilities: np.ndarray) -> np.ndarray:
    """Where rounding decides: two classes, or a class and the threshold, are within 1e-5."""
    ranked = np.sort(np.concatenate([1 - probabilities.sum(axis=0, keepdims=True), probabilities]), axis=0)
    found: np.ndarray = (ranked[-1] - ranked[-2] < 1e-5) | (np.abs(probabilities - 0.5) < 1e-5).any(axis=0)
    assert found.mean() < 0.001
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_the_bundles_inference(kind: str, tmp_path: Path) -> None:
    bundle, overrides = KINDS[kind]
    run = made_trained(tmp_path / "run", bundle, **with_softmax(overrides))
    folder = pictures(tmp_path / "pictures")
    workflow = create_workflow(
        config_file=str(ROOT / "bundles" / bundle / "inference.yaml"),
        run_dir=str(run),
        input=str(folder),
        output_dir=str(tmp_path / "expected"),
        device="cpu",
        precision="float32",
        logging_file=False,
    )
    workflow.run()
    predictor = Predictor(run, device="cpu", runtime="torch-float32")
    assert isinstance(predictor.members[0].pixels, PixelPath)
    found = set()
    for path in sorted(folder.iterdir()):
        prediction = predictor(read_raster(path))
        (expected,) = (tmp_path / "expected").glob(f"{path.name.split('.')[0]}_mask.*")
        differs = prediction.mask != read_labels(expected, classes=len(predictor.classes))
        assert not (differs & ~undecided(prediction.probabilities)).any(), path.name
        found |= set(np.unique(prediction.mask))
    assert found == set(range(len(predictor.classes) + 1))


@pytest.mark.parametrize("bundle", ["thyroid", "polyp", "fetal_head"])
def test_a_marker_stays_where_it_is_in_every_format(bundle: str, tmp_path: Path) -> None:
    predictor = Predictor(made_trained(tmp_path / "run", bundle, bright=True, image_size=64), device="cpu")
    expected = marker() > 128
    for path in in_every_format(tmp_path / "files", marker()):
        mask = predictor(read_raster(path)).mask
        assert mask.shape == expected.shape, path.name
        assert mean_dice([mask], [expected], classes=1) > 0.93, path.name


def test_unusual_transforms_are_applied_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = made_trained(tmp_path / "run", **{"image_transforms::1::mode": "nearest"})
    with caplog.at_level(logging.INFO):
        predictor = Predictor(run, device="cpu", runtime="torch-float32")
    assert isinstance(predictor.members[0].pixels, ConfiguredPath)
    assert "not the usual ones" in caplog.text
    image = read_raster(pictures(tmp_path / "pictures") / "noise1.png")
    assert predictor(image).mask.shape == image.pixels.shape[:2]
    again = Predictor(run, device="cpu", runtime="torch-float32")
    np.testing.assert_array_equal(again(image).probabilities, predictor(image).probabilities)


# --- runtimes ---


@pytest.mark.parametrize("streams", [1, 2])
def test_every_runtime_gives_the_masks_of_pytorch(streams: int, tmp_path: Path) -> None:
    model = Model(made_trained(tmp_path / "run"))
    images = [read_raster(path) for path in sorted(pictures(tmp_path / "pictures").iterdir())]
    names = candidates(model, device="cpu")
    assert {"torch-float32", "openvino-float32"} <= set(names)
    expected = [Predictor(model, device="cpu", runtime="torch-float32")(image).mask for image in images]
    for name in names:
        masks = [each.mask for each in Predictor(model, device="cpu", runtime=name, streams=streams).batch(images)]
        # bfloat16 keeps eight bits: of random weights more pixels lie near the threshold than of trained ones.
        least = 0.97 if "bfloat16" in name else 0.9999
        assert mean_dice(masks, expected, classes=1) >= least, name


def test_the_choice_is_measured_once_and_kept(tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run")
    images = [read_raster(path) for path in sorted(pictures(tmp_path / "pictures").iterdir())][:3]
    options: dict[str, Any] = {"device": "cpu", "family": "auto", "streams": 1}
    assert chosen(Model(run), [], **options).name == "torch-float32"
    first = chosen(Model(run), images, **options)
    assert "measured before" not in first.why
    assert "mean Dice between" in first.why
    again = chosen(Model(run), [], **options)
    assert again.name == first.name
    assert "measured before" in again.why
    assert "measured before" not in chosen(Model(run), [], **{**options, "streams": 2}).why


def test_what_is_kept_of_other_weights_is_not_used(tmp_path: Path) -> None:
    one, other = made_trained(tmp_path / "one"), made_trained(tmp_path / "other", seed=1)
    image = read_raster(pictures(tmp_path / "pictures") / "noise0.png")
    before = Predictor(one, device="cpu", runtime="openvino-float32")(image).probabilities
    assert (one / "runtimes" / "openvino.xml").is_file()
    for name in ("model.pt", "run.json"):
        (one / name).write_bytes((other / name).read_bytes())
    after = Predictor(one, device="cpu", runtime="openvino-float32")(image).probabilities
    expected = Predictor(other, device="cpu", runtime="torch-float32")(image).probabilities
    np.testing.assert_allclose(after, expected, atol=1e-4)
    assert np.abs(after - before).max() > 0.1


def test_a_runtime_that_disagrees_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_thyroid.evaluation import runtimes

    def wrong(model: Model, name: str, **options: Any) -> Any:
        compute = built(model, name, **options)
        return compute if name == "torch-float32" else lambda images: np.zeros_like(compute(images))

    monkeypatch.setattr(runtimes, "built", wrong)
    images = [read_raster(path) for path in sorted(pictures(tmp_path / "pictures").iterdir())][:3]
    model = Model(made_trained(tmp_path / "run"))
    assert chosen(model, images, device="cpu", family="auto", streams=1).name == "torch-float32"
    with pytest.raises(UserError, match="masks of PyTorch"):
        chosen(model, images, device="cpu", family="openvino", streams=1)


def test_a_runtime_or_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run")
    with pytest.raises(UserError, match=r"export .* --format onnx"):
        Predictor(run, device="cpu", runtime="onnx")
    with pytest.raises(UserError, match="choose auto, torch, openvino, onnx"):
        Predictor(run, device="cpu", runtime="tensorrt")
    with pytest.raises(UserError, match="choose auto, cpu or cuda"):
        Predictor(run, device="tpu")


# --- ensembles and mirror images ---


def test_an_ensemble_averages_probabilities_and_tells_agreement(tmp_path: Path) -> None:
    runs = [made_trained(tmp_path / "a"), made_trained(tmp_path / "b", seed=1, image_size=48)]
    image = read_raster(pictures(tmp_path / "pictures") / "noise1.png")
    single = [Predictor(run, device="cpu", runtime="torch-float32")(image) for run in runs]
    both = Predictor([str(runs[0]), TrainedRun(str(runs[1]))], device="cpu", runtime="torch-float32")(image)
    mean = (single[0].probabilities + single[1].probabilities) / 2
    np.testing.assert_allclose(both.probabilities, mean, atol=1e-6)
    np.testing.assert_array_equal(both.mask, mean[0] > 0.5)
    assert single[0].agreement is None
    a, b = (each.mask for each in single)
    assert both.agreement == (pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum())),)


def test_members_must_fit_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Predictor([made_trained(tmp_path / "a"), made_trained(tmp_path / "b", "polyp", threshold=0.4)])
    assert len(caught.value.problems) == 2
    with pytest.raises(UserError, match="at least one"):
        Predictor([])


def test_mirror_images_are_those_of_the_training(tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run", "polyp", image_size=33)
    picture = np.asarray(Image.open(pictures(tmp_path / "pictures") / "noise1.png"))
    plain = Predictor(run, device="cpu", runtime="torch-float32")
    mirrored = [(0,), (1,), (0, 1)]
    expected = [plain(picture).probabilities]
    for axes in mirrored:
        flipped = plain(np.ascontiguousarray(np.flip(picture, axes))).probabilities
        expected.append(np.flip(flipped, tuple(axis + 1 for axis in axes)))
    averaged = Predictor(run, device="cpu", runtime="torch-float32", tta=True)
    np.testing.assert_allclose(averaged(picture).probabilities, np.mean(expected, axis=0), atol=1e-5)
    never = made_trained(tmp_path / "never", augmentation=[])
    with pytest.raises(UserError, match="without mirror images"):
        Predictor(never, tta=True)


def test_opinions_are_those_of_the_members_or_of_mirror_images(tmp_path: Path) -> None:
    runs = [made_trained(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    options: dict[str, Any] = {"device": "cpu", "runtime": "torch-float32"}
    plain = [Predictor(run, **options) for run in runs]
    picture = marker()
    (both,) = Predictor(runs, **options).opinions([picture])
    assert [mask.tolist() for mask in both] == [one(picture).mask.tolist() for one in plain]
    assert (both[0] != both[1]).any()
    assert plain[0].has_opinions
    (first, second) = plain[0].opinions([picture, picture[::-1]])
    assert first[0].tolist() == both[0].tolist()
    mirrored = plain[0](np.ascontiguousarray(picture[:, ::-1])).mask[:, ::-1]
    assert first[1].tolist() == mirrored.tolist()
    assert len(first) == len(second) == 4  # it was mirrored along both axes
    never = Predictor(made_trained(tmp_path / "never", augmentation=[]), **options)
    assert not never.has_opinions
    with pytest.raises(UserError, match="one model, trained without mirror images"):
        never.opinions([picture])


@pytest.mark.parametrize(
    "image",
    [np.zeros((3, 4, 4)), np.zeros((0, 4)), np.full((4, 4), 2.0), np.full((4, 4), np.nan), np.zeros((4, 4), int)],
)
def test_what_is_no_image_is_refused(image: np.ndarray, tmp_path: Path) -> None:
    predictor = Predictor(made_trained(tmp_path / "run"), device="cpu", runtime="torch-float32")
    with pytest.raises(UserError, match="an image h"):
        predictor(image)
