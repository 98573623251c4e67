"""The training loop: from the first batch to the last epoch, however often it is interrupted and resumed.

All randomness of a step is a function of (seed, epoch, place in the epoch, process): shuffling, augmentation, mixing, and
dropout too, whose generators are seeded anew for every micro-batch. So a checkpoint holds no generator state, and a run
resumed at any step is the run that was never interrupted.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.training.augmentation import mix_batch, plan_mix
from lesion_hub.training.checkpoints import CheckpointFolder, State
from lesion_hub.training.device import out_of_memory_explained
from lesion_hub.training.ema import ModelEma
from lesion_hub.training.execution import compiled_once, compiling_explained
from lesion_hub.training.feed import Batch, TrainingFeed
from lesion_hub.training.losses import make_loss
from lesion_hub.training.measure import PartScorer, logits_of, quick_metrics
from lesion_hub.training.optimisers import make_optimiser, phase_at, set_learning_rate, set_train_mode, set_trainable
from lesion_hub.training.recipe import Phase, Recipe
from lesion_hub.training.schedules import Schedule, make_schedule
from lesion_hub.training.stopping import LossMonitor, RunInterrupted, StopSignal, diverged, stopped_early
from lesion_hub.training.teacher import Teacher

# Processes must agree on when to stop, and asking costs a round trip.
STEPS_BETWEEN_STOP_CHECKS = 8

Record = dict[str, Any]


class Observer(Protocol):
    """The methods by which the loop reports its progress."""

    def resume(self, history: list[Record]) -> None: ...

    def begin_epoch(self, epoch: int, step: int) -> None: ...

    def step(self, step: int, loss: float | None = None, lr: float | None = None) -> None: ...

    def log(self, record: Record, best: bool) -> None: ...


class Loop:
    """One run of a recipe, in which nothing is left to choose (see ``training.execution``).

    ``network`` is on the device and wrapped by nothing; after ``run`` it has the best weights. A checkpoint holds ``state()``:
    the network, its moving average, the optimiser, and the place in the run.
    """

    phase: Phase
    phase_start: int
    schedule: Schedule
    compiled: nn.Module | None

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        feed: TrainingFeed,
        validation: PartScorer,
        accelerator: Accelerator,
        checkpoints: CheckpointFolder,
        observer: Observer,
        teacher: Teacher | None = None,
    ) -> None:
        self.recipe = recipe
        self.network = network
        self.feed = feed
        self.validation = validation
        self.accelerator = accelerator
        self.checkpoints = checkpoints
        self.observer = observer
        self.teacher = teacher
        loss, optimiser = recipe.loss, recipe.optimiser
        self.loss = make_loss(
            loss.name,
            class_counts=feed.part.class_counts.tolist(),
            class_weights=loss.class_weights,
            label_smoothing=loss.label_smoothing,
            reduction="none",
            **loss.given,
        ).to(accelerator.device)
        made = make_optimiser(
            optimiser.name,
            network,
            lr=optimiser.lr,
            weight_decay=optimiser.weight_decay,
            layer_decay=optimiser.layer_decay,
            **optimiser.given,
        )
        self.ema = None if recipe.ema is None else ModelEma(network, **recipe.ema.model_dump())
        self.optimiser = accelerator.prepare_optimizer(made)
        self.wrapped: nn.Module | None = None
        self.losses_seen = LossMonitor()
        self.stop = StopSignal()
        self.epoch, self.step, self.steps_done = 0, 0, 0
        self.sums = torch.zeros(3, device=accelerator.device)  # loss, right, images of this epoch so far
        self.last_rows = np.empty(0, np.int64)
        self.history: list[Record] = []

    def run(self) -> list[Record]:
        """Train from the newest checkpoint, or from the start, to the end; return the epochs' records."""
        saved = self.checkpoints.newest()
        if saved is not None:
            self.load(saved)
            self.observer.resume(self.history)
        with self.stop.listening():
            while not self.finished:
                self.enter_epoch(saved)
                self.train_epoch()
                self.end_epoch()
                saved = None
        self.unwrap()
        self.network.load_state_dict(self.checkpoints.best()["weights"])
        return self.history

    @property
    def finished(self) -> bool:
        return self.epoch >= self.recipe.epochs or stopped_early(self.history, self.recipe.early_stopping)

    # -------------------------------------------------------------------------------------------- an epoch

    def enter_epoch(self, saved: State | None) -> None:
        """Set the trainable layers and the schedule, where a phase begins or the run is resumed from ``saved`` within one."""
        self.phase, span = phase_at(self.recipe.phases, self.epoch, self.recipe.epochs)
        self.epoch_started = time.monotonic()
        self.images_done = 0
        if saved is None and self.epoch != span.start:
            return
        set_trainable(self.network, self.phase)
        steps = self.feed.steps_per_epoch
        self.phase_start = span.start
        chosen, total_steps = self.recipe.schedule, len(span) * steps
        self.schedule = make_schedule(
            chosen.name,
            lr=self.recipe.optimiser.lr if self.phase.lr is None else self.phase.lr,
            total_steps=total_steps,
            # At most half of a phase: a short one would be all warm-up otherwise.
            warmup_steps=min(round(chosen.warmup_epochs * steps), total_steps // 2),
            **chosen.given,
        )
        if saved is not None and saved["phase_start"] == span.start:
            self.schedule.load_state_dict(saved["schedule"])
        # Which parameters have gradients is fixed when a network is wrapped for several processes: so once per phase.
        self.unwrap()
        self.wrapped = self.accelerator.prepare_model(self.network)
        self.compiled = compiled_once(self.wrapped) if self.recipe.compile else None

    def unwrap(self) -> None:
        """Remove accelerate's wrappers from the network, and free the memory that they hold."""
        if self.wrapped is not None:
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        self.wrapped = self.compiled = None

    def train_epoch(self) -> None:
        """Do the optimiser steps of the epoch that are not done yet."""
        self.observer.begin_epoch(self.epoch, self.step)
        set_train_mode(self.network, self.phase)
        for batch in self.feed.epoch(self.epoch, start=self.step):
            with out_of_memory_explained(self.recipe), compiling_explained():
                self.backward(batch)
            if batch.closes_step:
                self.update()
                self.save_or_stop()
        self.losses_seen.check_all()

    def backward(self, batch: Batch) -> None:
        """Run one micro-batch forward and backward; processes exchange gradients once per optimiser step."""
        rank, classes = self.accelerator.process_index, len(self.feed.part.space)
        _seed_generators(self.recipe.seed, self.epoch, batch.number, rank)
        images, targets = batch.images, batch.targets
        if self.recipe.mixing.active:
            plan = plan_mix(self.recipe.mixing, len(targets), self.recipe.seed, self.epoch, batch.number, rank)
            images, targets = mix_batch(images, targets, classes, plan)
        with nullcontext() if batch.closes_step else self.accelerator.no_sync(self.wrapped):
            logits = logits_of(self.network_for(len(images)), images, batch.metadata)
            losses = self.loss(logits, targets)
            if self.teacher is not None:
                losses = self.teacher.blended(losses, logits, images)
            self.accelerator.backward((losses * batch.weights).sum())
        self.count(batch, logits.detach(), losses.detach())

    def network_for(self, images: int) -> nn.Module:
        """Return what trains on a micro-batch of so many images.

        The last one of an epoch, where it is smaller, is not compiled for: that would take as long as all others do.
        """
        assert self.wrapped is not None
        whole = images == self.feed.plan.batch_size
        return self.compiled if whole and self.compiled is not None else self.wrapped

    def update(self) -> None:
        """Do one optimiser step at this step's learning rate: clip, step, update the moving average, report, count."""
        set_learning_rate(self.optimiser.optimizer, self.lr_at(self.step))
        if self.recipe.clip is not None:
            self.accelerator.unscale_gradients(self.optimiser)
            self.accelerator.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema is not None:
            self.ema.update(self.network)
        self.observer.step(self.step + 1, self.losses_seen.latest, self.lr_at(self.step))
        self.step += 1
        self.steps_done += 1

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step of this epoch."""
        return self.schedule.lr_at((self.epoch - self.phase_start) * self.feed.steps_per_epoch + step)

    def count(self, batch: Batch, logits: Tensor, losses: Tensor) -> None:
        """Add a micro-batch to the epoch's sums, on the device, and its mean loss to those that are checked."""
        self.last_rows = batch.indices
        valid = batch.weights > 0
        right = (logits.argmax(dim=1) == batch.targets) & valid
        self.sums += torch.stack([(losses * valid).sum(), right.sum(), valid.sum()])
        self.images_done += len(losses)
        mean = (losses * valid).sum() / valid.sum().clamp_min(1)
        place = f"epoch {self.epoch + 1}, step {self.step + 1}"
        self.losses_seen.add(mean, place, lambda: self.feed.names(batch.indices))

    def save_or_stop(self) -> None:
        """Save a checkpoint where one is due; where the run was asked to stop, save one and raise `RunInterrupted`."""
        every = self.recipe.checkpoints.every_steps
        asked = self.asked_to_stop()
        if asked or (every is not None and self.steps_done % every == 0):
            self.save()
        if asked:
            raise RunInterrupted(f"stopped in epoch {self.epoch + 1}, step {self.step}; saved, run again to resume", asked)

    def asked_to_stop(self) -> int:
        """Return the signal that asked any process to stop, 0 for none."""
        if self.accelerator.num_processes == 1:
            return self.stop.signum
        if self.steps_done % STEPS_BETWEEN_STOP_CHECKS and self.step != self.feed.steps_per_epoch:
            return 0
        return int(self.accelerator.gather(torch.tensor([self.stop.signum], device=self.accelerator.device)).max())

    def end_epoch(self) -> None:
        """Measure on validation, record the epoch, save the weights if they are the best so far, and save a checkpoint."""
        self.check_finite()
        record = self.measure()
        best = record["balanced_accuracy"] > max((r["balanced_accuracy"] for r in self.history), default=-1.0)
        self.history.append(record)
        self.schedule.observe(record["balanced_accuracy"])
        if best:
            self.save_best(record)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums.zero_()
        self.save()
        self.observer.log(record, best)
        asked = self.asked_to_stop()
        if asked and not self.finished:
            raise RunInterrupted(f"stopped after epoch {self.epoch}; saved, run again to resume", asked)

    def measure(self) -> Record:
        """Make the record of the epoch: its training sums, and validation under the weights that would be published."""
        seconds = time.monotonic() - self.epoch_started
        if self.accelerator.num_processes > 1:
            # Every process takes the first one's batch-norm statistics, so that all measure the same network.
            shadow = {} if self.ema is None else self.ema.shadow
            averages = [shadow[name] for name, _ in self.network.named_buffers() if name in shadow]
            for tensor in [*self.network.buffers(), *averages]:
                torch.distributed.broadcast(tensor, src=0)
        with nullcontext() if self.ema is None else self.ema.applied(self.network):
            logits = self.validation.logits(self.network)
        loss, right, images = self.accelerator.reduce(self.sums, "sum").tolist()
        return {
            "epoch": self.epoch + 1,
            "of": self.recipe.epochs,
            "phase": str(self.phase.train),
            "lr": self.lr_at(self.step - 1),
            "train_loss": loss / images,
            "train_accuracy": right / images,
            **quick_metrics(logits, self.validation.part.labels),
            "images_per_second": self.images_done * self.accelerator.num_processes / seconds,
            "seconds": seconds,
        }

    # -------------------------------------------------------------------------------------------- saving

    def state(self) -> State:
        """Collect everything that the rest of the run depends on."""
        scaler = self.accelerator.scaler
        return {
            "weights": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimiser": self.optimiser.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "phase_start": self.phase_start,
            "scaler": None if scaler is None else scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "steps_done": self.steps_done,
            "processes": self.accelerator.num_processes,
            "sums": self.accelerator.reduce(self.sums, "sum"),
            "history": self.history,
        }

    def load(self, state: State) -> None:
        """Go back to where ``state`` was saved; its schedule is restored by `enter_epoch`."""
        if state["processes"] != self.accelerator.num_processes:
            raise ConfigError(
                f"{self.checkpoints.folder}: the run was trained by {state['processes']} processes and this one has "
                f"{self.accelerator.num_processes}; resume with as many, or choose another --out"
            )
        self.network.load_state_dict(state["weights"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.optimiser.optimizer.load_state_dict(state["optimiser"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.epoch, self.step, self.steps_done = state["epoch"], state["step"], state["steps_done"]
        self.history = state["history"]
        if self.accelerator.is_main_process:
            self.sums.copy_(state["sums"])

    def save(self) -> None:
        """Save a checkpoint, unless the network has diverged."""
        self.check_finite()
        state = self.state()
        if self.accelerator.is_main_process:
            self.checkpoints.save(state, self.steps_done)

    def check_finite(self) -> None:
        """Raise `TrainingDiverged` before a diverged network is measured, or saved in place of a good one."""
        self.losses_seen.check_all()
        if not torch.stack([parameter.detach().norm() for parameter in self.network.parameters()]).isfinite().all():
            place = f"epoch {self.epoch + 1}, step {self.step}"
            raise diverged("the weights are no longer finite", place, self.feed.names(self.last_rows))

    def save_best(self, record: Record) -> None:
        """Save the weights that would be published."""
        with nullcontext() if self.ema is None else self.ema.applied(self.network):
            if self.accelerator.is_main_process:
                self.checkpoints.save_best({"weights": self.network.state_dict(), "record": record})


def _seed_generators(*place: int) -> None:
    """Seed torch's generators, of the CPU and the devices, by where in the run they are used."""
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> np.uint64(1)))
