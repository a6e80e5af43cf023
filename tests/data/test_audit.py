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
from monai_thyroid.data.audit.page import facts_table
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, write_json
from monai_thyroid.images import phantom_scan, write_phantom

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


def test_clean_phantom_comes_back_clean(clean: Path) -> None:
    audit = audit_dataset(clean)
    assert audit.findings == []
    assert not audit.falsifies
    assert audit.text.endswith("Nothing was found that would falsify results.")


def test_planted_faults_are_each_found(copy: Path) -> None:
    found = masks(copy)
    truncated, original, turned, white = (found[k].name for k in (10, 20, 30, 40))
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
    assert audit.text.endswith("would falsify results; 1 more finding is worth a look.")


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


@pytest.fixture
def ungrouped(tmp_path: Path) -> Path:
    """Twenty scans of as many patients; 7 is a brighter 3, 12 a noisier 7, and 15 is 5."""
    for number in range(20):
        scan = phantom_scan(number, 0, seed=2)
        image = scan.image.astype(float)
        if number in (7, 12):
            scan = phantom_scan(3, 0, seed=2)
            image = scan.image * 1.1 + 5 + np.random.default_rng(number).normal(0, 1, scan.image.shape)
        if number == 15:
            scan = phantom_scan(5, 0, seed=2)
            image = scan.image
        for folder, pixels in (("images", image.clip(0, 255)), ("masks", scan.label * 255)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set" / folder / f"{number}.png")
    return tmp_path / "set"


def test_near_identical_images_falsify_results_until_a_table_keeps_them_together(ungrouped: Path) -> None:
    audit = audit_dataset(ungrouped, write_groups=ungrouped / "groups.csv")
    assert audit.falsifies
    assert "Nothing was found" not in audit.text
    assert "3 (trainval) and 7 (trainval)" in cases_of(audit, "Near-identical images")
    assert "5 (trainval) and 15 (trainval)" in cases_of(audit, "Identical images")
    rows = {row["file"]: row["group"] for row in read_csv(ungrouped / "groups.csv")}
    assert list(read_csv(ungrouped / "groups.csv")[0]) == ["file", "group", "basis"]
    assert rows["images/3.png"] == rows["images/7.png"] == rows["images/12.png"]
    assert rows["images/5.png"] == rows["images/15.png"]
    assert len(set(rows.values())) == 17
    for seed in range(6):
        data = load_datalist(str(ungrouped), split_seed=seed)
        assert "by set of near-identical images, because patients are unknown" in data.how
        assert data.grouping == "unknown"
        part = {item["case"]: item["part"] for item in data.items}
        assert part["3"] == part["7"] == part["12"]
        assert part["5"] == part["15"]
    again = audit_dataset(ungrouped)
    assert not again.falsifies
    assert any(finding.title == "Patients unknown" for finding in again.findings)
    with pytest.raises(UserError, match="is there already"):
        audit_dataset(ungrouped, write_groups=ungrouped / "groups.csv")


def test_groups_of_sites_are_told_apart_by_their_folders(ungrouped: Path, tmp_path: Path) -> None:
    for site in ("a", "b"):
        shutil.copytree(ungrouped, tmp_path / "sites" / site)
    audit_dataset(tmp_path / "sites", write_groups=tmp_path / "sites" / "groups.csv")
    data = load_datalist(str(tmp_path / "sites"))
    assert len({item["group"] for item in data.items}) == 17, "both sites hold the same images"
    assert "near-identical" in data.how


def test_groups_that_are_known_are_not_written_anew(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the cases of .* are known"):
        audit_dataset(clean, write_groups=tmp_path / "groups.csv")
    assert not (tmp_path / "groups.csv").exists()


def test_only_pages_of_earlier_audits_are_replaced(ungrouped: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    audit_dataset(ungrouped, output=page)
    first = page.read_bytes()
    page.write_bytes(first.replace(b"<body", b"<body "))
    audit_dataset(ungrouped, output=page)
    assert page.read_bytes() == first
    other = tmp_path / "notes.html"
    other.write_text("<!DOCTYPE html> mine")
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "link.html").symlink_to(ungrouped / "images" / "1.png")
    for path in (ungrouped / "images" / "0.png", other, tmp_path / "pipe.html", tmp_path / "link.html", tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(UserError, match="is there and no page of an earlier audit"):
            audit_dataset(ungrouped, output=path)
        assert (path.read_bytes() if path.is_file() else b"") == before
    assert sorted(path.name for path in (ungrouped / "images").iterdir())[0] == "0.png"


def test_a_dataset_card_counts_and_names_no_case(ungrouped: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    for _ in range(2):  # the second replaces the first
        audit = audit_dataset(ungrouped, card=card)
    text = card.read_text("utf-8")
    assert text.startswith(f"# Dataset {audit.name}")
    parts = {item["part"] for item in audit.data.items}
    for part in parts:
        count = sum(item["part"] == part for item in audit.data.items)
        assert f"| {part} | {count} | unknown |" in text
    assert all(finding.title in text for finding in audit.findings)
    assert not any(line in text for finding in audit.findings for line in finding.cases)
    assert "## For the author" in text
    card.write_text("mine")
    with pytest.raises(UserError, match="is there and no card of an earlier audit"):
        audit_dataset(ungrouped, card=card)
    assert card.read_text() == "mine"


def test_an_audit_tells_how_large_pixels_are(ungrouped: Path) -> None:
    """Where the layout knows it, as that of fetal heads does."""
    audit = audit_dataset(ungrouped)
    assert "pixel size" not in audit.text
    items = audit.data.items
    for item in items:
        item["spacing"] = "0.2,0.2"
    assert ("pixel size", "0.2 mm") in facts_table(audit)
    items[0]["spacing"], items[1]["spacing"] = "0.1,0.3", ""
    told = "median 0.2 mm, from 0.1 to 0.3; not square in 1; not known of 1"
    assert ("pixel size", told) in facts_table(audit)


def test_pictures_turned_by_exif_are_counted(ungrouped: Path) -> None:
    assert "Turned by EXIF" not in audit_dataset(ungrouped).text
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("images/1.png", "images/2.png", "masks/2.png"):
        Image.open(ungrouped / name).save(ungrouped / name, exif=exif)
    audit = audit_dataset(ungrouped)
    (finding,) = [finding for finding in audit.findings if finding.title == "Turned by EXIF"]
    assert finding.level is Level.WARNING
    assert "2 images of 20" in finding.text
    assert "In 1 image and mask ask for different things" in finding.text
    assert finding.cases == ["1: EXIF orientation 3, mask 1", "2: EXIF orientation 3, mask 3"]


@REAL
def test_gland_frames_are_called_a_video() -> None:
    audit = audit_dataset(DATA / "thyroid_gland")
    (finding,) = [finding for finding in audit.findings if finding.title.startswith("Near-identical neighbours")]
    assert finding.level is Level.WARNING
    assert "split by scene, never by image" in finding.text
    assert len(finding.cases) > 50
    assert {one.title for one in audit.findings if one.level is Level.PROBLEM} == {
        "Near-identical images in two scenes"
    }


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
