"""Heat maps: the attribution methods in one table, the labels a map is about, and laying maps on images.

The methods are built of Captum's parts. Each looks at one member's forward pass over a batch and returns an (N, h, w) float32
map that is zero or positive: what speaks for the selected labels. A new one is a function and a row of ``METHODS``. Guided
Backpropagation and its kin are left out: they draw the same picture when the network's weights are replaced by random ones
(Adebayo et al., arXiv 1810.03292), so they show edges of the image and nothing of the model.

Captum is imported where it is called: it imports matplotlib, and predictions without a map need neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.errors import ConfigError, TaxonomyError
from lesion_hub.inference.preprocess import Framing, Orientation, Placement
from lesion_hub.inference.results import HeatMap
from lesion_hub.models import LesionClassifier
from lesion_hub.models.network_cut import Cut, WholeCut, cut
from lesion_hub.taxonomy import LabelMap, LabelSpace, nearest

Selection: TypeAlias = NDArray[np.bool_]

INTEGRATION_STEPS = 32
SHAP_SAMPLES = 32
SHAP_NOISE = 0.1
OCCLUSION_WINDOWS = 7
_IMAGES_AT_ONCE = 32


@dataclass(frozen=True)
class Evidence:
    """What a method may look at: one forward pass, kept until it is known which labels to explain.

    A cut network, a prepared (N, 3, H, W) batch, the stem's output for it, and the (N, F) metadata, if any. ``score`` makes
    logits of images and metadata where no gradient is needed, which a fused engine does faster; without it the cut network
    does.
    """

    cut: Cut
    batch: Tensor
    state: Tensor
    metadata: Tensor | None = None
    score: Callable[[Tensor, Tensor | None], Tensor] | None = None

    def from_state(self, state: Tensor, selected: Tensor, metadata: Tensor | None) -> Tensor:
        """Compute the (N,) joint logits of (N, C) selected labels from the stem's output."""
        return joint_logit(self.cut(state, metadata), selected)

    def from_images(self, batch: Tensor, selected: Tensor, metadata: Tensor | None) -> Tensor:
        """Compute the (N,) joint logits of (N, C) selected labels from prepared images."""
        return joint_logit(self.cut(self.cut.stem(batch), metadata), selected)

    def from_images_scored(self, batch: Tensor, selected: Tensor, metadata: Tensor | None) -> Tensor:
        """Compute what ``from_images`` does, without a way back for gradients."""
        return (
            self.from_images(batch, selected, metadata)
            if self.score is None
            else joint_logit(self.score(batch, metadata), selected)
        )


def joint_logit(logits: Tensor, selected: Tensor) -> Tensor:
    """Compute the (N,) logit of "one of the selected labels" up to the softmax's constant; of one label it is its logit.

    >>> joint_logit(torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[False, True, False]]))
    tensor([2.])
    """
    return logits.masked_fill(~selected, -torch.inf).logsumexp(dim=1)


def grad_cam(evidence: Evidence, selected: Tensor) -> Tensor:
    """Sum the channels weighted by their mean gradient, and keep the positive part: (N, h, w) on the last feature map."""
    from captum.attr import LayerGradCam

    explainer = LayerGradCam(evidence.from_state, evidence.cut.tap)
    state = evidence.state.detach().requires_grad_()
    maps = explainer.attribute(state, additional_forward_args=(selected, evidence.metadata), relu_attributions=True)
    return maps.detach()[:, 0].float()


def hires_cam(evidence: Evidence, selected: Tensor) -> Tensor:
    """Sum gradient times activation over channels, and keep the positive part: (N, h, w) on the last feature map."""
    from captum.attr import LayerGradientXActivation

    explainer = LayerGradientXActivation(evidence.from_state, evidence.cut.tap, multiply_by_inputs=True)
    state = evidence.state.detach().requires_grad_()
    return _positive(explainer.attribute(state, additional_forward_args=(selected, evidence.metadata)))


def integrated_gradients(evidence: Evidence, selected: Tensor) -> Tensor:
    """Integrate the gradients along the way from the mean colour to the image: (N, H, W) on the input's pixels."""
    from captum.attr import IntegratedGradients

    explainer = IntegratedGradients(evidence.from_images)
    maps = explainer.attribute(
        evidence.batch,
        additional_forward_args=(selected, evidence.metadata),
        n_steps=INTEGRATION_STEPS,
        internal_batch_size=max(_IMAGES_AT_ONCE, len(evidence.batch)),
    )
    return _positive(maps)


def gradient_shap(evidence: Evidence, selected: Tensor) -> Tensor:
    """Average the gradients between the noisy image and flat colours of the input's range: (N, H, W) on the input's pixels.

    Captum's own GradientShap draws from process-wide generators; here every call draws the same numbers, so that threads
    and repetitions agree.
    """
    from captum.attr import Saliency

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
        gradient = saliency.attribute(point, abs=False, additional_forward_args=(selected, evidence.metadata))
        total += gradient.detach() * (batch - baseline)
    return _positive(total / SHAP_SAMPLES)


def occlusion(evidence: Evidence, selected: Tensor) -> Tensor:
    """Measure how much the logit falls when a window is covered with the mean colour: (N, H, W) on the input's pixels."""
    from captum.attr import Occlusion

    height, width = evidence.batch.shape[2:]
    window = (max(1, height // OCCLUSION_WINDOWS), max(1, width // OCCLUSION_WINDOWS))
    with torch.no_grad():
        maps = Occlusion(evidence.from_images_scored).attribute(
            evidence.batch,
            sliding_window_shapes=(3, *window),
            strides=(3, max(1, window[0] // 2), max(1, window[1] // 2)),
            additional_forward_args=(selected, evidence.metadata),
            perturbations_per_eval=max(1, _IMAGES_AT_ONCE // len(evidence.batch)),
        )
    return _positive(maps)


def _positive(maps: Tensor) -> Tensor:
    """Sum (N, C, h, w) signed attributions over channels to (N, h, w), and keep what speaks for the label."""
    return maps.detach().sum(dim=1).relu().float()


@dataclass(frozen=True)
class Method:
    """A row of the table: what a method costs beyond the prediction, how fine its map is, and when to use it."""

    name: str
    attribute: Callable[[Evidence, Tensor], Tensor]
    title: str
    cost: str
    resolution: str
    use: str
    layerwise: bool = False

    def cut(self, classifier: LesionClassifier) -> Cut:
        """Cut the network where this method looks."""
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


def find_method(name: str) -> Method:
    """Look a method up by name.

    >>> find_method("gradcam").title
    'Grad-CAM'
    """
    try:
        return METHODS[name]
    except KeyError:
        raise ConfigError(f"unknown attribution method {name!r}; {nearest(name, METHODS)}") from None


# ------------------------------------------------------------------------------------------------ what a map is about


def target_labels(target: str, space: LabelSpace) -> tuple[str, Selection]:
    """Return a label's canonical name and the (C,) labels it stands for; ``malignant`` and ``benign`` work in finer spaces too.

    >>> from lesion_hub.taxonomy import label_space
    >>> target_labels("malignant", label_space("isic2017"))[1].tolist()
    [True, False, False]
    """
    try:
        index = space.index(target)
    except TaxonomyError:
        name, mapping = target.lower(), space.malignancy_map
        if mapping is None or name not in mapping.target.labels:
            raise
        return name, np.asarray(mapping.indices) == mapping.target.index(name)
    return space.labels[index], np.arange(len(space)) == index


def member_labels(selected: Selection, mapping: LabelMap) -> Selection:
    """Return the (N, C_m) labels of a member that stand for (N, C) labels of the ensemble."""
    return (selected.astype(np.float64) @ mapping.matrix.T) > 0


# ------------------------------------------------------------------------------------------------ maps on images


def draw_maps(
    method: Method,
    passes: Sequence[tuple[Orientation, Evidence]],
    selected: Selection,
    framing: Framing,
    sizes: Sequence[tuple[int, int]],
) -> list[HeatMap]:
    """Draw one member's maps of N images: the mean over its passes, laid on images of (height, width) ``sizes``.

    Args:
        method: what explains each pass.
        passes: the member's forward pass over each orientation.
        selected: (N, C_m) the member's labels that each map is about; where there is none, the map is zero.
        framing: where the member looked.
        sizes: of the N images.

    Returns:
        N maps of (H, W) float32 in [0, 1].
    """
    meant = np.asarray(selected.any(axis=1))
    # The joint logit of no label is infinite: such a row is explained for all labels, and its map is blanked afterwards.
    rows = torch.from_numpy(selected | ~meant[:, None]).to(passes[0][1].batch.device)
    total = torch.stack([orientation.undo(method.attribute(seen, rows)) for orientation, seen in passes]).mean(dim=0)
    grids = total.cpu().numpy() * meant[:, None, None]
    return [scaled(on_image(grid, framing.place(size), size)) for grid, size in zip(grids, sizes, strict=True)]


def on_image(grid: HeatMap, place: Placement, image_size: tuple[int, int]) -> HeatMap:
    """Lay an (h, w) map over a network's input on the (H, W) image, bilinear; what the network did not see is zero.

    >>> grid = np.array([[1.0, 0.0]], dtype=np.float32)
    >>> on_image(grid, Placement((4, 8), (0, 2), (4, 4)), (4, 8))[0].tolist()
    [0.0, 0.0, 1.0, 0.75, 0.25, 0.0, 0.0, 0.0]
    """
    rows = _interpolation(grid.shape[0], place.size[0], place.corner[0], place.resized[0], image_size[0])
    columns = _interpolation(grid.shape[1], place.size[1], place.corner[1], place.resized[1], image_size[1])
    # torch's product, not numpy's: the latter's own thread pool would fight the networks' for the cores.
    product = torch.from_numpy(rows) @ torch.from_numpy(np.ascontiguousarray(grid)) @ torch.from_numpy(columns).T
    return np.asarray(product.numpy())


def _interpolation(cells: int, size: int, corner: int, resized: int, length: int) -> HeatMap:
    """Compute the (length, cells) weights of the grid's cells at every pixel centre along one side of the image."""
    along = (np.arange(length) + 0.5) * (resized / length) - corner
    position = np.clip(along * (cells / size) - 0.5, 0, cells - 1)
    lower = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    upper = np.minimum(lower + 1, cells - 1)
    share = position - lower
    seen = (along >= 0) & (along <= size)
    weights = np.zeros((length, cells), dtype=np.float32)
    pixels = np.arange(length)
    weights[pixels, lower] += np.where(seen, 1 - share, 0)
    weights[pixels, upper] += np.where(seen, share, 0)
    return weights


def scaled(heat: HeatMap) -> HeatMap:
    """Scale a map of zero and positive values to a maximum of 1; zeros everywhere stay so, and NaN counts as zero."""
    top = float(heat.max(initial=0.0))
    if not np.isfinite(top):
        return scaled(np.nan_to_num(heat, nan=0.0, posinf=0.0, neginf=0.0))
    return heat / np.float32(top) if top > 0 else np.zeros_like(heat)


def averaged(maps: Sequence[HeatMap], weights: Sequence[float]) -> HeatMap:
    """Average maps in [0, 1] under the weights, and scale to [0, 1] again."""
    total = np.zeros_like(maps[0])
    for weight, one in zip(weights, maps, strict=True):
        total += np.float32(weight) * one
    return scaled(total)
