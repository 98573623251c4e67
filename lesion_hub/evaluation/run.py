"""``evaluate``: a model and a data set in; predictions, numbers with intervals, plots and a report out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from lesion_hub.config import ModelConfig, Options, read_json, validated
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation import robustness
from lesion_hub.evaluation.assessment import assess, calibration_effect, points_that_fit
from lesion_hub.evaluation.figures import Figure, draw_figures
from lesion_hub.evaluation.intervals import RESAMPLES
from lesion_hub.evaluation.report import write_report
from lesion_hub.evaluation.scoring import BATCH, Progress, Scored, in_space, score, shared_space, views_of
from lesion_hub.evaluation.selection import (
    Choice,
    Memory,
    Overlap,
    choose_rows,
    find_near_duplicates,
    find_overlap,
    memories,
    reminded,
)
from lesion_hub.hub.atomic import write_bytes, write_text
from lesion_hub.hub.card_facts import training_of
from lesion_hub.hub.layout import METRICS_NAME, load_config
from lesion_hub.hub.store import Resolved, resolve
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.taxonomy import LABEL_SPACES, nearest

if TYPE_CHECKING:
    from datasets import Dataset

PREDICTIONS_NAME = "predictions.parquet"
REPORT_NAME = "report.html"
# What a part is called on the command line, and in metrics.json.
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test", "all": "all"}


class EvaluateOptions(Options):
    """How to evaluate.

    ``split`` is the part to score (train, val, test, or all); ``manifest`` a split file that says which images that is.
    ``as_space`` coarsens labels and probabilities. ``tta`` averages mirrored and turned views. ``force`` evaluates on data
    that the model has seen. ``near_duplicates`` looks for those by their pictures too, among the images of the data or of
    ``training_data``. ``stress`` measures robustness.
    """

    split: str = "test"
    manifest: Path | None = None
    as_space: str | None = None
    tta: bool = False
    force: bool = False
    near_duplicates: bool = False
    training_data: str | None = None
    stress: bool = False
    batch_size: int = Field(default=BATCH, ge=1)
    resamples: int = Field(default=RESAMPLES, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("split")
    @classmethod
    def _is_a_part(cls, value: str) -> str:
        if value not in SPLITS:
            raise ValueError(f"unknown part {value!r}; {nearest(value, SPLITS)}")
        return "val" if value == "validation" else value

    @field_validator("as_space")
    @classmethod
    def _is_a_space(cls, value: str | None) -> str | None:
        if value is not None and value not in LABEL_SPACES:
            raise ValueError(f"unknown label space {value!r}; {nearest(value, LABEL_SPACES)}")
        return value


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation. ``section`` is what ``metrics.json`` holds under ``part``; the files lie in ``out``."""

    out: Path
    part: str
    section: Mapping[str, Any] = field(repr=False)
    scored: Scored = field(repr=False)
    overlap: Overlap
    model: Resolved
    figures: tuple[Figure, ...] = field(repr=False)

    @property
    def report(self) -> Path:
        return self.out / REPORT_NAME


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a model on chosen images, ``dataset``, of ``data``."""

    found: Resolved
    predictor: Predictor
    data: ReadResult
    dataset: Dataset
    choice: Choice
    overlap: Overlap


def evaluate(
    model: str | Path,
    data: str | Path | ReadResult,
    *,
    out: str | Path,
    revision: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate a model or an ensemble and write everything into the folder ``out``.

    Args:
        model: Hub id, registry name, or model folder.
        data: folder, table or Hub data set, or what ``lesion_hub.data.read`` returned.
        out: folder for predictions.parquet, metrics.json, report.html and plots/.
        revision, registry, token, device: as for ``from_pretrained``.
        progress: called with (images done, images in all).
        options: fields of ``EvaluateOptions``.

    Raises `DataError` where the model was trained on some of the images, unless ``force``; then the report says so.

        done = evaluate("ham10000-trio", "data/ham10000", out="evaluation/")
        done.section["balanced_accuracy"], done.report
    """
    chosen = validated(EvaluateOptions, options, "evaluate")
    place = Path(out)
    make_folder(place)
    source = data if isinstance(data, ReadResult) else read(data)
    found = resolve(model, revision, registry=registry, token=token)
    known = memories(found, registry=registry, token=token)
    predictor = from_pretrained(model, revision=revision, registry=registry, token=token, device=device)
    subject = select(found, source, known, chosen, predictor)
    native, scored = _scored(subject, chosen, progress)
    section = describe(subject, native, scored, chosen)
    figures = draw_figures(scored, section)
    part = SPLITS[chosen.split]
    done = Evaluation(place, part, section, scored, subject.overlap, found, figures)
    _write(done, subject)
    return done


def select(found: Resolved, data: ReadResult, known: list[Memory], options: EvaluateOptions, predictor: Predictor) -> Subject:
    """Choose the images, and refuse those that the model has seen."""
    known = reminded(known, options.manifest)
    choice = choose_rows(data, options.split, known, options.manifest)
    dataset = data.dataset.select(choice.rows)
    overlap = find_overlap(dataset, known, options.split)
    if options.near_duplicates:
        near = find_near_duplicates(dataset, data.dataset, known, options.training_data)
        overlap = Overlap(overlap.known, overlap.parts, overlap.images, overlap.groups, near, near_checked=True)
    if overlap and not options.force:
        raise DataError(
            f"{found.name} was made with some of these images: {overlap}; its score on them says nothing, "
            "evaluate on other images, or force it and let the report say so"
        )
    return Subject(found, predictor, data, dataset, choice, overlap)


def _scored(subject: Subject, options: EvaluateOptions, progress: Progress | None) -> tuple[Scored, Scored]:
    """The predictions in the finest space of model and data, and in the one asked for."""
    finest = shared_space(subject.predictor.space, subject.data.space)
    native = score(
        subject.predictor,
        subject.dataset,
        subject.data.space,
        space=finest,
        tta=views_of(subject.predictor, options.tta),
        batch_size=options.batch_size,
        progress=progress,
    )
    if options.as_space is None:
        return native, native
    return native, in_space(native, shared_space(finest, finest, options.as_space))


def describe(subject: Subject, native: Scored, scored: Scored, options: EvaluateOptions) -> dict[str, Any]:
    """All numbers of the evaluation, as plain JSON values."""
    predictor = subject.predictor
    points = points_that_fit(predictor.operating_points, predictor.space, scored.space)
    sampling = {"resamples": options.resamples, "seed": options.seed}
    section: dict[str, Any] = {
        "data": _data_facts(subject, scored, options),
        "overlap": subject.overlap.to_dict() | {"forced": bool(subject.overlap)},
        "views": views_of(predictor, options.tta),
        **assess(
            scored.probabilities, scored.labels, scored.groups, scored.space, points=points, facts=scored.facts, **sampling
        ),
    }
    temperature = _temperature(subject.found)
    if temperature is not None and not options.tta and native.space == predictor.space:
        section["calibration"] = calibration_effect(
            native.probabilities, native.labels, native.groups, native.space, temperature, **sampling
        )
    if options.stress:
        stressed = robustness.stress(predictor, subject.dataset, subject.data.space, scored.space, seed=options.seed)
        section["robustness"] = robustness.summarise(stressed, points, options.seed)
    return section


def _data_facts(subject: Subject, scored: Scored, options: EvaluateOptions) -> dict[str, Any]:
    report = subject.data.report
    training = training_of(load_config(subject.found.folder))
    sources = [source.name for source in training.data if source.through is None] if training and subject.choice.own else []
    return {
        "name": ", ".join(sources) or Path(report.place).name or report.place,
        "source": report.source,
        "split": options.split,
        "selection": subject.choice.how,
        "images": len(scored),
        "groups": len(set(scored.groups)),
    }


def _temperature(found: Resolved) -> float | None:
    config = load_config(found.folder)
    return config.lesion_hub.temperature if isinstance(config, ModelConfig) else config.temperature


def make_folder(place: Path) -> None:
    """Make a folder for results, or say in one line why it cannot be."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be made ({error.strerror}); choose another --out") from None


def _write(done: Evaluation, subject: Subject) -> None:
    """Every file of the evaluation; the report, which says that it is complete, comes last."""
    done.scored.save(done.out / PREDICTIONS_NAME)
    facts = {"name": done.model.display_name, "revision": done.model.revision, "labels": list(subject.predictor.labels)}
    content = {"model": facts, done.part: done.section}
    write_text(done.out / METRICS_NAME, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    save_figures(done.out / "plots", done.figures, done.part)
    write_report(done.report, facts, done.section, done.figures, done.scored, subject.dataset)


def save_figures(folder: Path, figures: tuple[Figure, ...], part: str) -> None:
    """The plots as ``<name>_<part>.png``."""
    make_folder(folder)
    for figure in figures:
        write_bytes(folder / f"{figure.name}_{part}.png", figure.png)


def record(done: Evaluation) -> Path:
    """Put an evaluation into the model folder that it was made of: ``metrics.json``, from which the card is made, and plots.

    A published version never changes, and a forced result is no result: both are refused.
    """
    folder = done.model.folder
    if done.model.revision is not None:
        raise ConfigError(f"{done.model.name} {done.model.revision} is published and never changes; record into its run folder")
    if done.overlap:
        raise ConfigError(f"{folder}: results on images that the model has seen are not recorded; evaluate on others")
    path = folder / METRICS_NAME
    before = read_json(path) if path.is_file() else {}
    earlier = before.get(done.part) or {}
    kept = {name: earlier[name] for name in ("robustness", "attribution") if name in earlier}
    content = {**before, done.part: {**kept, **done.section}}
    save_figures(folder / "plots", done.figures, done.part)
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path
