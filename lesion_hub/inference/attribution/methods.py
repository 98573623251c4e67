"""The attribution methods, all built of Captum's parts, and one table that says what each costs and is for.

A method looks at one member and a batch and returns an (N, h, w) float32 map that is zero or positive: what speaks for the
label in question. Guided Backpropagation and its kin are left out: they draw the same picture when the network's weights
are replaced by random ones (Adebayo et al., arXiv 1810.03292), so they show edges of the image and nothing of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from captum.attr import IntegratedGradients, LayerGradCam, LayerGradientXActivation, Occlusion, Saliency
from torch import Tensor

from lesion_hub.errors import ConfigError
from lesion_hub.inference.attribution.cut import Cut, WholeCut, cut
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import nearest

INTEGRATION_STEPS = 32
SHAP_SAMPLES = 32
SHAP_NOISE = 0.1
OCCLUSION_WINDOWS = 7
_IMAGES_AT_ONCE = 32


@dataclass(frozen=True)
class Evidence:
    """What a method may look at: a cut network, a prepared (N, 3, H, W) batch, the stem's output for it, the (N, C) bool
    labels whose joint logit is explained (at least one in each row), and the metadata, if any."""

    cut: Cut
    batch: Tensor
    state: Tensor
    selected: Tensor
    metadata: Tensor | None = None

    @property
    def arguments(self) -> tuple[Tensor | None, ...]:
        return self.selected, self.metadata

    def from_state(self, state: Tensor, selected: Tensor, metadata: Tensor | None) -> Tensor:
        """(N,) joint logits from the stem's output."""
        return joint_logit(self.cut(state, metadata), selected)

    def from_images(self, batch: Tensor, selected: Tensor, metadata: Tensor | None) -> Tensor:
        """(N,) joint logits from prepared images."""
        return joint_logit(self.cut(self.cut.stem(batch), metadata), selected)


def joint_logit(logits: Tensor, selected: Tensor) -> Tensor:
    """(N,) the logit of "one of the selected labels" up to the softmax's constant; of one label it is its logit.

    >>> joint_logit(torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[False, True, False]]))
    tensor([2.])
    """
    return logits.masked_fill(~selected, -torch.inf).logsumexp(dim=1)


def grad_cam(evidence: Evidence) -> Tensor:
    """Channels weighted by their mean gradient, summed, the positive part: (N, h, w) on the last feature map's grid."""
    explainer = LayerGradCam(evidence.from_state, evidence.cut.tap)
    maps = explainer.attribute(_leaf(evidence.state), additional_forward_args=evidence.arguments, relu_attributions=True)
    return maps.detach()[:, 0].float()


def hires_cam(evidence: Evidence) -> Tensor:
    """Gradient times activation summed over channels, the positive part: (N, h, w) on the last feature map's grid."""
    explainer = LayerGradientXActivation(evidence.from_state, evidence.cut.tap, multiply_by_inputs=True)
    maps = explainer.attribute(_leaf(evidence.state), additional_forward_args=evidence.arguments)
    return maps.detach().sum(dim=1).relu().float()


def integrated_gradients(evidence: Evidence) -> Tensor:
    """Gradients along the way from the mean colour to the image: (N, H, W) on the input's pixels."""
    explainer = IntegratedGradients(evidence.from_images)
    maps = explainer.attribute(
        evidence.batch,
        additional_forward_args=evidence.arguments,
        n_steps=INTEGRATION_STEPS,
        internal_batch_size=max(_IMAGES_AT_ONCE, len(evidence.batch)),
    )
    return _positive(maps)


def gradient_shap(evidence: Evidence) -> Tensor:
    """Expected gradients between the noisy image and flat colours of the input's range: (N, H, W) on the input's pixels.

    Captum's own GradientShap draws from process-wide generators; here every call draws the same numbers, so that threads
    and repetitions agree.
    """
    saliency = Saliency(evidence.from_images)
    generator = torch.Generator().manual_seed(0)
    batch = evidence.batch
    total = torch.zeros_like(batch)
    for _ in range(SHAP_SAMPLES):
        noise, colour = torch.randn(batch.shape[1:], generator=generator), torch.randn(3, 1, 1, generator=generator)
        alpha = float(torch.rand((), generator=generator))
        baseline = colour.to(batch)
        noisy = batch + SHAP_NOISE * noise.to(batch)
        point = (baseline + alpha * (noisy - baseline)).requires_grad_()
        gradient = saliency.attribute(point, abs=False, additional_forward_args=evidence.arguments)
        total += gradient.detach() * (batch - baseline)
    return _positive(total / SHAP_SAMPLES)


def occlusion(evidence: Evidence) -> Tensor:
    """How much the logit falls when a window is covered with the mean colour: (N, H, W) on the input's pixels."""
    height, width = evidence.batch.shape[2:]
    window = (max(1, height // OCCLUSION_WINDOWS), max(1, width // OCCLUSION_WINDOWS))
    with torch.no_grad():
        maps = Occlusion(evidence.from_images).attribute(
            evidence.batch,
            sliding_window_shapes=(3, *window),
            strides=(3, max(1, window[0] // 2), max(1, window[1] // 2)),
            additional_forward_args=evidence.arguments,
            perturbations_per_eval=max(1, _IMAGES_AT_ONCE // len(evidence.batch)),
        )
    return _positive(maps)


def _leaf(state: Tensor) -> Tensor:
    return state.detach().requires_grad_()


def _positive(maps: Tensor) -> Tensor:
    """(N, 3, H, W) signed attributions to (N, H, W), what speaks for the label."""
    return maps.detach().sum(dim=1).relu().float()


@dataclass(frozen=True)
class Method:
    """One line of the table: what a method costs beyond the prediction, how fine its map is, and when to use it."""

    name: str
    attribute: Callable[[Evidence], Tensor]
    title: str
    cost: str
    resolution: str
    use: str
    layerwise: bool = False

    def cut(self, classifier: LesionClassifier) -> Cut:
        """The network, cut where this method looks."""
        return cut(classifier) if self.layerwise else WholeCut(classifier)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                "gradcam",
                grad_cam,
                "Grad-CAM",
                "one backward pass of the tail: a few per cent of the prediction",
                "the last feature map (7 x 7 at 224 pixels; 14 x 14 for ViT-B/16)",
                "the default: which region speaks for the label; coarse, passes the randomisation check",
                layerwise=True,
            ),
            Method(
                "hirescam",
                hires_cam,
                "HiResCAM",
                "as Grad-CAM",
                "as Grad-CAM",
                "when a map must show only regions that raised the logit; equals Grad-CAM where the head is one Linear "
                "behind average pooling",
                layerwise=True,
            ),
            Method(
                "integrated_gradients",
                integrated_gradients,
                "Integrated Gradients",
                f"{INTEGRATION_STEPS} forward and backward passes",
                "pixels",
                "fine structure (network, dots), when the parts must add up to the change of the logit; noisy to look at",
            ),
            Method(
                "gradient_shap",
                gradient_shap,
                "GradientSHAP",
                f"{SHAP_SAMPLES} forward and backward passes",
                "pixels",
                "as Integrated Gradients, when one baseline colour is not to decide the picture",
            ),
            Method(
                "occlusion",
                occlusion,
                "Occlusion",
                f"about {(2 * OCCLUSION_WINDOWS - 1) ** 2} forward passes, no gradient",
                f"windows of a {OCCLUSION_WINDOWS}th of the side, overlapping by half",
                "any architecture; the question a person would ask: what if this were covered?",
            ),
        )
    }
)


def method(name: str) -> Method:
    """A method by name.

    >>> method("gradcam").title
    'Grad-CAM'
    """
    try:
        return METHODS[name]
    except KeyError:
        raise ConfigError(f"unknown attribution method {name!r}; {nearest(name, METHODS)}") from None
