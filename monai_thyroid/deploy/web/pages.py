"""The pages on the screen: segmenting an image, the models, the runs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from monai_thyroid.deploy.web.drawing import Screen, agreement_text
from monai_thyroid.deploy.web.opening import EXAMPLES, Opened, open_image
from monai_thyroid.deploy.web.run_pages import show_runs
from monai_thyroid.deploy.web.serving import Desk, Looked, Served
from monai_thyroid.deploy.web.telling import ONLY, about_image, about_model, card_text, found_text, plain, result_name
from monai_thyroid.errors import UserError, optional

__all__ = ["show"]

_NONE = "none: my own file"


def show(desk: Desk) -> None:
    """Put the page on the screen that its address asks for."""
    st = optional("streamlit", extra="web")
    st.set_page_config(page_title="monai_thyroid", layout="wide")
    pages = []
    if desk.models:
        pages += [
            st.Page(lambda: _segment(st, desk), title="Segment", url_path="segment", default=True),
            st.Page(lambda: _models(st, desk), title="Models", url_path="models"),
        ]
    if desk.runs:
        pages.append(st.Page(lambda: show_runs(st, desk), title="Runs", url_path="runs", default=not desk.models))
    page = st.navigation(pages, position="top")
    st.html("<style>.stMainBlockContainer {padding-top: 4rem}</style>")  # half of the empty space above
    st.warning(ONLY)
    page.run()


def _segment(st: Any, desk: Desk) -> None:
    left, right = st.columns(2)
    upload = left.file_uploader("Image or DICOM file", help="It stays in the memory of this machine and is not kept.")
    example = right.selectbox("or an example", [*EXAMPLES, _NONE], disabled=upload is not None)
    if upload is not None:
        key, name, content = upload.file_id, upload.name, upload.getvalue()
    elif example == _NONE:
        st.info("Drop an image (PNG, JPEG, BMP, TIFF, DICOM or NIfTI of one slice) above.")
        return
    else:
        name, make = EXAMPLES[example]
        key, content = name, make()
    try:
        opened = open_image(name, content)
    except UserError as error:
        st.session_state["image"], st.session_state["kept"] = key, {}
        st.error(plain(str(error)))
        return
    titles = [model.title for model in desk.models]
    if len(titles) > 1:
        titles = st.multiselect("Models", titles, default=titles, key="models")
        if not titles:
            st.info("Choose a model.")
            return
    looks = _looked(st, key, opened, [model for model in desk.models if model.title in titles])
    if looks:
        _results(st, opened, looks)


def _looked(st: Any, key: str, opened: Opened, models: list[Served]) -> list[Looked]:
    """What each model makes of the image; of the image before, nothing is kept."""
    if st.session_state.get("image") != key:
        st.session_state["image"], st.session_state["kept"] = key, {}
    looks = []
    for model in models:
        try:
            looks.append(_kept(st, model.title, partial(model.look, opened.raster), "is looking"))
        except UserError as error:
            st.error(plain(str(error)))
    return looks


def _kept(st: Any, title: str, make: Callable[[], Any], doing: str) -> Any:
    """What was made before of the image that is looked at, by a title and what was done; else made now."""
    kept = st.session_state["kept"]
    if (title, doing) not in kept:
        with st.spinner(f"{plain(title)} {doing} …"):
            kept[title, doing] = make()
    return kept[title, doing]


def _results(st: Any, opened: Opened, looks: list[Looked]) -> None:
    screen = Screen(opened.raster)
    classes = list(dict.fromkeys(name for look in looks for name in look.model.classes))
    shown = classes[0]
    fill = st.slider("Opacity of the masks, %", 0, 100, 30, key="opacity") / 100
    if len(classes) > 1:
        shown = st.segmented_control("Class", classes, default=classes[0], format_func=plain, key="class") or classes[0]
    columns = st.columns(len(looks) + 1 if len(looks) > 1 else 3)
    columns[0].subheader("Image")
    columns[0].image(screen.image(), width="stretch")
    columns[0].caption(about_image(opened))
    masks: dict[str, np.ndarray] = {}
    offers: list[tuple[Any, Looked, float | None]] = []
    for look, column in zip(looks, columns[1:], strict=False):
        own = look.model.threshold
        column.subheader(f"Mask of {plain(look.model.title)}")
        if look.model.synthetic:
            column.warning("Trained on synthetic images: it has never seen a patient's.")
        place = column.empty()
        threshold = None
        if own is None:
            column.caption("No threshold: the likeliest class is taken.")
        else:
            key = f"threshold of {look.model.title}"
            chosen = column.slider(f"Threshold (its own: {own:g})", 0.0, 1.0, own, 0.01, key=key)
            threshold = None if chosen == own else chosen
            if threshold is not None:
                column.warning(f"Not its own threshold ({own:g}): this is not what the model gives.")
        prediction = look.at(threshold)
        found = look.findings(prediction)
        regions = [region for one in found for region in one.regions]
        places = [region.centre for region in regions] if len(regions) > 1 else []
        drawn = screen.mask(prediction.mask, fill=fill, places=places, classes=look.model.classes)
        place.image(drawn, width="stretch")
        column.markdown(found_text(found, spacing=opened.raster.spacing is not None))
        offers.append((column.container(), look, threshold))
        if shown in look.model.classes:
            number = look.model.classes.index(shown) + 1
            masks[look.model.title] = prediction.mask == number
            beside = column if len(looks) > 1 else columns[2]
            beside.subheader(f"Probability of {plain(shown)}")
            line = None if own is None else own if threshold is None else threshold
            beside.image(screen.probability(prediction.probabilities[number - 1], threshold=line), width="stretch")
            if (shares := look.agreement(number, threshold)) is not None:
                beside.subheader("Where its members agree")
                beside.image(screen.agreement(shares, members=len(look.maps)), width="stretch")
        else:
            column.caption(f"It has no class {plain(shown)}, so it is not compared by it.")
    if len(masks) > 1:
        columns[0].subheader("Where they disagree")
        _disagreement(columns[0], opened, screen, masks, fill)
    # Last, as they take a while, in which no picture of an image before must be seen beside this one.
    for place, look, threshold in offers:
        _downloads(st, place, opened, look, threshold, fill, alone=len(looks) == 1)


def _disagreement(st: Any, opened: Opened, screen: Screen, masks: dict[str, np.ndarray], fill: float) -> None:
    titles, found = list(masks), list(masks.values())
    st.image(screen.disagreement(found, titles, fill=max(fill, 0.2)), width="stretch")
    count = int(np.count_nonzero(np.logical_or.reduce(found) & ~np.logical_and.reduce(found)))
    spacing = opened.raster.spacing
    area = f"{count:,} pixels" if spacing is None else f"{count * spacing[0] * spacing[1]:,.1f} mm² ({count:,} pixels)"
    lines = [f"They disagree on {area}."]
    lines += [
        f"Dice between {plain(one)} and {plain(other)}: {agreement_text(masks[one], masks[other])}"
        for index, one in enumerate(titles)
        for other in titles[index + 1 :]
    ]
    st.markdown("\n\n".join(lines))


def _downloads(
    st: Any, place: Any, opened: Opened, look: Looked, threshold: float | None, fill: float, *, alone: bool
) -> None:
    prediction = look.at(threshold)
    row = place.container(horizontal=True)

    def button(label: str, data: bytes, ending: str, mime: str) -> None:
        row.download_button(
            label,
            data,
            result_name(opened, look, ending, alone=alone),
            mime,
            key=f"{label} of {look.model.title}",
            on_click="ignore",
        )

    # Made at once: what Streamlit makes when it is asked for is gone if the page is being drawn anew by then.
    button("Mask", look.mask_png(prediction), "_mask.png", "image/png")
    button("Overlay", look.overlay_png(prediction, fill), "_overlay.png", "image/png")
    if opened.source is None:
        place.caption(plain(opened.no_results))
        return
    if threshold is not None:
        place.caption("Results in DICOM are those of the model's own threshold: put it back to have them.")
        return
    try:
        files = _kept(st, look.model.title, lambda: look.dicom(opened), "writes results in DICOM")
    except UserError as error:
        place.caption(plain(str(error)))
        return
    names = {"SEG": "Segmentation (DICOM SEG)", "SR": "Report (DICOM SR)", "SC": "Picture (DICOM SC)"}
    for kind, name in names.items():
        if kind in files:
            button(name, files[kind], f"_{kind.lower()}.dcm", "application/dicom")
    place.caption("DICOM results name the patient." + ("" if "SEG" in files else " No SEG: nothing was found."))


def _models(st: Any, desk: Desk) -> None:
    for tab, model in zip(st.tabs([plain(model.title) for model in desk.models]), desk.models, strict=True):
        with tab:
            first, *facts = (f"| {word} | {plain(text)} |" for word, text in about_model(model))
            st.markdown("\n".join([first, "|---|---|", *facts]))
            for text in model.warnings:
                st.warning(plain(text))
            if not model.path.is_dir():
                st.warning(
                    "Its folder is gone: it still segments from memory, but its card and report cannot be shown."
                )
                continue
            card, report = model.document("README.md"), model.document("report.html")
            if card is None:
                st.caption("A run folder: monai-thyroid pack makes a bundle with a model card and a report of it.")
            else:
                with st.expander("Model card", expanded=True):
                    st.markdown(card_text(card))
            if report is not None:
                with st.expander("Report"):
                    st.download_button("Save the report", report, "report.html", "text/html", on_click="ignore")
                    # As data it has an origin of its own and reaches nothing of this page, whoever made it.
                    encoded = base64.b64encode(report.encode()).decode("ascii")
                    st.iframe(f"data:text/html;charset=utf-8;base64,{encoded}", height=900)
