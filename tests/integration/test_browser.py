"""The page in a real browser: a file dropped, a slider moved, two models, results saved, broken files."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
from made_dicom import content, dicom_image
from made_trained import made_trained, marker
from PIL import Image

from monai_thyroid.deploy.pack import pack

pytestmark = pytest.mark.slow

_PATIENCE = 400
"""Seconds for the server to start, and for anything to be seen; a busy machine takes some of them."""
DRAWN = "[data-testid=stImage] img"
PICTURES = 9
"""The image, mask and probability of each of three models, where they disagree, where the members of one agree."""


@pytest.fixture(scope="module")
def served(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a page with two runs and a packed ensemble, and an empty folder for its process's files."""
    program("chromium")  # before any work
    folder = tmp_path_factory.mktemp("web")
    temporary = folder / "tmp"
    temporary.mkdir()
    runs = [made_trained(folder / "runs" / str(seed), seed=seed, bright=seed == 0) for seed in (0, 1)]
    members = [made_trained(folder / "members" / str(seed), seed=seed) for seed in (2, 3)]
    models = [*runs, pack(members, output=folder / "pair", report=False).path]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "monai_thyroid", "web", "--port", str(port), "--device", "cpu"]
    command += ["--runs", str(folder / "runs"), *(word for model in models for word in ("--model", str(model)))]
    environment = {**os.environ, "TMPDIR": str(temporary), "HOME": str(folder)}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        end = time.monotonic() + _PATIENCE
        while True:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", temporary
    finally:
        process.terminate()
        process.wait(30)
    assert not [path for path in temporary.rglob("*") if path.is_file()]  # nothing that was dropped is left


class Look:
    """A browser that looks at the page."""

    def __init__(self, driver: Any, address: str, saved: Path) -> None:
        self.driver, self.address, self.saved = driver, address, saved

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self) -> str:
        return str(self.driver.find_element("css selector", "[data-testid=stMain]").text)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                if found := holds():
                    return found
            except Exception as error:  # what was found has been drawn anew
                if "stale" not in str(error):
                    raise
            time.sleep(0.1)
        raise AssertionError(f"no {what} on the page:\n{self.text()}")

    def drop(self, path: Path) -> None:
        self.until(lambda: self.all("input[type=file]"), "place to drop a file")[0].send_keys(str(path))
        self.until(lambda: path.name in self.text(), path.name)
        self.settle()

    def settle(self) -> None:
        """Wait until the page is drawn to its end."""
        state = "[data-testid=stApp][data-test-script-state=notRunning]"
        self.until(lambda: self.all(state) and not self.all("[data-stale=true]"), "end of its drawing")

    def save(self, label: str, number: int = 0) -> bytes:
        self.settle()
        before = set(self.saved.iterdir())
        buttons = [one for one in self.all("[data-testid=stDownloadButton] button") if one.text == label]
        self.driver.execute_script("arguments[0].click()", buttons[number])
        (path,) = self.until(
            lambda: (
                {
                    one
                    for one in self.saved.iterdir()
                    if not one.name.endswith((".crdownload", ".tmp")) and not one.name.startswith(".")
                }
                - before
            ),
            f"saved {label}",
        )
        return bytes(path.read_bytes())


@pytest.fixture(scope="module")
def look(
    served: tuple[str, Path], program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Look]:
    selenium = pytest.importorskip("selenium.webdriver")
    saved = tmp_path_factory.mktemp("saved")
    options = selenium.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,1000")
    several = "profile.default_content_setting_values.automatic_downloads"  # without being asked
    options.add_experimental_option("prefs", {"download.default_directory": str(saved), several: 1})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    options.binary_location = program("chromium")
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(program("chromedriver")))
    try:
        driver.get(served[0])
        look = Look(driver, served[0], saved)
        look.until(lambda: len(look.all(DRAWN)) >= PICTURES, "pictures of three models")
        yield look
    finally:
        driver.quit()


def test_an_example_is_there_at_once_with_models_side_by_side_and_an_ensemble(look: Look) -> None:
    text = look.text()
    assert "For research only. Not for diagnosis." in text
    for words in ("Mask of marker seed 0", "Mask of unet seed 1", "Where they disagree", "Dice between"):
        assert words in text
    for words in ("Mask of pair", "Agreement of the members", "Where its members agree"):
        assert words in text


def test_a_dropped_image_is_segmented_and_saved_as_the_page_says(look: Look, tmp_path: Path) -> None:
    Image.fromarray(marker()).save(tmp_path / "scan.png")
    look.drop(tmp_path / "scan.png")
    look.until(lambda: "110 x 75 pixels" in look.text(), "size of the image")
    mask = np.asarray(Image.open(io.BytesIO(look.save("Mask"))))
    assert mask.shape == (75, 110)
    assert mask[10, 20] == 255  # where the marker is bright, near the top left
    assert mask[10, -20] == mask[-5, 20] == 0
    assert f"{int((mask > 0).sum()):,} pixels" in look.text()
    overlay = np.asarray(Image.open(io.BytesIO(look.save("Overlay"))))
    assert overlay.shape == (75, 110, 3)
    assert (overlay[marker() < 100] == 10).mean() > 0.7  # the dark ground is as it was


def test_a_slider_changes_the_mask_and_says_so(look: Look) -> None:
    slider = look.until(lambda: look.all("[data-testid=stSlider] input[max='1']"), "sliders")[0]
    before = re.findall(r"([\d,]+) pixels", look.text())
    slider.send_keys("\ue012" * 20)  # to the left
    look.until(lambda: "Not its own threshold (0.5)" in look.text(), "word of the threshold")
    look.until(lambda: re.findall(r"([\d,]+) pixels", look.text()) != before, "other area")


def test_a_dicom_file_has_lengths_in_mm_and_results_in_dicom(look: Look, tmp_path: Path) -> None:
    look.driver.get(look.address)
    look.until(lambda: len(look.all(DRAWN)) >= PICTURES, "pictures")
    look.settle()
    (tmp_path / "object.dcm").write_bytes(content(dicom_image(marker(), PixelSpacing=[0.5, 0.25])))
    look.drop(tmp_path / "object.dcm")
    look.until(lambda: "mm²" in look.text() and "Segmentation (DICOM SEG)" in look.text(), "results")
    report = pydicom.dcmread(io.BytesIO(look.save("Report (DICOM SR)")))
    segmentation = pydicom.dcmread(io.BytesIO(look.save("Segmentation (DICOM SEG)")))
    assert (report.Modality, segmentation.Modality) == ("SR", "SEG")
    assert segmentation.pixel_array.sum() > 0
    assert "Größe" not in look.text()


def test_a_broken_file_is_told_and_the_next_one_is_segmented(look: Look, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 99)
    look.drop(tmp_path / "broken.png")
    look.until(lambda: "broken.png: cannot be read as an image" in look.text(), "message")
    assert not look.all(DRAWN)
    Image.fromarray(marker()).save(tmp_path / "next.png")
    look.drop(tmp_path / "next.png")
    look.until(lambda: "next.png: 110 x 75 pixels" in look.text(), "the next image")


def test_models_and_runs_have_pages(look: Look) -> None:
    look.driver.get(f"{look.address}/models")
    look.until(lambda: "SHA-256 of the weights" in look.text(), "facts")
    look.driver.get(f"{look.address}/runs")
    look.until(lambda: "2 runs." in look.text(), "number of runs")


def test_the_browser_asks_this_machine_alone(look: Look, served: tuple[str, Path]) -> None:
    asked = set()
    for entry in look.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
        if message["method"] == "Network.webSocketCreated":
            asked.add(message["params"]["url"])
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme not in ("data", "blob", "chrome")}
    assert hosts == {"127.0.0.1"}
    assert any(url.startswith("ws:") for url in asked)
    assert not [path for path in served[1].rglob("*") if path.is_file()]
