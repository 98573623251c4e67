"""A linear probe: the backbone stays as it is, its features are computed once, and the last layer is solved for.

An epoch of the feed is one *view* of every training image, augmented anew; its features are saved, so that an interrupted
run goes on with the next view, and more views can be added to a finished one. The last layer is the minimum of a convex
function, for each strength of its penalty in turn; validation chooses among them as it chooses among epochs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.models import LesionClassifier
from lesion_hub.training.checkpoints import CheckpointFolder
from lesion_hub.training.device import out_of_memory_explained
from lesion_hub.training.feed import TrainingFeed
from lesion_hub.training.loop import Observer, Record
from lesion_hub.training.losses import make_loss
from lesion_hub.training.measure import PartScorer, logits_of, quick_metrics
from lesion_hub.training.recipe import ProbeOptions, Recipe
from lesion_hub.training.stopping import RunInterrupted, StopSignal, stopped_early

# More than any strength has been seen to take: most need 20 to 60.
MOST_STEPS = 1000
# About that of the cross-entropy of a few classes, by the variance of a feature. It changes the way to the minimum alone.
CURVATURE = 0.15
# Of the largest deviation of a feature; those that hardly vary must not become weights that float16 cannot hold.
LEAST_DEVIATION = 1e-3


class Probe:
    """One run of a recipe that has a ``probe``: the counterpart of `Loop`, made of the same parts.

    The classifier is on the device and wrapped by nothing; after ``run`` its last layer is the chosen one.
    """

    def __init__(
        self,
        recipe: Recipe,
        classifier: LesionClassifier,
        feed: TrainingFeed,
        validation: PartScorer,
        accelerator: Accelerator,
        checkpoints: CheckpointFolder,
        observer: Observer,
    ) -> None:
        self.recipe = recipe
        self.classifier = classifier
        self.features = LastLayerInput(classifier)
        self.feed = feed
        self.validation = validation
        self.accelerator = accelerator
        self.checkpoints = checkpoints
        self.observer = observer
        self.stop = StopSignal()

    def run(self) -> list[Record]:
        """Compute the features that are not saved yet, solve for every strength; return a record of each that was tried."""
        with self.stop.listening():
            views = [self.view(number) for number in range(self.recipe.epochs)]
            held_out = torch.from_numpy(self.validation.logits(self.features)).double()
            features = torch.cat([features for features, _ in views]).double()
            rows = torch.cat([rows for _, rows in views]).numpy()
            return self.solve(features, self.feed.part.labels[rows], held_out)

    # -------------------------------------------------------------------------------------------- features

    def view(self, number: int) -> tuple[Tensor, Tensor]:
        """Read or compute a view: (n, F) float32 features and the (n,) int64 rows of the part that they are of."""
        saved = self.checkpoints.read(number + 1)
        if saved is not None:
            return saved["features"], saved["rows"]
        self.observer.begin_epoch(number, 0)
        self.features.eval()
        found = []
        for batch in self.feed.epoch(number):
            with torch.no_grad(), self.accelerator.autocast(), out_of_memory_explained(self.recipe):
                features = logits_of(self.features, batch.images, batch.metadata).float()
            rows = torch.from_numpy(batch.indices).to(features.device)
            # Padding repeats images, to give all processes equally many; it weighs nothing.
            everyone = [self.accelerator.gather(values) for values in (features, rows, batch.weights > 0)]
            features, rows, valid = (cast(Tensor, values).cpu() for values in everyone)
            found.append((features[valid], rows[valid]))
            self.observer.step(batch.number + 1)
            self.stop_if_asked(number)
        features, rows = (torch.cat(values) for values in zip(*found, strict=True))
        if not features.isfinite().all():
            raise ConfigError(f"model.pretrained: {self.recipe.model.pretrained} gives features that are not finite")
        if self.accelerator.is_main_process:
            self.checkpoints.save({"features": features, "rows": rows}, number + 1)
        return features, rows

    def stop_if_asked(self, number: int) -> None:
        """Raise `RunInterrupted` where any process was asked to stop: the views before this one are saved."""
        asked = torch.tensor([self.stop.signum], device=self.accelerator.device)
        if signum := int(self.accelerator.gather(asked).max()):
            raise RunInterrupted(f"stopped in view {number + 1}; the views before it are saved, run again to resume", signum)

    # -------------------------------------------------------------------------------------------- the last layer

    def solve(self, features: Tensor, labels: NDArray[np.int64], held_out: Tensor) -> list[Record]:
        """Solve for strength after strength, each from the solution before; put the best into the network."""
        loss = make_loss(
            self.recipe.loss.name,
            class_counts=self.feed.part.class_counts.tolist(),
            class_weights=self.recipe.loss.class_weights,
            label_smoothing=self.recipe.loss.label_smoothing,
            **self.recipe.loss.given,
        )
        axes = PrincipalAxes.of(features)
        features, held_out, targets = axes(features), axes(held_out), torch.from_numpy(labels)
        weights = torch.zeros(len(self.feed.part.space), features.shape[1] + 1, dtype=torch.float64)
        history: list[Record] = []
        for strength in cast(ProbeOptions, self.recipe.probe).strengths:
            started = time.monotonic()
            weights = minimise(features, axes.variances, targets, loss, strength, weights)
            logits = apply(weights, features)
            record: dict[str, Any] = {
                "strength": strength,
                "train_loss": float(loss(logits, targets)),
                "train_accuracy": float((logits.argmax(dim=1) == targets).double().mean()),
                **quick_metrics(apply(weights, held_out).float().numpy(), self.validation.part.labels),
                "seconds": time.monotonic() - started,
            }
            best = record["balanced_accuracy"] > max((r["balanced_accuracy"] for r in history), default=-1.0)
            history.append(record)
            self.observer.log(record, best)
            if best:
                self.set_last_layer(*axes.folded(weights))
            if stopped_early(history, self.recipe.early_stopping):
                break
        return history

    @torch.no_grad()
    def set_last_layer(self, weight: Tensor, bias: Tensor) -> None:
        """Make (C, F) and (C,) the weight and the bias of the last layer."""
        layer = self.classifier.last_layer
        if layer.bias is None:
            raise ConfigError(f"{self.classifier.architecture}: its last layer has no bias; choose another backbone")
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


class LastLayerInput(nn.Module):
    """Maps images to what the network's last layer sees of them, (N, F): all that a linear probe may build on."""

    def __init__(self, classifier: LesionClassifier) -> None:
        super().__init__()
        self.network = classifier.network
        self.last_layer = classifier.last_layer

    def forward(self, images: Tensor, metadata: Tensor | None = None) -> Tensor:
        seen: list[Tensor] = []
        hook = self.last_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits_of(self.network, images, metadata)
        finally:
            hook.remove()
        return seen[0]


# ------------------------------------------------------------------------------------------------ convex optimisation


@dataclass(frozen=True)
class PrincipalAxes:
    """Standardised features, turned so that they do not correlate: the length of weights, and so the penalty, stays the same.

    ``mean`` (F,) and ``turn`` (F, F) make raw features into turned ones, of ``variances`` (F,).

    >>> axes = PrincipalAxes.of(torch.tensor([[1.0], [3.0]], dtype=torch.float64))
    >>> axes(torch.tensor([[5.0]], dtype=torch.float64)).abs()
    tensor([[3.]], dtype=torch.float64)
    """

    mean: Tensor
    turn: Tensor
    variances: Tensor

    @classmethod
    def of(cls, features: Tensor) -> PrincipalAxes:
        """Find the axes of (n, F) features."""
        mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
        deviation = deviation.clamp_min(LEAST_DEVIATION * float(deviation.max()) or 1.0)
        standardised = (features - mean) / deviation
        variances, axes = torch.linalg.eigh(standardised.T @ standardised / len(features))
        return cls(mean, axes / deviation[:, None], variances.clamp_min(0))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.turn

    def folded(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (C, F) weight and (C,) bias that do to raw features what ``weights`` (C, F + 1) do to turned ones."""
        weight = weights[:, :-1] @ self.turn.T
        return weight, weights[:, -1] - weight @ self.mean


def apply(weights: Tensor, features: Tensor) -> Tensor:
    """Return the (n, C) logits of (n, F) features under ``weights`` (C, F + 1), whose last column is the bias."""
    return torch.addmm(weights[:, -1], features, weights[:, :-1].T)


def minimise(features: Tensor, variances: Tensor, targets: Tensor, loss: nn.Module, strength: float, start: Tensor) -> Tensor:
    """Return the (C, F + 1) weights of least mean loss plus strength / 2 times the squared length of all but the bias.

    The loss is convex in the logits, and so there is one minimum, wherever ``start`` is. L-BFGS finds it in float64, in
    coordinates in which the function curves about equally along all axes: in a few dozen steps, where it would take hundreds.
    """
    scale = torch.cat([(variances * CURVATURE + strength).rsqrt(), variances.new_ones(1)])
    scaled = (start / scale).requires_grad_(True)
    solver = torch.optim.LBFGS(
        [scaled],
        max_iter=MOST_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def value() -> Tensor:
        solver.zero_grad()
        weights = scaled * scale
        penalised = loss(apply(weights, features), targets) + strength / 2 * weights[:, :-1].square().sum()
        penalised.backward()
        return penalised

    solver.step(value)
    return (scaled * scale).detach()
