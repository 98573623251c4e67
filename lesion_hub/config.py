"""Frozen, validated config objects and the JSON files they live in.

``config.json`` keeps timm's own root keys, so that timm and transformers read it natively, plus one root key of ours,
``lesion_hub``. ``ensemble.json`` is ours alone. Unknown keys raise and name the nearest known one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lesion_hub.errors import ConfigError, one_line
from lesion_hub.files import json_text, read_json
from lesion_hub.taxonomy import LabelSpace, nearest, space_from_labels

CONFIG_NAME = "config.json"
ENSEMBLE_NAME = "ensemble.json"

ENGINE_VARIABLE = "LESION_HUB_ENGINE"
"""What the engine ``auto`` stands for, where it is set; with ``torch`` publishing makes no graph either."""

Precision = Literal["float32", "int8"]
"""Of the ONNX files that a model may be published with."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0, le=1)]

# Strict: YAML's ``yes`` is no count and ``"32"`` no number.
Switch = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
NonNegativeCount = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
ProperShare = Annotated[float, Field(strict=True, ge=0, lt=1)]

# Bounds of what a foreign config may ask of this machine; the largest of timm's networks sees 1024 pixels.
LARGEST_SIDE = 2048
LARGEST_SCALE = 4096
MOST_LABELS = 10_000
MOST_MEMBERS = 64
_LARGEST_CONFIG = 1 << 23  # bytes
Side = Annotated[int, Field(strict=True, ge=8, le=LARGEST_SIDE)]
Temperature = Annotated[float, Field(strict=True, ge=1e-3, le=1e3, allow_inf_nan=False)]


class Options(BaseModel):
    """Base of every options object: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OperatingPoint(Options):
    """A malignancy threshold: call a lesion suspicious when its malignant probability is at least ``threshold``."""

    threshold: Probability
    metric: Literal["sensitivity", "specificity"]
    target: Probability
    chosen_on: str = "validation"


class LabelSets(Options):
    """Which labels a set names: those whose score is at most their limit (``inference.label_sets``).

    ``limits`` holds a label's limit for each of ``coverages``, ``lesions`` how many lesions of it they were fitted on. A label
    that had none has no limit.
    """

    coverages: tuple[Annotated[float, Field(strict=True, gt=0, lt=1)], ...] = Field(min_length=1, max_length=100)
    lesions: dict[str, NonNegativeCount]
    limits: dict[str, tuple[Annotated[float, Field(ge=0, le=MOST_LABELS)], ...]]
    chosen_on: str = "validation"

    @model_validator(mode="after")
    def _limits_fit_coverages(self) -> LabelSets:
        wrong = [label for label, limits in self.limits.items() if len(limits) != len(self.coverages)]
        if wrong:
            raise ValueError(f"limits of {wrong[0]!r} are not one for each of the {len(self.coverages)} coverages")
        if not set(self.limits) <= set(self.lesions):
            raise ValueError("limits are of labels whose lesions are not counted")
        return self


class BalancedDecision(Options):
    """Decide for the label whose probability, over a power of its share among validation images, is the highest."""

    power: Annotated[float, Field(ge=0, le=4)]
    shares: dict[str, Probability]
    chosen_on: str = "validation"

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> BalancedDecision:
        if not math.isclose(sum(self.shares.values()), 1.0, abs_tol=1e-4):
            raise ValueError(f"shares sum to {sum(self.shares.values()):.6g}, not 1")
        return self


Signal = Literal["confidence", "set_size", "disagreement", "scope"]


class Abstention(Options):
    """When to abstain: where the ``weights``-ed sum of the signals of doubt is above a limit (``inference.abstention``).

    ``limits`` holds, by the error that the remaining answers shall have, the limit that reached it; ``answered`` the share of
    images that it left.
    """

    weights: dict[Signal, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    limits: dict[str, Annotated[float, Field(ge=0, le=1)]]
    answered: dict[str, Probability]
    chosen_on: str = "validation"


class AnswerRules(Options):
    """How an answer is read off the probabilities, as fitted on validation: label sets, the balanced decision, abstention."""

    label_sets: LabelSets | None = None
    decision: BalancedDecision | None = None
    abstention: Abstention | None = None

    @property
    def parts(self) -> tuple[LabelSets | None, BalancedDecision | None, Abstention | None]:
        return self.label_sets, self.decision, self.abstention

    def refuse_other_labels(self, labels: tuple[str, ...]) -> None:
        """Raise ValueError where a rule is of other labels than the model's."""
        sets, decision = self.label_sets, self.decision
        if sets is not None and set(sets.lesions) != set(labels):
            raise ValueError("rules.label_sets are of other labels than label_names")
        if decision is not None and set(decision.shares) != set(labels):
            raise ValueError("rules.decision is of other labels than label_names")


class DataSource(Options):
    """A data set that a model saw in training, and the licence that follows it into the weights.

    ``through`` names the published model that the training started from, where it was that one which saw the data.
    """

    name: str
    revision: str | None = None
    license: str
    images: int | None = None
    through: str | None = None


class Training(Options):
    """Where a model's weights come from; without a recipe they were trained elsewhere."""

    recipe: str | None = None
    data: tuple[DataSource, ...] = Field(min_length=1)
    split_hash: Sha256 | None = None
    seed: int = 0
    base_model: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)

    @property
    def data_names(self) -> list[str]:
        """Name the data sets that this training itself read, without those behind its start or its teacher."""
        return [source.name for source in self.data if source.through is None]


class GateSection(Options):
    """The key ``gate``: the input gate that was published beside the weights, and where its verdicts begin.

    An image whose score is below ``refuse_below`` is out of scope, one with at least ``accept_from`` in scope, and one between
    the two unsure.
    """

    sha256: Sha256
    refuse_below: Probability
    accept_from: Probability

    @model_validator(mode="after")
    def _in_order(self) -> GateSection:
        if self.accept_from < self.refuse_below:
            raise ValueError(f"accept_from {self.accept_from:g} is below refuse_below {self.refuse_below:g}")
        return self


class LesionHubSection(Options):
    """The key ``lesion_hub`` of ``config.json``: what timm's keys do not hold.

    ``graphs`` holds, by precision, the sha256 of the ONNX files that were published beside the weights; ``gate`` is absent
    where no input gate was fitted.
    """

    format_version: Literal[1] = 1
    label_space: str
    temperature: Temperature | None = None
    operating_points: dict[str, OperatingPoint] = Field(default_factory=dict)
    rules: AnswerRules | None = None
    training: Training | None = None
    weights_sha256: Sha256
    graphs: dict[Precision, Sha256] | None = None
    gate: GateSection | None = None


Mean = Annotated[float, Field(ge=-1000, le=1000)]
Deviation = Annotated[float, Field(strict=True, ge=1e-6, le=1000)]


class InputConfig(Options):
    """timm's ``pretrained_cfg``, narrowed to what a published model may state about its input and classifier.

    ``test_input_size`` and ``test_crop_pct`` are left out on purpose: transformers would prefer them and timm would not.
    """

    architecture: str
    input_size: tuple[Literal[3], Side, Side] = (3, 224, 224)
    fixed_input_size: bool = False
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    crop_pct: Annotated[float, Field(ge=0.1, le=1)] = 1.0
    crop_mode: Literal["center", "squash", "border"] = "center"
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    num_classes: int
    pool_size: tuple[int, int] | None = None
    first_conv: str | tuple[str, ...] | None = None
    classifier: str | tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _scaled_image_is_bounded(self) -> InputConfig:
        scale = math.floor(max(self.input_size[1:]) / self.crop_pct)
        if scale > LARGEST_SCALE:
            raise ValueError(f"crop_pct {self.crop_pct:g} has images scaled to {scale} pixels, more than {LARGEST_SCALE}")
        return self


class ModelConfig(Options):
    """The whole of ``config.json``."""

    architecture: str
    num_classes: Annotated[int, Field(ge=2, le=MOST_LABELS)]
    num_features: Annotated[int, Field(ge=1)]
    label_names: tuple[str, ...]
    label_descriptions: dict[str, str]
    model_args: dict[str, Any] = Field(default_factory=dict)
    pretrained_cfg: InputConfig
    dtype: Literal["float32"] = "float32"
    auto_map: dict[str, str] | None = None
    lesion_hub: LesionHubSection

    @field_validator("model_args")
    @classmethod
    def _no_doubled_arguments(cls, value: dict[str, Any]) -> dict[str, Any]:
        doubled = sorted({"num_classes", "in_chans", "pretrained"} & set(value))
        if doubled:
            raise ValueError(f"{doubled[0]} belongs to the root alone: transformers would pass it twice")
        return value

    @model_validator(mode="after")
    def _labels_match(self) -> ModelConfig:
        if len(self.label_names) != self.num_classes:
            raise ValueError(f"label_names has {len(self.label_names)} entries but num_classes is {self.num_classes}")
        if self.pretrained_cfg.num_classes != self.num_classes:
            raise ValueError("pretrained_cfg.num_classes differs from num_classes")
        if set(self.label_descriptions) != set(self.label_names):
            raise ValueError("label_descriptions must describe exactly the label_names")
        if self.lesion_hub.rules is not None:
            self.lesion_hub.rules.refuse_other_labels(self.label_names)
        return self

    @property
    def space(self) -> LabelSpace:
        return space_from_labels(self.lesion_hub.label_space, self.label_names)


def with_graph(config: ModelConfig, sha256: str, precision: Precision = "float32") -> ModelConfig:
    """Return the config of a model that is published with the ONNX file of this hash too."""
    graphs = {**(config.lesion_hub.graphs or {}), precision: sha256}
    return config.model_copy(update={"lesion_hub": config.lesion_hub.model_copy(update={"graphs": graphs})})


def with_gate(config: ModelConfig, gate: GateSection) -> ModelConfig:
    """Return the config of a model that is published with this input gate too."""
    return config.model_copy(update={"lesion_hub": config.lesion_hub.model_copy(update={"gate": gate})})


REGISTRY_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.)){0,94}")
REPO_ID = re.compile(rf"{REGISTRY_NAME.pattern}/{REGISTRY_NAME.pattern}")
_NUMBER = "(?:0|[1-9][0-9]*)"
MEMBER_REVISION = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}|[0-9a-f]{{40}}")


class EnsembleMember(Options):
    """One member, pinned: a registry name or Hub repo id, a version or commit, and its weights' sha256."""

    name: str
    revision: str
    weights_sha256: Sha256

    @field_validator("name")
    @classmethod
    def _is_name_or_repo_id(cls, value: str) -> str:
        if not (REGISTRY_NAME.fullmatch(value) or REPO_ID.fullmatch(value)):
            raise ValueError(f"member {value!r} is neither a registry name nor a Hub repo id (org/name)")
        return value

    @field_validator("revision")
    @classmethod
    def _is_pinned(cls, value: str) -> str:
        if not MEMBER_REVISION.fullmatch(value):
            raise ValueError(f"member revision {value!r} is not pinned; use a version (v1.0.0) or a full commit id")
        return value


class FittedOn(Options):
    """The images that chose an ensemble's weights, temperature or thresholds: their data set, and digests as in split.json."""

    data: str
    images: str
    groups: str


class EnsembleConfig(Options):
    """The whole of ``ensemble.json``: its probabilities are the weighted mean of the members', then tempered.

    ``weights_sha256`` is there where the members' weights travel with the ensemble (see ``hub.bundle``).
    """

    format_version: Literal[1] = 1
    label_space: str
    label_names: tuple[str, ...] = Field(min_length=2, max_length=MOST_LABELS)
    members: tuple[EnsembleMember, ...] = Field(min_length=1, max_length=MOST_MEMBERS)
    weights: tuple[Annotated[float, Field(ge=0)], ...]
    combine: Literal["probabilities", "logits"] = "probabilities"
    temperature: Temperature = 1.0
    operating_points: dict[str, OperatingPoint] = Field(default_factory=dict)
    rules: AnswerRules | None = None
    training: Training | None = None
    weights_sha256: Sha256 | None = None
    fitted_on: FittedOn | None = None

    @model_validator(mode="after")
    def _weights_match(self) -> EnsembleConfig:
        if len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members")
        if not math.isclose(sum(self.weights), 1.0, abs_tol=1e-6):
            raise ValueError(f"weights sum to {sum(self.weights):.6g}, not 1")
        if self.rules is not None:
            self.rules.refuse_other_labels(self.label_names)
        return self

    @property
    def space(self) -> LabelSpace:
        return space_from_labels(self.label_space, self.label_names)


# ------------------------------------------------------------------------------------------------ files and error lines

Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """Build ``kind`` from plain data; a mistake becomes one ConfigError line that starts with ``where``.

    >>> validated(OperatingPoint, {"treshold": 0.5, "metric": "sensitivity", "target": 0.9}, "config.json")
    Traceback (most recent call last):
    lesion_hub.errors.ConfigError: config.json: unknown key 'treshold'; did you mean 'threshold'?
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(kind, error)}") from None


def _first_problem(kind: type[BaseModel], error: ValidationError) -> str:
    """Describe the most telling of pydantic's findings: an unknown key explains a missing one, so it comes first."""
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = problems[0]
    path = one_line(".".join(map(str, first["loc"])))[:200]  # keys are anybody's, a line stays one
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, first["loc"][:-1])
        return f"unknown key {path!r}; {nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"key {path!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _fields_at(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model found at ``path`` below ``kind``, looking through Optional, tuple and dict."""
    models = _models_in(kind)
    for step in path:
        models = [
            m
            for model in models
            for m in (_models_in(model.model_fields[str(step)].annotation) if str(step) in model.model_fields else [model])
        ]
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def dump_json(config: BaseModel) -> str:
    """Return the stable JSON text of a config: the fields' own order, two-space indent, absent options left out."""
    return json_text(config.model_dump(mode="json", exclude_none=True))


def load_model_config(folder: Path) -> ModelConfig:
    """Read and validate ``config.json`` of a model folder."""
    path = folder / CONFIG_NAME
    config = validated(ModelConfig, read_json(path, largest=_LARGEST_CONFIG), str(path))
    _ = config.space  # raises when the labels are not those of the space they claim
    return config


def load_ensemble_config(folder: Path) -> EnsembleConfig:
    """Read and validate ``ensemble.json`` of an ensemble folder."""
    path = folder / ENSEMBLE_NAME
    config = validated(EnsembleConfig, read_json(path, largest=_LARGEST_CONFIG), str(path))
    _ = config.space
    return config
