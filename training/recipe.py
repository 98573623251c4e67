"""What a training run does, as frozen, validated options: one object per section of a recipe file.

Every default is the value a section has when the recipe leaves it out; ``train.py --print-recipe`` shows them all. The
options of single losses, optimisers and schedules are declared where those are (`LOSSES`, `OPTIMISERS`, `SCHEDULES`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from lesion_hub.config import Count, NonNegative, NonNegativeCount, Options, Positive, ProperShare, Switch
from lesion_hub.files import sha256_of_json
from lesion_hub.models.networks import build_head
from lesion_hub.models.zoo import require_architecture
from lesion_hub.taxonomy import label_space, nearest
from lesion_hub.training.augmentation import AugmentationOptions, MixingOptions
from lesion_hub.training.components import as_value_error, given_options, is_own, options_of, owners_of, with_options_of
from lesion_hub.training.feed import SAMPLERS
from lesion_hub.training.losses import LOSSES, check_own_loss
from lesion_hub.training.optimisers import OPTIMISERS
from lesion_hub.training.schedules import SCHEDULES, make_schedule


def _one_of(value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"unknown {value!r}; {nearest(value, known)}")
    return value


# ------------------------------------------------------------------------------------------------ data


class SourceOptions(Options):
    """One data set below the data root (or a Hub data set id), read by ``lesion_hub.data.read``.

    ``part`` keeps one part of the split that the set's authors published. ``license`` follows the data into the weights.
    """

    folder: str = "."
    layout: str | None = None
    name: str | None = None
    license: str = "cc-by-nc-4.0"
    revision: str | None = None
    part: Literal["train", "val", "test"] | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    images: tuple[str, ...] = ()
    allow_missing: Switch = False

    @property
    def title(self) -> str:
        return self.name or self.layout or self.folder


class PartitionOptions(Options):
    """How ``train`` is divided where validation or test have no source of their own.

    ``grouped`` deals whole groups (lesions, patients, near-duplicate images) out class by class; ``official`` takes the split
    that the data set came with, cutting a validation part where it has none; ``manifest`` reads a saved split (a path below
    the data root, or absolute). Where parts come from different places, training images that a later part holds too are left
    out. ``allow_absent`` accepts a class that is too rare for every part.
    """

    kind: Literal["grouped", "official", "manifest"] = "grouped"
    validation: ProperShare = 0.2
    test: ProperShare = 0.0
    manifest: str | None = None
    near_duplicates: Switch = True
    allow_absent: Switch = False
    seed: NonNegativeCount = 0

    @model_validator(mode="after")
    def _possible(self) -> PartitionOptions:
        if self.validation + self.test >= 1:
            raise ValueError(f"split.validation {self.validation} + split.test {self.test} leave nothing to train on")
        if (self.kind == "manifest") != (self.manifest is not None):
            raise ValueError("split.manifest and split.kind: manifest go together; give both or neither")
        return self


class DrawOptions(Options):
    """A balanced draw: ``per_class`` training images of every class, with replacement, drawn once."""

    per_class: Count
    seed: NonNegativeCount = 0


class DataOptions(Options):
    """Where images and labels come from. ``validation`` and ``test`` are cut from ``train`` where they name no source.

    ``space`` null is the space that the labels themselves make. ``cache_size`` is the short side of the cached training
    images (null: what the model's input needs), ``cache_aspect`` their width / height (null: that of the images).
    ``streaming`` reads images from Parquet or tar shards, here or on the Hub, as they are needed and keeps none; each process
    then holds ``shuffle_buffer`` encoded images, from which it draws.
    """

    space: str | None = None
    train: tuple[SourceOptions, ...] = Field(default=(SourceOptions(),), min_length=1)
    validation: tuple[SourceOptions, ...] = ()
    test: tuple[SourceOptions, ...] = ()
    split: PartitionOptions = PartitionOptions()
    draw: DrawOptions | None = None
    cache_size: Count | None = None
    cache_aspect: Positive | None = None
    streaming: Switch = False
    shuffle_buffer: Count = 1000

    @field_validator("space")
    @classmethod
    def _known_space(cls, value: str | None) -> str | None:
        if value is not None:
            with as_value_error():
                label_space(value)
        return value

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _validated_on_something(self) -> DataOptions:
        drawn = self.split.kind == "grouped" and not self.validation
        if drawn and self.split.validation == 0:
            raise ValueError("split.validation is 0 and there is no validation source; every run needs one to choose by")
        if self.test and self.split.kind == "grouped" and self.split.test > 0:
            raise ValueError("test has a source of its own and split.test cuts another; set split.test to 0")
        return self

    @model_validator(mode="after")
    def _streamed_or_not(self) -> DataOptions:
        if not self.streaming and "shuffle_buffer" in self.model_fields_set:
            raise ValueError("shuffle_buffer belongs to streaming: true; drop it, or set that")
        if self.streaming and self.draw is not None:
            raise ValueError("draw picks single images, which a stream cannot give; drop it, or set streaming to false")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # As for a loss: a recipe that streams nothing stays what it was before any could.
        unset = () if self.streaming else ("streaming", "shuffle_buffer")
        return {key: value for key, value in dump(self).items() if key not in unset}


# ------------------------------------------------------------------------------------------------ model


class ModelOptions(Options):
    """The network. ``pretrained`` is true (what timm downloads), false, the path of a .safetensors file, or a published
    model (``name`` or ``org/name``, with ``@v1.0.0`` to pin it), whose data and licence then follow into the new weights.

    ``image_size`` and ``drop_rate`` null keep the backbone's own.
    """

    backbone: str
    head: tuple[str | int, ...] | None = None
    metadata: Switch = False
    image_size: Count | None = None
    pretrained: bool | str = True
    drop_rate: ProperShare | None = None
    crop_pct: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0

    @field_validator("backbone")
    @classmethod
    def _known(cls, value: str) -> str:
        with as_value_error():
            require_architecture(value)
        return value

    @field_validator("head")
    @classmethod
    def _buildable(cls, value: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        if value is not None:
            with as_value_error():
                build_head(value, 8, 2)
        return value

    @model_validator(mode="after")
    def _one_dropout(self) -> ModelOptions:
        if self.head is not None and self.drop_rate:
            raise ValueError("drop_rate is for timm's own classifier; state the dropout inside head, as 'drop 0.3'")
        return self


# ------------------------------------------------------------------------------------------------ objective and order


@with_options_of(LOSSES)
class LossOptions(Options):
    """The loss (see ``lesion_hub.training.losses``); an option left null is the loss's own default.

    ``beta`` is that of ``class_weights: effective``. ``name`` may be a loss of your own, ``package.module:name``, which
    ``options`` are then for.
    """

    name: str = "cross_entropy"
    class_weights: Literal["inverse", "effective"] | None = None
    label_smoothing: ProperShare = 0.0
    beta: ProperShare | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if is_own(value) else _one_of(value, LOSSES)

    @model_validator(mode="after")
    def _options_fit(self) -> LossOptions:
        row = LOSSES.get(self.name)
        for option in given_options(self, LOSSES):
            if row is None or option not in row.options:
                owners = " and ".join(owners_of(LOSSES, option))
                raise ValueError(f"{option} belongs to {owners}, not to {self.name}; drop it")
        effective = self.class_weights == "effective" or (row is not None and row.class_weights == "effective")
        if self.beta is not None and not effective:
            raise ValueError("beta belongs to class_weights: effective; drop it, or set those")
        if row is None:
            with as_value_error():
                check_own_loss(self.name, self.options)
        elif self.options:
            raise ValueError(f"options are for a loss of your own (package.module:name), not for {self.name}; drop them")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The options that the recipe states, as ``make_loss`` takes them."""
        beta = {} if self.beta is None else {"beta": self.beta}
        return {**beta, **given_options(self, LOSSES), **self.options}

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes are told apart by what they dump: without options of its own one stays what it was before there were any.
        return {key: value for key, value in dump(self).items() if key != "options" or value}


class SamplerOptions(Options):
    """The order of an epoch: ``natural`` (every image once), ``weighted`` (classes drawn evenly), ``balanced`` (data.draw)."""

    kind: str = "natural"

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(value, SAMPLERS)


@with_options_of(OPTIMISERS)
class OptimiserOptions(Options):
    """The optimiser. ``layer_decay`` multiplies the learning rate once more for every layer further from the head."""

    name: str = "adamw"
    lr: Positive = 3e-4
    weight_decay: NonNegative = 0.0
    layer_decay: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(value, OPTIMISERS)

    @model_validator(mode="after")
    def _options_fit(self) -> OptimiserOptions:
        for option in self.given:
            if option not in OPTIMISERS[self.name].options:
                owners = owners_of(OPTIMISERS, option)
                theirs = [key for key in options_of(OPTIMISERS) if owners_of(OPTIMISERS, key) == owners]
                raise ValueError(f"{' and '.join(theirs)} belong to {' and '.join(owners)}, not {self.name}; drop them")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The options of the optimiser's own that the recipe states, as ``make_optimiser`` takes them."""
        return given_options(self, OPTIMISERS)


@with_options_of(SCHEDULES)
class ScheduleOptions(Options):
    """The learning rate over each phase, after a linear warm-up; an option left null is the schedule's own default."""

    name: str = "cosine"
    warmup_epochs: NonNegative = 0.0

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of(value, SCHEDULES)

    @model_validator(mode="after")
    def _options_fit(self) -> ScheduleOptions:
        with as_value_error():
            make_schedule(self.name, lr=1.0, total_steps=1, **self.given)
        return self

    @property
    def given(self) -> dict[str, Any]:
        """The options of the schedule's own that the recipe states, as ``make_schedule`` takes them."""
        return given_options(self, SCHEDULES)


class Phase(Options):
    """A stretch of epochs with one set of trainable layers.

    ``train`` is ``head``, ``all``, or the number of last blocks of the backbone that train with the head. ``lr`` replaces
    the optimiser's; every phase runs the schedule anew. ``freeze_norm`` holds the batch-norm statistics of the whole
    backbone, not of its frozen layers alone. The last phase takes the epochs that are left, and so has none of its own.
    """

    train: Literal["head", "all"] | Count = "all"
    epochs: Count | None = None
    lr: Positive | None = None
    freeze_norm: Switch = False


class ProbeOptions(Options):
    """Solve for the last layer on the features of a backbone that stays as it is.

    ``epochs`` is then how many augmented views of every image there are. The loss, a convex one, is minimised with
    ``strength`` / 2 times the squared length of the weights (of standardised features) added, for each of ``strengths`` from
    the strongest on; ``early_stopping`` counts them as it counts epochs.
    """

    strengths: tuple[Positive, ...] = Field(default=(1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4), min_length=1)

    @field_validator("strengths")
    @classmethod
    def _decreasing(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value), reverse=True):
            raise ValueError("every strength is below the one before it; sort them, the strongest first")
        return value


class DistillOptions(Options):
    """Learn from a teacher too, a published model or ensemble (``name@v1.0.0``), which sees every image as the network does.

    ``weight`` is the teacher's share of the loss: the divergence of the network's probabilities from its own, both of logits
    over ``temperature``, times its square (Hinton et al. 2015, arXiv 1503.02531).
    """

    teacher: str
    weight: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    temperature: Positive = 2.0


class EarlyStopping(Options):
    """Stop when validation balanced accuracy has not risen by more than ``min_delta`` for ``patience`` epochs."""

    patience: Count
    min_delta: NonNegative = 0.0


class EmaOptions(Options):
    """Exponential moving average of the weights; it is what is validated and published.

    ``start`` is the share that the weights have in it from which the run starts: of a published model that is trained on, some
    of what it knew is kept.
    """

    decay: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.999
    warmup: Switch = True
    start: ProperShare = 0.0

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key != "start" or value}


class CheckpointOptions(Options):
    """When to save (always at the end of an epoch) and how many to keep beside the best."""

    every_steps: Count | None = None
    keep: Count = 2


# ------------------------------------------------------------------------------------------------ the recipe


# What a probe, which is solved and not trained step by step, has no use for.
_OF_THE_LOOP = ("optimiser", "schedule", "phases", "mixing", "distill", "accumulation", "clip", "compile", "ema", "checkpoints")


class Recipe(Options):
    """One training run, complete but for the data root. With a ``probe`` it solves for the last layer alone.

    ``gate`` fits an input gate at the end (see ``lesion_hub.evaluation.gate_fit``).

    ``precision`` and ``compile`` ``auto`` are chosen when the run begins, and kept (see ``lesion_hub.training.execution``).
    """

    name: str = "recipe"
    data: DataOptions
    model: ModelOptions
    loss: LossOptions = LossOptions()
    sampler: SamplerOptions = SamplerOptions()
    optimiser: OptimiserOptions = OptimiserOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    phases: tuple[Phase, ...] = (Phase(),)
    augmentation: AugmentationOptions | None = AugmentationOptions()
    mixing: MixingOptions = MixingOptions()
    distill: DistillOptions | None = None
    epochs: Count
    batch_size: Count = 32
    accumulation: Count = 1
    clip: Positive | None = None
    precision: Literal["bf16", "fp16", "fp32", "auto"] = "fp32"
    channels_last: Switch = False
    compile: Switch | Literal["auto"] = False
    ema: EmaOptions | None = None
    early_stopping: EarlyStopping | None = None
    probe: ProbeOptions | None = None
    checkpoints: CheckpointOptions = CheckpointOptions()
    gate: Switch = True
    seed: NonNegativeCount = 0

    @field_validator("compile", mode="before")
    @classmethod
    def _compiled_or_not(cls, value: Any) -> Any:
        if value != "auto" and not isinstance(value, bool):
            raise ValueError("use true, false or auto")
        return value

    @field_validator("phases")
    @classmethod
    def _last_takes_the_rest(cls, phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        if not phases:
            return (Phase(),)
        if phases[-1].epochs is not None:
            raise ValueError("the last phase takes the epochs that are left; drop its epochs")
        if any(phase.epochs is None for phase in phases[:-1]):
            raise ValueError("every phase but the last needs its number of epochs")
        return phases

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if (self.data.draw is not None) != (self.sampler.kind == "balanced"):
            raise ValueError("data.draw and sampler.kind: balanced go together; give both or neither")
        if self.data.streaming and self.sampler.kind != "natural":
            raise ValueError(
                f"sampler {self.sampler.kind} picks single images, which a stream cannot give; set sampler.kind to natural, "
                "and loss.class_weights where classes are uneven"
            )
        loss, space = LOSSES.get(self.loss.name), self.data.space
        if loss is not None and loss.binary and space is not None and len(label_space(space)) != 2:
            raise ValueError(f"loss {self.loss.name} is for two classes and {space} has more; use cross_entropy")
        if self.probe is not None:
            for key in _OF_THE_LOOP:
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is for training step by step, and a probe is solved; drop {key}, or probe")
            if loss is None or not loss.convex:
                convex = ", ".join(name for name, row in LOSSES.items() if row.convex)
                raise ValueError(f"a probe is solved with a convex loss ({convex}), not {self.loss.name}")
        return self

    @model_serializer(mode="wrap")
    def _what_applies(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes are told apart by what they dump: without probe and teacher, and with a gate, which is the default, one stays
        # what it was before there were any.
        unused = {"probe"} if self.probe is None else set(_OF_THE_LOOP)
        unused |= {"distill"} if self.distill is None else set()
        unused |= {"gate"} if self.gate else set()
        return {key: value for key, value in dump(self).items() if key not in unused}

    def fingerprint(self) -> str:
        """Hash everything the recipe says: 64 hex digits."""
        return sha256_of_json(self.model_dump(mode="json"))


class EnsembleRecipe(Options):
    """Members trained one by one on the same data, and how their probabilities are weighted.

    ``members`` are names of shipped recipes or paths; their ``data`` sections must be equal, so that all see one split
    and one draw. ``set`` holds overrides (``key=value``) for every member.
    """

    kind: Literal["ensemble"]
    name: str = "ensemble"
    members: tuple[str, ...] = Field(min_length=2)
    set: tuple[str, ...] = ()
    weights: tuple[NonNegative, ...]
    combine: Literal["probabilities", "logits"] = "probabilities"

    @model_validator(mode="after")
    def _weights_match(self) -> EnsembleRecipe:
        if len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members; give one for each")
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights sum to {sum(self.weights):g}, not 1")
        return self
