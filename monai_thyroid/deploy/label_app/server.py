"""What MONAI Label's server runs: our models, strategies, scores and trainings behind its interface.

Imported in the environment of `monai_thyroid.deploy.label_app.environment` only: it stands on MONAI Label, whose
classes it extends, as read in its release 0.8.5.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import random
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import processes

from monai_thyroid.data.layouts.listing import natural_key
from monai_thyroid.deploy.dicom import keep_patients_out_of_logs
from monai_thyroid.deploy.label_app.labels import contours, read_label, result_suffix, write_result
from monai_thyroid.deploy.label_app.place import Place, alive
from monai_thyroid.deploy.label_app.studies import SUFFIXES
from monai_thyroid.deploy.label_app.web import WebStudies, web_client
from monai_thyroid.deploy.learning import Epoch, rank, retrain, uncertainty
from monai_thyroid.deploy.pack import pack
from monai_thyroid.drawing import CLASSES, rgb
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.outcome import by_class, finite
from monai_thyroid.evaluation.predictor import Predictor
from monai_thyroid.files import write_json
from monai_thyroid.images import read_raster
from monai_thyroid.metrics import score_case

__all__ = ["ThyroidApp"]

logger = logging.getLogger(__name__)

_AT_ONCE = 16
"""Images whose uncertainty is found out while an annotator waits; the others in the background."""
_SERVER = "MONAI_THYROID_LABEL_SERVER"
"""The variable with the number of the server's process, for those that it starts."""
_TAG = re.compile(r"\w[\w-]*")


@contextmanager
def _answering(status: int = 400) -> Iterator[None]:
    """Let the client know what is wrong, in a sentence, instead of an error 500 without one."""
    try:
        yield
    except UserError as error:
        raise HTTPException(status_code=status, detail=str(error)) from error


def label_info(classes: Sequence[str]) -> list[dict[str, Any]]:
    """Name, number and colour (red, green, blue; 0 to 255) of each class, as MONAI Label has it."""
    colours = [rgb(CLASSES[number % len(CLASSES)]) for number in range(len(classes))]
    return [
        {"name": name, "idx": number, "color": list(colour)}
        for number, (name, colour) in enumerate(zip(classes, colours, strict=True), 1)
    ]


class _Applied:
    """A model that is applied, loaded when asked for and anew when training has put another one in its place."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        self._lock = threading.Lock()
        self._loaded: tuple[Path, Predictor] | None = None

    def __call__(self) -> Predictor:
        path = self._place.model(self._name)
        with self._lock:
            if self._loaded is None or self._loaded[0] != path:
                self._loaded = path, Predictor(path, runtime="torch-float32")
            return self._loaded[1]

    @property
    def weights(self) -> str:
        """SHA-256 of the weights that are applied now."""
        return "+".join(member.weights for member in self().members)


class _Segment(InferTask):
    """Proposes a mask."""

    def __init__(self, place: Place, name: str, applied: _Applied) -> None:
        super().__init__(
            type="segmentation",
            labels={one: number for number, one in enumerate(place.classes, 1)},
            dimension=2,
            description=f"{name}: {', '.join(place.classes)} in 2-D images",
            config={"result_extension": [".png", ".nrrd", ".nii.gz"]},
        )
        self._place, self._applied = place, applied

    def is_valid(self) -> bool:
        return True

    def info(self) -> dict[str, Any]:
        """With names and colours."""
        return {**super().info(), "label_info": label_info(self._place.classes), "nondeterministic": False}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        started = time.perf_counter()
        image = request["image"]
        with _answering():
            if not isinstance(image, str) or not os.path.isfile(image):
                raise UserError("image: there is none of that id; ask the datastore for those that are")
            suffix = result_suffix(_only(request.get("result_extension")))
            raster = read_raster(image)
            predictor = self._applied()
            prediction = predictor(raster)
            told = {
                "label_names": dict(self.labels),
                "label_info": label_info(self._place.classes),
                "weights_sha256": self._applied.weights,
                "agreement": None if prediction.agreement is None else list(prediction.agreement),
                "latencies": {"total": round(time.perf_counter() - started, 3)},
            }
            if request.get("output") == "json":  # the outlines, as CVAT's function of MONAI Label asks for
                elements = contours(prediction.mask, self._place.classes)
                return None, {**told, "annotations": [{"annotation": {"elements": elements}}]}
            handle, name = tempfile.mkstemp(suffix=suffix)
            os.close(handle)
            write_result(prediction.mask, Path(name), image=image, compress=bool(request.get("result_compress")))
        return name, told


def _only(value: Any) -> Any:
    """A choice that a client has sent as the list that it was offered means its first."""
    return value[0] if isinstance(value, list) and value else value


class _Batch(BatchInferTask):
    """Proposes masks for many images; one that fails does not keep the others from theirs."""

    def __call__(self, request: Mapping[str, Any], datastore: Any, infer: Callable[..., Any]) -> dict[str, Any]:
        images = sorted(self.get_images(request, datastore), key=natural_key)
        if most := int(request.get("max_batch_size") or 0):
            images = images[:most]
        results: dict[str, Any] = {}
        for image in images:
            asked = {
                **request,
                **{"image": image, "save_label": True, "result_extension": ".png"},
                "label_tag": request.get("label_tag") or DefaultLabelTag.ORIGINAL.value,
            }
            try:
                done = infer(asked, datastore)
                Path(done.pop("file")).unlink(missing_ok=True)
                results[image] = done
            except HTTPException as error:
                logger.warning("%s: %s", image, error.detail)
                results[image] = {"error": error.detail}
        return results


class _Train(TrainTask):
    """Trains a model on with what was annotated, by its own recipe; see `monai_thyroid.deploy.learning.retrain`."""

    def __init__(self, place: Place, name: str) -> None:
        super().__init__(f"Trains {name} on with the labels; a worse model is not taken over")
        self._place, self._name = place, name

    def config(self) -> dict[str, Any]:
        """What clients may set."""
        return {"max_epochs": self._place.settings["epochs"], "take_worse": False}

    def stats(self) -> dict[str, Any]:
        """What the last training came to, or how far it is."""
        found = self._place.state(f"training-{self._name}")
        if found.get("status") == "running" and not alive(int(found.get("process", 0))):
            found |= {"status": "stopped", "reason": "the training was stopped; the model is as it was"}
        return found

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        place, name = self._place, self._name
        epochs = request.get("max_epochs", place.settings["epochs"])
        started = time.time()
        told: dict[str, Any] = {
            "status": "running",
            "process": os.getpid(),
            "epoch": 0,
            "total_epochs": epochs,
            "best_metric": 0.0,
        }
        place.tell(f"training-{name}", told)

        def progress(epoch: Epoch) -> None:
            told["epoch"] = epoch.epoch
            told["total_epochs"] = max(int(epochs), epoch.epoch)
            if epoch.val_dice is not None and math.isfinite(epoch.val_dice):
                told["best_metric"] = max(told["best_metric"], epoch.val_dice)
            logger.info("%s: epoch %d of member %d of %d", name, epoch.epoch, epoch.member, epoch.members)
            place.tell(f"training-{name}", told)

        try:
            images, labels, groups_from = place.to_train(datastore.datalist(), datastore.patients())
            result = retrain(
                place.model(name),
                images=images,
                labels=labels,
                output_dir=place.path / "runs" / name,
                groups_from=groups_from,
                epochs=epochs,
                progress=progress,
            )
            taken = result.accepted or request.get("take_worse") is True
            if taken:
                target = place.next_model(name)
                pack(result.runs, output=target, report=False)
                place.take(name, target)
        except Exception as error:
            sentence = isinstance(error, UserError | HTTPException)
            reason = str(getattr(error, "detail", error))
            if not sentence:
                reason = f"the training failed, the model is as it was: {type(error).__name__}: {reason}"
            place.tell(f"training-{name}", {**told, "status": "failed", "reason": reason})
            if sentence:
                raise SystemExit(reason) from error
            raise
        told |= {
            "status": "done",
            "taken_over": taken,
            "reason": result.reason,
            "dice_before": result.before,
            "dice_after": result.after,
            "by_class": {key: list(value) for key, value in result.by_class.items()},
            "images": result.images,
            "groups": result.groups,
            "runs": [str(run) for run in result.runs],
            "best_metric": result.after if taken else result.before,
            "total_time": round(time.time() - started, 1),
        }
        place.tell(f"training-{name}", told)
        logger.info("%s: %s; %s", name, result.reason, "taken over" if taken else "not taken over")
        return told


class _Uncertainty(ScoringMethod):
    """How little each model's masks agree, of every image without a label."""

    def __init__(self, place: Place, applied: Mapping[str, _Applied]) -> None:
        super().__init__("1 less the agreement of an ensemble, or of mirror images, of every image without a label")
        self._place, self._applied = place, applied

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        found = {}
        try:
            for name in [request["model"]] if request.get("model") else list(self._applied):
                found[name] = scored(self._place, name, self._applied[name], datastore, at_once=None)
        except UserError as error:
            raise SystemExit(str(error)) from error
        return found


def scored(place: Place, name: str, applied: _Applied, datastore: Any, *, at_once: int | None) -> dict[str, float]:
    """Of every image without a label the uncertainty, as far as it is known, and of ``at_once`` more (None: all).

    Raises:
        UserError: the model has nothing to compare, or none of the images can be read.
    """
    predictor = applied()
    if not predictor.has_opinions:
        raise UserError(
            f"model {name}: is one model, trained without mirror images, so nothing tells where it is unsure; choose "
            "the strategy random or first, or serve an ensemble"
        )
    weights = applied.weights
    wanted = datastore.get_unlabeled_images()
    known = place.uncertainties(name, weights=weights)
    lacking = [image for image in wanted if image not in known]
    # Not the first of them: neighbours in an archive are of one patient.
    random.Random(0).shuffle(lacking)
    new, unread = {}, []
    for image in lacking[:at_once]:
        try:
            new[image] = uncertainty(predictor, read_raster(datastore.get_image_uri(image)))
        except (UserError, HTTPException) as error:  # the others go on
            unread.append(f"{image}: {getattr(error, 'detail', error)}")
            logger.warning("%s", unread[-1])
    if new:
        place.add_uncertainties(name, new, weights=weights)
    known |= new
    found = {image: known[image] for image in wanted if image in known}
    if unread and not found:
        raise UserError(unread[:5])
    return found


class _Dice(ScoringMethod):
    """Final labels against proposals (or any other tag), by this package's scoring policy."""

    def __init__(self, place: Place) -> None:
        super().__init__("Dice and the other scores of proposed against final labels, by the stated policy")
        self._place = place

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any]:
        tags = request.get("y") or "final", request.get("y_pred") or "original"
        classes = self._place.classes
        rows, cases = [], {}
        for image in sorted(datastore.list_images(), key=natural_key):
            files = [datastore.get_label_uri(image, tag) if _has(datastore, image, tag) else "" for tag in tags]
            if not all(files):
                continue
            truth, found = (_stored(file) for file in files)
            scores = [
                {"class": name, "error": "", **score_case(truth == number, found == number)}
                for number, name in enumerate(classes, 1)
            ]
            rows += scores
            cases[image] = {one["class"]: finite(one["dice"]) for one in scores}
        if not rows:
            raise SystemExit(
                f"no image has labels of both tags, {tags[0]} and {tags[1]}: infer with save_label, or in a batch"
            )
        result = {
            "y": tags[0],
            "y_pred": tags[1],
            "cases": cases,
            "classes": {
                name: {key: finite(value) if isinstance(value, float) else value for key, value in figures.items()}
                for name, figures in by_class(classes, rows).items()
            },
        }
        write_json(self._place.path / "state" / "scores-dice.json", result)
        return result


def _has(datastore: Any, image: str, tag: str) -> bool:
    return tag in datastore.get_labels_by_image_id(image)


def _stored(path: str) -> np.ndarray:
    """A label as this server stores it, PNG of class numbers."""
    return read_raster(path, mask=True, indices=True).pixels


class _First(Strategy):
    """The first without a label."""

    def __init__(self) -> None:
        super().__init__("The first image without a label, in natural order")

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images()
        return {"id": min(images, key=natural_key)} if images else None


class _Random(Strategy):
    """Any without a label, each with the same chance."""

    def __init__(self) -> None:
        super().__init__("Any image without a label")

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        images = sorted(datastore.get_unlabeled_images())
        return {"id": random.choice(images)} if images else None


class _Uncertain(Strategy):
    """That on which a model's masks agree least."""

    def __init__(self, app: ThyroidApp) -> None:
        super().__init__("The image on which the members of the ensemble, or mirror images, agree least")
        self._app = app

    def __call__(self, request: Mapping[str, Any], datastore: Any) -> dict[str, Any] | None:
        app = self._app
        name = request.get("model") or next(iter(app.applied))
        with _answering():
            if name not in app.applied:
                raise UserError(f"model {name}: choose one of {', '.join(app.applied)}")
            scores = scored(app.place, name, app.applied[name], datastore, at_once=_AT_ONCE)
        images = datastore.get_unlabeled_images()
        if not scores:
            return None
        if len(scores) < len(images) and not processes("scoring"):
            app.async_scoring("uncertainty", {"uncertainty": {"model": name}})
        best = rank(scores)[0]
        return {"id": best, "uncertainty": scores[best], "scored": len(scores), "unlabeled": len(images)}


class _Labels:
    """What both stores of images check before they keep a label, and keep of it: PNG of class numbers."""

    place: Place

    def checked(self, image_id: str, image: str, file: str, tag: str, info: Mapping[str, Any]) -> np.ndarray:
        """The class numbers in a file that a client has sent."""
        if not _TAG.fullmatch(tag):
            raise UserError(f"tag {tag}: give a word")
        if not image:
            raise UserError(f"image {image_id}: there is none of that id")
        told = info.get("label_info")
        segments = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else None
        return read_label(
            file,
            image=image,
            shape=read_raster(image).pixels.shape[:2],
            classes=self.place.classes,
            segments=segments
            if isinstance(segments, list) and all(isinstance(one, dict) for one in segments)
            else None,
        )

    @contextmanager
    def as_png(self, labels: np.ndarray, image: str) -> Iterator[str]:
        """A file of them, while it is copied."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "label.png")
            write_result(labels, path, image=image)
            yield str(path)

    def kept(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """What is told of a label, its numbers being ours."""
        return {**info, "label_info": label_info(self.place.classes)}


class _Folder(_Labels, LocalDatastore):
    """Images of a folder, in a place of the server's own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        super().__init__(
            str(place.studies),
            extensions=[f"*{suffix}" for suffix in SUFFIXES],
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        )

    def _to_id(self, file: str) -> tuple[str, str]:
        return _identity(file)

    def patients(self) -> dict[str, str]:
        """See `Place.patients`."""
        return self.place.patients()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: what is labelled is the folder that the server was started with."""
        raise HTTPException(400, "images are added to the folder of studies; then start monai-thyroid label anew")

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Keep a label of an image, if it is one."""
        label_tag = _word(label_tag)
        with _answering():
            image = self.get_image_uri(image_id)
            labels = self.checked(image_id, image, label_filename, label_tag, label_info or {})
        with self.as_png(labels, image) as file:
            return str(super().save_label(image_id, file, label_tag, self.kept(label_info or {})))


class _Web(_Labels, DICOMWebDatastore):
    """Images of a DICOMweb server; final labels are kept there too, as DICOM SEG."""

    def __init__(self, place: Place, url: str) -> None:
        self.place = place
        client = web_client(
            url, user=settings.MONAI_LABEL_DICOMWEB_USERNAME, password=settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
        self.web = WebStudies(client, filters=settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER, classes=place.classes)
        super().__init__(client=client, search_filter={}, cache_path=str(place.path / "dicomweb"))
        self._extensions = [f"*{suffix}" for suffix in SUFFIXES]

    def _to_id(self, file: str) -> tuple[str, str]:
        return _identity(file)

    @property
    def _fetched(self) -> Path:
        return Path(self._datastore.image_path()).resolve()

    def list_images(self) -> list[str]:
        """The series that are one image each, as the server has them now."""
        with _answering(502):
            return list(self.web.series())

    def get_image_uri(self, image_id: str) -> str:
        """The image as PNG, fetched where it was not before."""
        target = self._fetched / f"{image_id}.png"
        with _answering():
            if not re.fullmatch(r"[0-9.]{1,64}", image_id):
                raise UserError(f"image {image_id}: is no Series Instance UID")
            if not target.is_file() or image_id not in self._datastore.objects:
                with tempfile.TemporaryDirectory() as folder:
                    made = Path(folder, f"{image_id}.png")
                    series = self.web.picture(image_id, self._fetched, made)
                    told = {"SeriesInstanceUID": series.series, "StudyInstanceUID": series.study}
                    told |= {"Modality": series.modality, "group": series.patient}
                    LocalDatastore.add_image(self, image_id, str(made), told)
        return str(target)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The label as PNG."""
        return str(LocalDatastore.get_label_uri(self, image_id or label_id, label_tag))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Those with a final label here, those that somebody has drawn elsewhere fetched first."""
        self._download_labeled_data()
        there = set(self.list_images())
        return [image for image in LocalDatastore.get_labeled_images(self) if image in there]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """The others."""
        done = set(self.get_labeled_images())
        return [image for image in self.list_images() if image not in done]

    def _download_labeled_data(self) -> None:
        with _answering(502):
            known = LocalDatastore.get_labeled_images(self)
            drawn = self.web.drawn(self._fetched.parent / "segmentations", but=known)
        for image_id, labels in drawn.items():
            image = self.get_image_uri(image_id)
            if labels.shape != read_raster(image).pixels.shape[:2]:
                logger.warning("series %s: a segmentation of another size is left out", image_id)
                continue
            with self.as_png(labels, image) as file:
                LocalDatastore.save_label(self, image_id, file, DefaultLabelTag.FINAL.value, self.kept({}))

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Images and their final labels."""
        self._download_labeled_data()
        return list(LocalDatastore.datalist(self, full_path))

    def patients(self) -> dict[str, str]:
        """By image id, see `group_of_patient`."""
        return {
            name: str(one.image.info["group"])
            for name, one in self._datastore.objects.items()
            if one.image.info.get("group")
        }

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: images come from the DICOMweb server."""
        raise HTTPException(400, "images are sent to the DICOMweb server, not here")

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Keep a label of an image, if it is one; a final one on the server first."""
        label_tag = _word(label_tag)
        with _answering():
            image = self.get_image_uri(image_id)
            labels = self.checked(image_id, image, label_filename, label_tag, label_info or {})
            told = self.kept(label_info or {})
            if label_tag == DefaultLabelTag.FINAL.value:
                told["SeriesInstanceUID"] = self.web.send(image_id, self._fetched, labels)
        with self.as_png(labels, image) as file:
            return str(LocalDatastore.save_label(self, image_id, file, label_tag, told))


def _word(tag: str) -> str:
    """A tag, of which MONAI Label's own are members of an enumeration."""
    return str(getattr(tag, "value", tag))


def _identity(file: str) -> tuple[str, str]:
    """Name and suffix of a file."""
    suffix = next((end for end in sorted(SUFFIXES, key=len, reverse=True) if file.endswith(end)), Path(file).suffix)
    return file[: len(file) - len(suffix)], suffix


class ThyroidApp(MONAILabelApp):
    """The app of ``monai-thyroid label``.

    Args:
        app_dir: ``app/`` of a `Place`.
        studies: as the server was started with.
        conf: of the command line; not used.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        server = int(os.environ.setdefault(_SERVER, str(os.getpid())))
        if server != os.getpid():  # a training or the like, which ends with the server, however that ends
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != server:
                raise SystemExit("the server has ended")
        keep_patients_out_of_logs()
        self.place = Place(Path(app_dir).parent)
        self.applied = {name: _Applied(self.place, name) for name in self.place.settings["given"]}
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="monai_thyroid",
            description=f"2-D segmentation of {', '.join(self.place.classes)}. Research use only.",
            labels=self.place.classes,
        )

    def init_datastore(self) -> Any:
        """Of a folder, or of a DICOMweb server."""
        if self.studies.startswith(("http://", "https://")):
            return _Web(self.place, self.studies)
        return _Folder(self.place)

    def init_infers(self) -> dict[str, InferTask]:
        """One for each model."""
        return {name: _Segment(self.place, name, applied) for name, applied in self.applied.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """One for each model."""
        return {name: _Train(self.place, name) for name in self.applied}

    def init_strategies(self) -> dict[str, Strategy]:
        """The least agreed first, or any, or in order."""
        return {"uncertain": _Uncertain(self), "random": _Random(), "first": _First()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Of images without labels, and of proposals."""
        return {"uncertainty": _Uncertainty(self.place, self.applied), "dice": _Dice(self.place)}

    def init_batch_infer(self) -> Callable[..., Any]:
        """All, or those with labels, or those without."""
        return _Batch()

    def info(self) -> dict[str, Any]:
        """With names and colours of the classes."""
        return {**super().info(), "label_info": label_info(self.place.classes)}

    def infer(self, request: Mapping[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Propose a mask, of an image of the studies or of one that a client has sent; no other file is read."""
        image = request.get("image")
        if isinstance(image, str) and os.path.exists(image):
            allowed = [Path(tempfile.gettempdir()), self.place.path / "sessions"]
            if not any(folder.resolve() in Path(image).resolve().parents for folder in allowed):
                raise HTTPException(400, f"image {image}: is no image of the studies")
        if request.get("model") not in self.applied:
            raise HTTPException(404, f"model {request.get('model')}: choose one of {', '.join(self.applied)}")
        return dict(super().infer(request, datastore))

    def train(self, request: Mapping[str, Any]) -> Any:
        """Train, in the process that MONAI Label has started for it."""
        if request.get("model") not in self.applied:
            raise HTTPException(404, f"model {request.get('model')}: choose one of {', '.join(self.applied)}")
        return super().train(request)

    def _download_dcmqi_tools(self) -> None:
        """Not needed: segmentations are written here."""
