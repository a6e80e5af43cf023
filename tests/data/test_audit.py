"""The audit finds what was planted, says nothing about a clean set, and its page stands alone."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from monai_thyroid.data import load_datalist
from monai_thyroid.data.audit import Audit, Level, audit_dataset
from monai_thyroid.data.audit.likeness import near_duplicates
from monai_thyroid.data.audit.measure import find_marks
from monai_thyroid.errors import UserError
from monai_thyroid.files import write_json
from monai_thyroid.images import write_phantom

DATA = Path(os.environ.get("MONAI_THYROID_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
REAL = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA} (MONAI_THYROID_DATA)")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("data") / "clean", cases=60, seed=1)


@pytest.fixture
def copy(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "copy"))


def cases_of(audit: Audit, title: str, level: Level = Level.PROBLEM) -> str:
    return "\n".join(
        line
        for finding in audit.findings
        if finding.title == title and finding.level is level
        for line in finding.cases
    )


def masks(root: Path) -> list[Path]:
    return sorted((root / "trainval-mask").iterdir())


def centre(path: Path) -> tuple[float, float]:
    rows, columns = np.nonzero(np.asarray(Image.open(path)))
    return float(columns.mean()), float(rows.mean())


def test_clean_phantom_comes_back_clean(clean: Path) -> None:
    audit = audit_dataset(clean)
    assert audit.findings == []
    assert not audit.falsifies
    assert audit.text.endswith("Nothing was found that would falsify results.")


def test_planted_faults_are_each_found(copy: Path) -> None:
    found = masks(copy)
    places = [centre(path) for path in found]
    left, right = (pick(range(len(found)), key=lambda k: places[k][0]) for pick in (min, max))
    contents = found[left].read_bytes(), found[right].read_bytes()
    found[left].write_bytes(contents[1])
    found[right].write_bytes(contents[0])
    truncated, original, turned, white = (found[k].name for k in (10, 20, 30, 40))
    assert not {10, 20, 30, 40} & {left, right}
    broken = copy / "trainval-image" / truncated
    broken.write_bytes(broken.read_bytes()[:3000])
    copied = sorted((copy / "test-image").iterdir())[0]
    copied.write_bytes((copy / "trainval-image" / original).read_bytes())
    path = copy / "trainval-mask" / turned
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    Image.new("L", (192, 144), 255).save(copy / "trainval-mask" / white)

    audit = audit_dataset(copy)
    assert audit.falsifies
    assert truncated in cases_of(audit, "Unreadable files")
    assert "as if turned by 90 degrees" in cases_of(audit, "Image and mask differ in size")
    assert white.removesuffix(".png") in cases_of(audit, "Masks that are no masks")
    assert f"{original.removesuffix('.png')} (trainval" in cases_of(audit, "Identical images in two parts")
    assert f"{copied.stem} (test" in cases_of(audit, "Identical images in two parts")
    swapped = cases_of(audit, "Swapped or turned masks")
    assert found[left].stem in swapped
    assert found[right].stem in swapped
    assert audit.text.endswith("would falsify results; 1 more is worth a look.")


def test_mask_turned_on_its_own_grid_is_found(copy: Path) -> None:
    path = max(masks(copy), key=lambda path: abs(centre(path)[0] - 96))
    Image.open(path).rotate(180).save(path)
    assert path.stem in cases_of(audit_dataset(copy), "Swapped or turned masks")


def test_split_file_is_judged(clean: Path, tmp_path: Path) -> None:
    leaky = load_datalist(str(clean), split="frames", images="trainval-image", masks="trainval-mask",
                          group_pattern=r"^(\d+)_")  # fmt: skip
    assert leaky.grouping == "leaky"
    split = {part: [item["case"] for item in leaky.part(part)] for part in ("train", "validation", "test")}
    (tmp_path / "split.json").write_text(json.dumps(split))
    audit = audit_dataset(clean, split_file=tmp_path / "split.json")
    assert " and " in cases_of(audit, "Groups in several parts")
    write_json(tmp_path / "split.json", load_datalist(str(clean)).split())
    assert not audit_dataset(clean, split_file=tmp_path / "split.json").falsifies


def test_near_duplicates_are_found_through_brightness_noise_and_scale() -> None:
    rng = np.random.default_rng(0)
    from monai_thyroid.images import phantom_scan

    thumbs = []
    for case in range(12):
        scan = Image.fromarray(phantom_scan(case, 0, seed=2).image)
        thumbs.append(np.asarray(scan.resize((32, 32), Image.Resampling.BOX), np.float32) / 255)
    brighter = np.clip(thumbs[3] * 1.2 + 0.03 + rng.normal(0, 0.005, (32, 32)), 0, 1).astype(np.float32)
    pairs = near_duplicates(np.stack([*thumbs, brighter]))
    assert [(pair.first, pair.second) for pair in pairs] == [(3, 12)]


def test_text_and_crosses_are_guessed() -> None:
    picture = Image.new("L", (400, 300))
    ImageDraw.Draw(picture).ellipse((60, 60, 340, 240), fill=90)
    assert find_marks(np.asarray(picture) / np.float32(255)).characters == 0
    draw = ImageDraw.Draw(picture)
    draw.text((10, 10), "DOE JOHN 1970", fill=255, font_size=14)
    for x, y in ((150, 120), (250, 180)):
        draw.line((x - 5, y, x + 5, y), fill=255)
        draw.line((x, y - 5, x, y + 5), fill=255)
    marks = find_marks(np.asarray(picture) / np.float32(255))
    assert 6 <= marks.characters <= 16
    assert marks.calipers == 2


def test_page_stands_alone_and_escapes_names(copy: Path, tmp_path: Path) -> None:
    root = copy.rename(tmp_path / "<script>alert(1)<")
    for folder in ("trainval-image", "trainval-mask"):
        name = sorted((root / folder).iterdir())[0]
        name.rename(name.with_name("<img src=x>.png"))
    (root / "cases.csv").write_text((root / "cases.csv").read_text().replace("0000_0.png", "<img src=x>.png"))
    Image.new("L", (192, 144), 255).save(root / "trainval-mask" / "<img src=x>.png")
    page = tmp_path / "page.html"
    audit_dataset(root, output=page)
    text = page.read_text(encoding="utf-8")
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

    Reader().feed(text)
    names = {tag for tag, _ in tags}
    assert "script" not in names
    assert "link" not in names
    pictures = [attrs for tag, attrs in tags if tag == "img"]
    assert pictures
    assert all(
        re.match("data:image/(jpeg|svg[+]xml);base64,", str(attrs["src"])) and attrs["alt"] for attrs in pictures
    )
    assert "http" not in text
    assert "&lt;img src=x&gt;" in text


def test_page_into_a_missing_folder_is_refused_before_the_work(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        audit_dataset(clean, output=tmp_path / "nowhere" / "page.html")
    with pytest.raises(UserError, match="looked for"):
        audit_dataset(tmp_path)


@REAL
def test_gland_frames_are_called_a_video() -> None:
    audit = audit_dataset(DATA / "thyroid_gland")
    (finding,) = [finding for finding in audit.findings if finding.title.startswith("Near-identical neighbours")]
    assert finding.level is Level.WARNING
    assert "split by scene, never by image" in finding.text
    assert len(finding.cases) > 50
    assert not audit.falsifies


@REAL
def test_gland_frames_without_scenes_are_a_problem(tmp_path: Path) -> None:
    for folder, name in (("images", "thyroid-image"), ("masks", "thyroid-mask")):
        (tmp_path / folder).mkdir()
        for path in sorted((DATA / "thyroid_gland" / name).iterdir())[:120]:
            (tmp_path / folder / path.name).symlink_to(path)
    audit = audit_dataset(tmp_path)
    assert audit.falsifies
    assert any(finding.title.startswith("Near-identical neighbours") for finding in audit.findings)


@REAL
def test_nodule_masks_have_grey_edges_and_images_have_text() -> None:
    audit = audit_dataset(DATA / "thyroid")
    titles = {finding.title: finding for finding in audit.findings}
    assert "466 of 466 masks have grey edges" in titles["Grey mask edges"].text
    assert len(titles["Burned-in text"].cases) > 400
    assert not audit.falsifies


@REAL
def test_swapped_polyp_masks_are_found_by_their_boxes(tmp_path: Path) -> None:
    boxes = json.loads((DATA / "polyp" / "segmented-images" / "bounding-boxes.json").read_text())
    stems = sorted(boxes)[:40]
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for stem in stems:
            shutil.copy(DATA / "polyp" / "segmented-images" / name / f"{stem}.jpg", tmp_path / name)
    shutil.copy(DATA / "polyp" / "segmented-images" / "bounding-boxes.json", tmp_path)

    def middle(stem: str) -> float:
        box = boxes[stem]["bbox"][0]
        return float(box["xmin"] + box["xmax"]) / boxes[stem]["width"]

    assert not cases_of(audit_dataset(tmp_path), "Masks outside their boxes")
    first, last = (tmp_path / "masks" / f"{pick(stems, key=middle)}.jpg" for pick in (min, max))
    one, other = first.read_bytes(), last.read_bytes()
    first.write_bytes(other)
    last.write_bytes(one)
    lines = cases_of(audit_dataset(tmp_path), "Masks outside their boxes")
    assert first.stem in lines
    assert last.stem in lines
