"""A run from recipe to publishable folder, and an ensemble of runs.

`train_recipe` reads the data, builds the parts of the loop, runs it and finishes. An ensemble recipe trains its members,
which several workers may share out, and describes what they make together; its ``ensemble.json`` pins *published* members,
so publish each member's folder first, then give ``ensemble_members.json`` to ``lesion-hub ensemble create``.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from lesion_hub.config import load_model_config
from lesion_hub.data.cache import CacheSpec
from lesion_hub.data.shards import ShardedImages
from lesion_hub.errors import ConfigError
from lesion_hub.models import LesionClassifier
from lesion_hub.training.augmentation import AugmentationOptions, Augmenter, augmentation_picture, eval_batch
from lesion_hub.training.claims import Claim, Claims, alone_in, work_through
from lesion_hub.training.data import Part, read_run_data
from lesion_hub.training.device import with_fitting_batch
from lesion_hub.training.execution import (
    Capabilities,
    Execution,
    Precision,
    RunFacts,
    Timing,
    choose,
    keep_execution,
    time_steps,
)
from lesion_hub.training.feed import EpochPlan, TrainingFeed, epoch_order, open_pixels, streamed_order, usual_aspect
from lesion_hub.training.finish import finish
from lesion_hub.training.inputs import keep_inputs
from lesion_hub.training.launch import LaunchOptions, make_accelerator, start_tracker
from lesion_hub.training.loop import Loop
from lesion_hub.training.measure import PartScorer
from lesion_hub.training.probe import Probe
from lesion_hub.training.recipe import EnsembleRecipe, Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.reporting import Report
from lesion_hub.training.run_folder import RunFolder
from lesion_hub.training.start import Lineage, build_classifier
from lesion_hub.training.teacher import teacher_for
from lesion_hub.training.workers import local_workers

IMAGES_PICTURED = 4
MEMBERS_NAME = "ensemble_members.json"


def train_recipe(
    recipe: Recipe,
    options: LaunchOptions,
    after_epoch: Callable[[list[dict[str, Any]]], None] | None = None,
    claim: Claim | None = None,
) -> RunFolder:
    """Train ``recipe``, or go on where its run in ``options.out`` stopped, or ended with fewer epochs; return the folder.

    ``after_epoch`` is called with the records of all epochs so far, on resuming too, and may raise to end the run there.
    No other process may train in the folder meanwhile: a worker that shares runs out gives its ``claim`` on this one, without
    which the run is claimed here. It is confirmed after every epoch.
    """
    folder = RunFolder(options.out)
    accelerator = make_accelerator(recipe, options)
    whole = alone_in(options.out, accelerator, restart=options.restart) if claim is None else nullcontext(claim)
    with whole as held, folder.freed_unless_saved(restart=options.restart):

        def confirmed(history: list[dict[str, Any]]) -> None:
            held.confirm()
            if after_epoch is not None:
                after_epoch(history)

        _train(recipe, options, folder, accelerator, confirmed)
    return folder


def _train(
    recipe: Recipe,
    options: LaunchOptions,
    folder: RunFolder,
    accelerator: Accelerator,
    after_epoch: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Make ``folder`` that of ``recipe``, train, and write the model into it."""
    with accelerator.main_process_first():
        recipe = folder.claim(
            recipe, restart=options.restart and accelerator.is_main_process, any_batch=options.find_batch_size
        )
    reopened = folder.reopened_by(recipe)
    if folder.finished and not reopened:
        accelerator.print(f"{folder.path}: this run is finished; more epochs go on with it, --restart trains it anew")
        return
    data = read_run_data(recipe, options, folder, accelerator)
    lineage = Lineage.of(recipe)
    lineage.refuse_seen(data.parts)
    keep_inputs(folder, data, lineage, accelerator)
    classifier = build_classifier(recipe, data.space, lineage.start)
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    classifier.network.to(accelerator.device, memory_format=memory_format)
    execution = choose_execution(folder, recipe, classifier, data.parts["train"], accelerator)
    accelerator = make_accelerator(execution.applied_to(recipe), options)
    if options.find_batch_size and not folder.started and recipe.probe is None:
        recipe = with_fitting_batch(recipe, classifier, accelerator)
        if accelerator.is_main_process:
            folder.write_recipe(recipe)
    feed, validation = build_feeds(recipe, classifier, data.parts, accelerator, options, folder)
    if reopened and accelerator.is_main_process:
        folder.reopen(recipe)
    recipe = execution.applied_to(recipe)
    start_tracker(accelerator, recipe, options)
    try:
        with Report(recipe, folder, feed.steps_per_epoch, accelerator, after_epoch) as report:
            if recipe.probe is None:
                checkpoints = folder.checkpoints(recipe.checkpoints.keep)
                teacher = teacher_for(recipe, classifier, accelerator.device)
                history = Loop(recipe, classifier.network, feed, validation, accelerator, checkpoints, report, teacher).run()
            else:
                checkpoints = folder.checkpoints(keep=recipe.epochs)
                history = Probe(recipe, classifier, feed, validation, accelerator, checkpoints, report).run()
        if accelerator.is_main_process:
            outcome = finish(folder, recipe, classifier, data, history, lineage)
            report.summary(outcome)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


def choose_execution(
    folder: RunFolder,
    recipe: Recipe,
    classifier: LesionClassifier,
    train: Part,
    accelerator: Accelerator,
    batches: int | None = None,
) -> Execution:
    """Return how the run in ``folder`` is executed; where that is chosen now, say what and why in one line.

    ``batches`` are the micro-batches that one process will train on, by default those of the recipe's epochs.
    """
    network, device = classifier.network, accelerator.device
    if batches is None:
        images = len(train) if train.draw is None else len(train.draw)
        batches = recipe.epochs * EpochPlan(recipe.batch_size, world=accelerator.num_processes).steps(images)
    facts = RunFacts.of(network, batches, phases=len(recipe.phases))

    def timed(precision: Precision, compiled: bool) -> Timing:
        shown = torch.randn(recipe.batch_size, *classifier.input_config.input_size, device=device)
        if recipe.channels_last:
            shown = shown.to(memory_format=torch.channels_last)
        metadata = train.metadata_of(np.arange(recipe.batch_size) % len(train), device)
        return time_steps(network, shown, metadata, precision, compiled, backward=recipe.probe is None)

    def chosen(able: Capabilities) -> Execution:
        made = choose(recipe.precision, recipe.compile, able, facts, timed)
        if "auto" in (recipe.precision, recipe.compile):
            accelerator.print(made)
        return made

    return keep_execution(folder, recipe, accelerator, chosen)


def build_feeds(
    recipe: Recipe,
    classifier: LesionClassifier,
    parts: dict[str, Part],
    accelerator: Accelerator,
    options: LaunchOptions,
    folder: RunFolder,
) -> tuple[TrainingFeed, PartScorer]:
    """Make the training feed and the scorer of the validation part, which read images cached in the same way."""
    config, device, train = classifier.input_config, accelerator.device, parts["train"]
    side = recipe.data.cache_size or math.floor(min(config.input_size[1:]) / config.crop_pct)
    spec = CacheSpec.for_size(side, aspect=recipe.data.cache_aspect or usual_aspect(train.images))
    with accelerator.local_main_process_first():
        pixels = {name: open_pixels(parts[name], spec, options.cache_root, device) for name in ("train", "validation")}
    augmenter = Augmenter(
        recipe.augmentation or AugmentationOptions.none(),
        (config.input_size[1], config.input_size[2]),
        mean=config.mean,
        std=config.std,
        seed=recipe.seed,
        channels_last=recipe.channels_last,
    )
    if accelerator.is_main_process:
        rows = np.arange(min(IMAGES_PICTURED, len(train)))
        images = pixels["train"].reader.read(rows)
        augmentation_picture(images, augmenter, stretch=pixels["train"].stretch(rows)).save(folder.picture_file)
    has_batch_norm = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in classifier.network.modules())
    plan = EpochPlan(
        recipe.batch_size,
        recipe.accumulation,
        accelerator.process_index,
        accelerator.num_processes,
        smallest=2 if has_batch_norm and recipe.probe is None else 1,
    )

    def order(epoch: int) -> np.ndarray:
        if isinstance(train.images, ShardedImages):
            buffer, world = recipe.data.shuffle_buffer, accelerator.num_processes
            return streamed_order(train.images.shards, buffer, recipe.seed, epoch, world=world)
        return epoch_order(recipe.sampler.kind, train.labels, recipe.seed, epoch, draw=train.draw)

    def prepare(images: torch.Tensor, stretch: np.ndarray) -> torch.Tensor:
        return eval_batch(images, config, stretch=stretch, channels_last=recipe.channels_last)

    feed = TrainingFeed(train, pixels["train"], plan, order, augmenter, device)
    return feed, PartScorer(parts["validation"], pixels["validation"], prepare, accelerator, recipe.batch_size)


# ------------------------------------------------------------------------------------------------ several runs in one folder


def claim_folder(recipe: Recipe | EnsembleRecipe, options: LaunchOptions, accelerator: Accelerator, runs: str) -> RunFolder:
    """Make ``options.out`` the folder of several runs after one recipe; a restart deletes those there (``runs``, a glob)."""
    folder = RunFolder(options.out)
    with accelerator.main_process_first():
        restart = options.restart and accelerator.is_main_process
        if restart:
            Claims(options.out).refuse_restart()
            for path in options.out.glob(runs):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.claim(recipe, restart=restart)
        if accelerator.is_main_process and folder.reopened_by(recipe):
            folder.reopen(recipe)
    return folder


def train_several(recipes: Mapping[str, Recipe], runs: Mapping[str, Path], options: LaunchOptions) -> None:
    """Train every recipe into its folder of ``runs``, shared out among all workers that do the same, until all are finished."""
    accelerator = make_accelerator(next(iter(recipes.values())), options)
    claims = Claims(options.out)

    def finished(name: str) -> bool:
        run = RunFolder(runs[name])
        return run.finished and not run.reopened_by(recipes[name])

    def train(claim: Claim) -> None:
        place = options.model_copy(update={"out": runs[claim.name], "restart": False})
        train_recipe(recipes[claim.name], place, claim=claim)

    with local_workers(train_several, options, recipes, runs):
        work_through(lambda: claims.take_first(recipes, finished), lambda: all(map(finished, recipes)), train, accelerator)


# ------------------------------------------------------------------------------------------------ ensembles


def train_ensemble(recipe: EnsembleRecipe, options: LaunchOptions) -> Path:
    """Train the members that are not finished into ``OUT/members/NAME``; return the path of the file that describes them."""
    members = load_members(recipe)
    accelerator = make_accelerator(next(iter(members.values())), options)
    folder = claim_folder(recipe, options, accelerator, runs="members/*")
    runs = {name: options.out / "members" / name for name in members}
    train_several(members, runs, options)
    accelerator.wait_for_everyone()
    described = [
        {
            "folder": f"members/{name}",
            "recipe": member.name,
            "weight": weight,
            "weights_sha256": load_model_config(runs[name]).lesion_hub.weights_sha256,
        }
        for (name, member), weight in zip(members.items(), recipe.weights, strict=True)
    ]
    if accelerator.is_main_process:
        folder.write_json(MEMBERS_NAME, {"name": recipe.name, "combine": recipe.combine, "members": described})
    return options.out / MEMBERS_NAME


def load_members(recipe: EnsembleRecipe) -> dict[str, Recipe]:
    """Load the members' recipes by name; members that would not see the same data are refused."""
    members: dict[str, Recipe] = {}
    for place in recipe.members:
        member = load_recipe(place, recipe.set)
        if not isinstance(member, Recipe):
            raise ConfigError(f"{recipe.name}: member {place} is an ensemble itself; name its members")
        if member.name in members:
            raise ConfigError(f"{recipe.name}: two members are called {member.name!r}; give them names of their own")
        members[member.name] = member
    first = next(iter(members.values()))
    for member in members.values():
        if member.data.model_copy(update={"cache_size": None}) != first.data.model_copy(update={"cache_size": None}):
            raise ConfigError(
                f"{recipe.name}: {member.name} has another data section than {first.name}; members must share split and draw"
            )
    return members
