"""One run from recipe to publishable folder: reads the data, builds the parts of the loop, runs it, finishes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from lesion_hub.data.cache import CacheSpec
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace
from training.augmentation import AugmentationOptions, Augmenter, augmentation_picture, eval_batch
from training.feed import Plan, TrainingFeed, open_pixels, usual_aspect
from training.finish import finish
from training.launch import LaunchOptions, flattened, make_accelerator
from training.loop import Loop
from training.measure import Examiner
from training.memory import with_fitting_batch
from training.partition import read_division
from training.parts import Part
from training.recipe import Recipe
from training.reporting import Report
from training.run_folder import RunFolder
from training.samplers import Indices, epoch_order
from training.start import Start, start_of

PICTURED = 4


def train_recipe(recipe: Recipe, options: LaunchOptions) -> RunFolder:
    """Train ``recipe``, or go on where its run in ``options.out`` stopped; returns the finished folder."""
    folder = RunFolder(options.out)
    accelerator = make_accelerator(recipe, options)
    with accelerator.main_process_first():
        recipe = folder.claim(
            recipe, restart=options.restart and accelerator.is_main_process, any_batch=options.find_batch_size
        )
    if folder.finished:
        accelerator.print(f"{folder.path}: this run is finished; --restart trains it anew")
        return folder
    accelerator.init_trackers("lesion-hub", config=flattened(recipe.model_dump(mode="json")))
    division = read_division(recipe, options, folder, accelerator)
    start = start_of(recipe.model)
    start.refuse_seen(division.held_out())
    classifier = build_classifier(recipe, division.space, start)
    if options.find_batch_size and not folder.started:
        recipe = with_fitting_batch(recipe, classifier, accelerator)
        if accelerator.is_main_process:
            folder.reclaim(recipe)
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    classifier.network.to(accelerator.device, memory_format=memory_format)
    feed, examiner = build_feeds(recipe, classifier, division.parts, accelerator, options, folder)
    with Report(recipe, folder, feed.steps_per_epoch, accelerator) as report:
        checkpoints = folder.checkpoints(recipe.checkpoints.keep)
        history = Loop(recipe, classifier.network, feed, examiner, accelerator, checkpoints, report).run()
    if accelerator.is_main_process:
        outcome = finish(folder, recipe, classifier, division, history, start)
        report.summary(outcome)
    for tracker in accelerator.trackers:
        tracker.finish()
    return folder


def build_classifier(recipe: Recipe, space: LabelSpace, start: Start) -> LesionClassifier:
    """The recipe's network with the weights of its start, fresh ones being a function of the seed."""
    torch.manual_seed(recipe.seed)
    model = recipe.model
    return LesionClassifier.create(
        model.backbone,
        space,
        head=model.head,
        metadata=model.metadata,
        pretrained=start.weights,
        image_size=model.image_size,
        crop_pct=model.crop_pct,
        drop_rate=model.drop_rate,
    )


def build_feeds(
    recipe: Recipe,
    classifier: LesionClassifier,
    parts: dict[str, Part],
    accelerator: Accelerator,
    options: LaunchOptions,
    folder: RunFolder,
) -> tuple[TrainingFeed, Examiner]:
    """The training feed and the examiner of the validation part, on one kind of cached images."""
    config, device = classifier.input_config, accelerator.device
    side = recipe.data.cache_size or math.floor(min(config.input_size[1:]) / config.crop_pct)
    spec = CacheSpec.for_size(side, aspect=recipe.data.cache_aspect or usual_aspect(parts["train"].images))
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
        rows = np.arange(min(PICTURED, len(parts["train"])))
        images = pixels["train"].reader.read(rows)
        picture = augmentation_picture(images, augmenter, stretch=pixels["train"].stretch(rows))
        picture.save(folder.picture_file)
    plan = Plan(
        recipe.batch_size,
        recipe.accumulation,
        accelerator.process_index,
        accelerator.num_processes,
        smallest=2 if has_batch_norm(classifier.network) else 1,
    )
    feed = TrainingFeed(parts["train"], pixels["train"], plan, partial(order_of, recipe, parts["train"]), augmenter, device)

    def prepare(images: torch.Tensor, stretch: np.ndarray) -> torch.Tensor:
        return eval_batch(images, config, stretch=stretch, channels_last=recipe.channels_last)

    return feed, Examiner(parts["validation"], pixels["validation"], prepare, accelerator, recipe.batch_size)


def order_of(recipe: Recipe, part: Part, epoch: int) -> Indices:
    """The rows that an epoch shows, in order."""
    return epoch_order(recipe.sampler.kind, part.labels, recipe.seed, epoch, draw=part.draw)


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
