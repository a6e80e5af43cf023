"""What results say of the model: its name, its weights, and the codes of its classes."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.sr.coding import Code

from monai_thyroid import __version__
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model
from monai_thyroid.files import read_json

__all__ = ["OWN_SCHEME", "ClassFacts", "ModelFacts", "coded_class", "model_facts", "result_uid"]

OWN_SCHEME = "99MONAITHYROID"
"""Designator of the codes that no standard has."""

_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
_ANATOMICAL = Code("91723000", "SCT", "Anatomical Structure")
_TISSUE = Code("85756007", "SCT", "Tissue")
_THYROID = Code("69748006", "SCT", "Thyroid")
_NECK = Code("45048000", "SCT", "Neck")
_COLON = Code("71854001", "SCT", "Colon")


@dataclass(frozen=True)
class ClassFacts:
    """One class and its codes.

    Attributes:
        name: of the class, as the model has it.
        category: of the segmented property (DICOM CID 7150).
        type: of the segmented property (DICOM CID 7151 or SNOMED CT).
        site: anatomic region, where it is known.
    """

    name: str
    category: Code
    type: Code
    site: Code | None = None


_NODULE = Code("27925004", "SCT", "Nodule")
_KNOWN = {
    "nodule": (_ABNORMAL, _NODULE, _THYROID),
    "benign": (_ABNORMAL, _NODULE, _THYROID),
    "malignant": (_ABNORMAL, _NODULE, _THYROID),
    "gland": (_ANATOMICAL, _THYROID, None),
    "thyroid": (_ANATOMICAL, _THYROID, None),
    "head": (_ANATOMICAL, Code("69536005", "SCT", "Head"), None),
    "nerve": (_ANATOMICAL, Code("91728009", "SCT", "Nerve"), _NECK),
    "vessel": (_ANATOMICAL, Code("59820001", "SCT", "Blood Vessel"), None),
    "polyp": (_ABNORMAL, Code("41329004", "SCT", "Polyp"), _COLON),
    "lung": (_ANATOMICAL, Code("39607008", "SCT", "Lung"), None),
}


def coded_class(name: str) -> ClassFacts:
    """A class with SNOMED CT codes where its name is one of the bundles', else with a code of this package's scheme."""
    if name.lower() in _KNOWN:
        category, kind, site = _KNOWN[name.lower()]
        return ClassFacts(name, category, kind, site)
    value = re.sub(r"[^A-Z0-9_]", "_", name.upper())
    if value != name.upper() or not 0 < len(value) <= 16:  # classes of other names have other codes
        value = f"{value[:11]}_{hashlib.sha256(name.encode()).hexdigest()[:4].upper()}"
    return ClassFacts(name, _TISSUE, Code(value, OWN_SCHEME, name[:64]))


@dataclass(frozen=True)
class ModelFacts:
    """What results say of the model that made them.

    Attributes:
        name: of the model, at most 64 characters.
        version: of the model, at most 64 characters.
        weights_sha256: SHA-256 of its weights, 64 hexadecimal digits; of an ensemble see `model_facts`.
        classes: in the order of their numbers, from 1.
        manufacturer: who is responsible for it, at most 64 characters.
        settings: what else decides the results, such as threshold and postprocessing, as text.

    Raises:
        UserError: one of them cannot stand in a DICOM object.
    """

    name: str
    version: str
    weights_sha256: str
    classes: tuple[ClassFacts, ...]
    manufacturer: str = "monai_thyroid"
    settings: str = ""

    @property
    def fingerprint(self) -> str:
        """Of all that decides the results, so that objects of one UID never differ; 64 hexadecimal digits."""
        return hashlib.sha256(f"{self.weights_sha256}\n{self.settings}".encode()).hexdigest()

    @property
    def parameters(self) -> dict[str, str]:
        """Of the algorithm, as results name them."""
        return {"weights_sha256": self.weights_sha256}

    def __post_init__(self) -> None:
        problems = [
            f"model's {what} {text!r}: give 1 to 64 characters, without a backslash and line breaks"
            for what, text in (("name", self.name), ("version", self.version), ("manufacturer", self.manufacturer))
            if not text.strip() or len(text) > 64 or "\\" in text or not text.isprintable()
        ]
        if not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
            problems.append(f"model's weights_sha256 {self.weights_sha256!r}: give 64 hexadecimal digits")
        if not self.classes:
            problems.append("model's classes: give at least one")
        if problems:
            raise UserError(problems)


def model_facts(models: Sequence[Model], *, manufacturer: str = "monai_thyroid", **options: Any) -> ModelFacts:
    """The facts of a model, or of an ensemble, whose hash is that of its members' sorted hashes.

    Args:
        models: one or several, of the same classes.
        manufacturer: who is responsible.
        options: with which it is applied, as far as they change results, such as ``tta``.
    """
    hashes = sorted(model.weights for model in models)
    joint = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    names = list(dict.fromkeys(_name(model) for model in models))
    name = names[0] if len(models) == 1 else f"ensemble of {len(models)}: {', '.join(names)}"
    settings = {
        "version": __version__,
        "threshold": models[0].threshold,
        "postprocessing": models[0].postprocessing.as_dict(),
        **options,
    }
    return ModelFacts(
        name=name[:64],
        version=f"{__version__} (weights {joint[:12]})",
        weights_sha256=joint,
        classes=tuple(map(coded_class, models[0].classes)),
        manufacturer=manufacturer,
        settings=json.dumps(settings, sort_keys=True),
    )


def _name(model: Model) -> str:
    try:
        record = read_json(model.path / "run.json")
        words = [str(record[key]) for key in ("bundle", "network") if record.get(key)]
    except (OSError, ValueError, AttributeError, TypeError):
        words = []
    text = re.sub(r"[^ -~]|\\", "_", " ".join(words) or model.path.resolve().name)
    return text.strip() or "model"


def result_uid(*parts: str) -> str:
    """A UID that is the same for the same parts, derived as PS3.5 B.2 does it from a UUID (of RFC 9562's version 5)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(('monai_thyroid', *parts))).int}"
