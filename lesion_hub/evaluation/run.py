"""Evaluate a model on a data set: write its predictions, measures with intervals, plots and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from lesion_hub.config import Options, validated
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation import robustness
from lesion_hub.evaluation.assessment import assess, points_that_fit
from lesion_hub.evaluation.calibration import calibration_effect
from lesion_hub.evaluation.external import EXTERNAL, ExternalSet, describe_external
from lesion_hub.evaluation.intervals import RESAMPLES
from lesion_hub.evaluation.overlap import ChosenImages, Overlap, choose_images, data_name, sources_of, training_records
from lesion_hub.evaluation.plots import PlotFile, draw_figures
from lesion_hub.evaluation.report import write_report
from lesion_hub.evaluation.rules import answers_by, judge_rules
from lesion_hub.evaluation.scoring import BATCH, Scored, in_space, score_dataset, shared_space, views_of
from lesion_hub.files import read_json, write_bytes, write_json
from lesion_hub.hub.layout import METRICS_NAME, load_config, own_section
from lesion_hub.hub.store import Resolved, resolve
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.inference.decisions import MOST_PROBABLE, Decide, Prior, check_decision
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import ABSTAIN, LABEL_SPACES, LabelSpace, nearest

if TYPE_CHECKING:
    from datasets import Dataset

PREDICTIONS_NAME = "predictions.parquet"
REPORT_NAME = "report.html"
# From the name of a part on the command line to its name in metrics.json.
EVALUATED_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test", "all": "all"}


class EvaluateOptions(Options):
    """How to evaluate.

    ``split`` is the part to score (train, val, test, or all); ``manifest`` a split file that says which images that is.
    ``as_space`` coarsens labels and probabilities. ``tta`` averages mirrored and turned views. ``force`` evaluates on data
    that the model has seen. ``near_duplicates`` looks for those by their pictures too, among the images of the data or of
    ``training_data``. ``stress`` measures robustness. ``decide`` and ``prior`` measure one more decision, beside the most
    probable label, the balanced one and the operating points (``inference.decisions``). ``external`` names a set that is
    measured elsewhere, whose ``licence``, ``origin`` and perhaps a ``note`` go with the results (``evaluation.external``).
    """

    split: str = "test"
    manifest: Path | None = None
    as_space: str | None = None
    tta: bool = False
    force: bool = False
    near_duplicates: bool = False
    training_data: str | None = None
    stress: bool = False
    external: Annotated[str, Field(pattern=r"^\S.{0,79}$")] | None = None
    licence: str | None = None
    origin: str | None = None
    note: str | None = None
    decide: Decide | None = None
    prior: Prior | None = None
    batch_size: int = Field(default=BATCH, ge=1)
    resamples: int = Field(default=RESAMPLES, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("split")
    @classmethod
    def _is_a_part(cls, value: str) -> str:
        if value not in EVALUATED_PARTS:
            raise ValueError(f"unknown part {value!r}; {nearest(value, EVALUATED_PARTS)}")
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
    figures: tuple[PlotFile, ...] = field(repr=False)
    external: str | None = None

    @property
    def results(self) -> dict[str, Any]:
        """What ``metrics.json`` gets: the section under its part, or under the name of the set that was measured elsewhere."""
        return {self.part: self.section if self.external is None else {self.external: self.section}}

    @property
    def report(self) -> Path:
        return self.out / REPORT_NAME


@dataclass(frozen=True)
class EvaluationInput:
    """A model, and the images to evaluate it on: ``dataset`` holds those that were chosen of ``data``."""

    found: Resolved
    predictor: Predictor
    data: ReadResult
    dataset: Dataset
    choice: ChosenImages
    overlap: Overlap

    def describe(self, split: str, scored: Scored, name: str | None = None) -> dict[str, Any]:
        """Describe which images were measured, under ``name`` or their folder's, and which of them the model has seen."""
        return {
            "data": {
                "name": name or data_name(self.data),
                "source": self.data.report.source,
                "split": split,
                "selection": self.choice.how,
                "images": len(scored),
                "groups": len(set(scored.groups)),
            },
            "overlap": self.overlap.to_dict() | {"forced": bool(self.overlap)},
        }


def evaluate(
    model: str | Path,
    data: str | Path | ReadResult,
    *,
    out: str | Path,
    revision: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    device: str = "cpu",
    engine: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate a model or an ensemble and write everything into the folder ``out``.

    Args:
        model: Hub id, registry name, or model folder.
        data: folder, table or Hub data set, or what ``lesion_hub.data.read`` returned.
        out: folder for predictions.parquet, metrics.json, report.html and plots/.
        revision, registry, token, device, engine: as for ``from_pretrained``.
        progress: called with (images done, images in all), and once more from the start for ``stress``.
        options: fields of ``EvaluateOptions``.

    Raises `DataError` where the model was trained on some of the images, unless ``force``; then the report says so.

        done = evaluate("dermoscopy-trio", "data/ham10000", out="evaluation/")
        done.section["balanced_accuracy"], done.report
    """
    chosen = validated(EvaluateOptions, options, "evaluate")
    place = Path(out)
    make_folder(place)
    source = data if isinstance(data, ReadResult) else read(data)
    about = None
    if chosen.external is not None:
        about = ExternalSet.of(chosen.external, source, chosen.licence, chosen.origin, chosen.note)
    given = load_input(model, revision, source, chosen, registry=registry, token=token, device=device, engine=engine)
    # The predictions in the finest space of model and data, and in the one asked for.
    finest = shared_space(given.predictor.space, source.space)
    target = finest if chosen.as_space is None else shared_space(finest, finest, chosen.as_space)
    points = points_that_fit(given.predictor.operating_points, given.predictor.space, target)
    check_decision(chosen.decide or MOST_PROBABLE, chosen.prior, given.predictor.space, points, given.predictor.rules)
    native = score_input(given, given.dataset, finest, chosen, progress)
    scored = native if target == finest else in_space(native, target)
    kept = np.flatnonzero(scored.labels != ABSTAIN)
    if not len(kept):
        raise DataError(f"no image has a label in {scored.space.name!r}; evaluate in another label space")
    native, scored = native.select(kept), scored.select(kept)
    section = describe_evaluation(given, native, scored, chosen, progress)
    if about is not None:
        predictor, sampling = given.predictor, {"resamples": chosen.resamples, "seed": chosen.seed}
        known = (predictor.space, given.found.folder, predictor.operating_points, predictor.rules, sampling)
        section["data"]["name"] = about.name
        section |= describe_external(about, scored, source.space, *known)
    figures = draw_figures(scored, section)
    done = Evaluation(place, EVALUATED_PARTS[chosen.split], section, scored, given.overlap, given.found, figures)
    scored.save(place / PREDICTIONS_NAME)
    if chosen.external is not None:
        done = replace(done, part=EXTERNAL, external=chosen.external)
    facts = {"name": done.model.display_name, "revision": done.model.revision, "labels": list(given.predictor.labels)}
    write_json(place / METRICS_NAME, {"model": facts, **done.results})
    save_figures(place / "plots", figures, done.part)
    # The report comes last: it says that the evaluation is complete.
    write_report(done.report, facts, section, figures, scored, given.dataset)
    return done


def load_input(
    model: str | Path,
    revision: str | None,
    data: ReadResult,
    options: EvaluateOptions,
    *,
    registry: str | Path | None,
    token: str | None,
    device: str,
    engine: str,
) -> EvaluationInput:
    """Load the model and choose the images to evaluate on; those that it has seen are refused."""
    found = resolve(model, revision, registry=registry, token=token)
    records = training_records(found, registry=registry, token=token)
    predictor = from_pretrained(model, revision=revision, registry=registry, token=token, device=device, engine=engine)
    check_decision(options.decide or MOST_PROBABLE, options.prior, predictor.space, predictor.operating_points, predictor.rules)
    choice, overlap = choose_images(
        found.name,
        data,
        records,
        split=options.split,
        manifest=options.manifest,
        near_duplicates=options.near_duplicates,
        training_data=options.training_data,
        force=options.force,
    )
    return EvaluationInput(found, predictor, data, data.dataset.select(choice.rows), choice, overlap)


def score_input(
    given: EvaluationInput, dataset: Dataset, space: LabelSpace, options: EvaluateOptions, progress: Progress | None
) -> Scored:
    """Score ``dataset``, images of ``given.data``, in a label space."""
    return score_dataset(
        given.predictor,
        dataset,
        given.data.space,
        space=space,
        tta=views_of(given.predictor, options.tta),
        batch_size=options.batch_size,
        progress=progress,
    )


def describe_evaluation(
    given: EvaluationInput, native: Scored, scored: Scored, options: EvaluateOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Compute all numbers of the evaluation, as plain JSON values."""
    predictor = given.predictor
    own = own_section(load_config(given.found.folder))
    training, temperature = own.training, own.temperature
    # A part of its own split has the name that the model knows it by, whatever its folder is called here.
    sources = sources_of(training.data_names, given.dataset) if training and given.choice.own else []
    points = points_that_fit(predictor.operating_points, predictor.space, scored.space)
    sampling: dict[str, Any] = {"resamples": options.resamples, "seed": options.seed}
    section: dict[str, Any] = {
        **given.describe(options.split, scored, ", ".join(sources)),
        "views": views_of(predictor, options.tta),
        **assess(
            scored.probabilities, scored.labels, scored.groups, scored.space, points=points, facts=scored.facts, **sampling
        ),
    }
    own_labels = native.probabilities if native.native is None else native.native
    asked = options.decide or (None if options.prior is None else MOST_PROBABLE)
    answers = answers_by(own_labels, predictor.space, points, predictor.rules, native, decide=asked, prior=options.prior)
    section |= judge_rules(answers, scored, predictor.space, predictor.rules, **sampling)
    if temperature is not None and not options.tta and native.space == predictor.space:
        section["calibration"] = calibration_effect(
            native.probabilities, native.labels, native.groups, native.space, temperature, **sampling
        )
    if options.stress:
        spaces = given.data.space, scored.space
        stressed = robustness.stress(predictor, given.dataset, *spaces, seed=options.seed, progress=progress)
        section["robustness"] = robustness.summarise_robustness(stressed, points, options.seed)
    return section


def make_folder(place: Path) -> None:
    """Make a folder for results, or raise one line that says why it cannot be made."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be made ({error.strerror}); choose another --out") from None


def save_figures(folder: Path, figures: tuple[PlotFile, ...], part: str) -> None:
    """Write the plots as ``<name>_<part>.png``."""
    make_folder(folder)
    for figure in figures:
        write_bytes(folder / f"{figure.name}_{part}.png", figure.png)


def record(done: Evaluation) -> Path:
    """Put an evaluation into the folder of its model: into ``metrics.json``, from which the card is made, and the plots.

    Refused for a published version, which never changes, and for a forced evaluation, whose numbers mean nothing.
    """
    folder = done.model.folder
    if done.model.revision is not None:
        raise ConfigError(f"{done.model.name} {done.model.revision} is published and never changes; record into its run folder")
    if done.overlap:
        raise ConfigError(f"{folder}: results on images that the model has seen are not recorded; evaluate on others")
    path = folder / METRICS_NAME
    before = read_json(path, missing_ok=True)
    if done.external is not None:
        write_json(path, {**before, EXTERNAL: {**before.get(EXTERNAL, {}), done.external: done.section}})
        return path
    earlier = before.get(done.part) or {}
    kept = {name: earlier[name] for name in ("robustness", "attribution") if name in earlier}
    content = {**before, done.part: {**kept, **done.section}}
    save_figures(folder / "plots", done.figures, done.part)
    if done.scored.space == load_config(folder).space and done.section["views"] == 1:
        done.scored.save(folder / f"predictions_{done.part}.parquet")
    write_json(path, content)
    return path
