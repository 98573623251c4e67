"""One ONNX graph from pixels to answer: an 8-bit image of any size in; logits, heat maps and pooled features out.

Three graphs are joined: `preprocess_graph` makes the network's input of the pixels, the network is cut as everywhere, and
`map_graph` makes of its stem's output what a caller would need gradients for. So any runtime of ONNX does with an image file
what ``predict(explain="gradcam")`` does, in a browser, on a phone, in C++ or Rust:

    image    (H, W, 3) uint8    upright RGB
    resized  (h, w, 3) uint8    the same resized, which other members that frame alike may be given in its place
    logits   (1, C) float32     calibrated
    maps     (C, h, w) float32  Grad-CAM of each label's logit before its negative part is dropped
    pooled   (3, F) float32     mean, maximum and standard deviation over the places of the map that Grad-CAM looks at

A network of which no layer-wise map can be had has neither ``maps`` nor ``pooled``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lesion_hub import __version__
from lesion_hub.errors import ConfigError, one_line
from lesion_hub.files import json_text
from lesion_hub.hub.graph import require_onnx, traced
from lesion_hub.hub.onnx_file import FEATURES, INPUT, LOGITS, cpu_session
from lesion_hub.inference.kept_graphs import kept_graph
from lesion_hub.inference.map_graph import map_graph
from lesion_hub.inference.members import Member
from lesion_hub.inference.preprocess_graph import IMAGE, RESIZED, preprocessing
from lesion_hub.models import LesionClassifier
from lesion_hub.models.network_cut import cut

logger = logging.getLogger(__name__)

LARGEST_CHANGE = 0.005
"""How far a probability of the graph may be from the model's."""
_LARGEST_IN_8_BITS = 0.02
"""The same in 8 bits, where a pixel that is resized to the next level may round the values behind it another way."""

_VERSION = 1
"""To be raised when the same member would give another graph: kept ones are then made anew."""
_SMALLEST_ROUNDED = 1024  # elements: what is smaller saves nothing when it is stored in 16 bits
_PARITY_SIZES = ((90, 120), (301, 200))


def pixel_graph(member: Member, *, rounded: bool = False) -> bytes:
    """Write a member as one ONNX file from pixels to logits, maps and pooled features, its weights inside.

    Weights that float16 holds exactly are stored in it and cast when the file is opened; with ``rounded`` all matrices and
    filters are. What is computed is computed in float32, or of a member whose engine runs its 8-bit file in that. A graph that
    answers otherwise than the member is not made.

    >>> classifier = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).eval()
    >>> len(pixel_graph(Member("tiny", classifier))) > 10_000  # doctest: +SKIP
    True
    """
    return checked_pixel_graph(member, rounded=rounded)[0]


def kept_pixel_graph(member: Member, *, rounded: bool = False) -> bytes:
    """Return `pixel_graph` of the member, which is made once."""
    return kept_graph(f"pixels-{_key(member, rounded)}", lambda: pixel_graph(member, rounded=rounded))


def _key(member: Member, rounded: bool) -> str:
    """Hash all that a member's graph is made of: its tensors and options, and what writes graphs here."""
    classifier = member.classifier
    known = [
        _VERSION,
        __version__,
        torch.__version__,
        member.name,
        rounded,
        str(classifier.architecture),
        classifier.model_args,
    ]
    framed = [str(member.framing), str(member.normalisation), list(classifier.labels)]
    found = hashlib.sha256(json_text([*known, *framed]).encode() + (member.eight_bits or b""))
    for name, tensor in sorted(classifier.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def checked_pixel_graph(member: Member, *, rounded: bool = False) -> tuple[bytes, float]:
    """Write a member's graph as `pixel_graph` does; also return the largest change of a probability that was seen."""
    onnx = require_onnx()
    classifier = member.classifier
    if classifier.dtype != torch.float32 or classifier.device.type != "cpu":
        raise ConfigError(f"{member.name}: is exported in float32 and on the CPU; load it there")
    images = torch.randn(1, *classifier.input_config.input_size, generator=torch.Generator().manual_seed(0))
    try:
        explanation = map_graph(classifier, images)
    except ConfigError as error:
        logger.warning("%s: its graph gives no heat maps: %s", member.name, error)
        explanation = None
    network = _network_graph(onnx, member, images, with_features=explanation is not None)
    model = _joined(onnx, preprocessing(member.framing, member.normalisation), network, INPUT, INPUT, keep=(RESIZED,))
    if explanation is not None:
        model = _joined(onnx, model, explanation, FEATURES, FEATURES, keep=(LOGITS, RESIZED))
    _store_in_half(onnx, model, rounded=rounded)
    _describe(onnx, model, member)
    data = bytes(model.SerializeToString(deterministic=True))
    return data, _largest_change(member, data)


# ------------------------------------------------------------------------------------------------ the network


def _network_graph(onnx: Any, member: Member, images: Tensor, *, with_features: bool) -> Any:
    """Take the 8-bit file that the member's engine runs, else trace its network."""
    names = [LOGITS, FEATURES] if with_features else [LOGITS]
    if member.eight_bits is not None:
        model = onnx.load_model_from_string(member.eight_bits)
        del model.graph.output[len(names) :]
        return model
    return traced(member.classifier, _Network(member.classifier, with_features=with_features), images, INPUT, names)


class _Network(nn.Module):
    """A classifier's network: (1, 3, H, W) to (1, C) logits, and the output of its cut's stem where that is wanted."""

    def __init__(self, classifier: LesionClassifier, *, with_features: bool) -> None:
        super().__init__()
        self.network, self.with_features = classifier.network, with_features
        self._classifier = (classifier,)  # in a tuple, so that its tensors have one name

    def forward(self, images: Tensor) -> Any:
        if not self.with_features:
            return self.network(images)
        parts = cut(self._classifier[0])
        state = parts.stem(images)
        return parts(state), state


# ------------------------------------------------------------------------------------------------ one graph


def _joined(onnx: Any, first: Any, second: Any, given: str, taken: str, keep: tuple[str, ...] = ()) -> Any:
    """Feed output ``given`` of the first graph to input ``taken`` of the second; of the first, ``keep`` stays an output."""
    first, second = (onnx.compose.add_prefix(model, prefix) for model, prefix in ((first, "a."), (second, "b.")))
    second.ir_version = first.ir_version = max(first.ir_version, second.ir_version)
    outputs = [f"b.{value.name.removeprefix('b.')}" for value in second.graph.output]
    model = onnx.compose.merge_models(
        first, second, io_map=[(f"a.{given}", f"b.{taken}")], outputs=[*(f"a.{name}" for name in keep), *outputs]
    )
    named = {f"a.{name}": name for name in keep} | {name: name.removeprefix("b.") for name in outputs}
    named |= {value.name: value.name.removeprefix("a.") for value in model.graph.input}
    for node in model.graph.node:
        node.input[:] = [named.get(name, name) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = named[value.name]
    return model


def _store_in_half(onnx: Any, model: Any, *, rounded: bool) -> None:
    """Store weights in 16 bits where that loses nothing, with ``rounded`` also matrices and filters where it does."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        exact = np.array_equal(half.astype(np.float32), values)
        worthwhile = values.size >= _SMALLEST_ROUNDED and (exact or (rounded and values.ndim > 1))
        if worthwhile and np.isfinite(half).all():
            name, stored = tensor.name, f"{tensor.name}.f16"
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def _describe(onnx: Any, model: Any, member: Member) -> None:
    """Write into the file what it takes and gives, and what its labels are called."""
    model.graph.name, model.producer_name, model.producer_version = "lesion_hub", "", ""
    facts = {
        "labels": json.dumps(list(member.space.labels)),
        "label_space": member.space.name,
        "input": f"{IMAGE}: (height, width, 3) uint8, upright RGB",
        "maps": "one for each label; drop the negative part, and lay it over the part of the image that the network sees",
        "pooled": "mean, maximum and standard deviation of the last feature map over its places",
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)


def _largest_change(member: Member, data: bytes) -> float:
    """Compare the graph's probabilities with the member's on images of noise of two sizes; raise one line where they differ."""
    rng, worst = np.random.default_rng(0), 0.0
    try:
        session = cpu_session(data)
        for height, width in _PARITY_SIZES:
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            found = torch.from_numpy(session.run([LOGITS], {IMAGE: image})[0])
            own = member.logits([Image.fromarray(image)])
            worst = max(worst, float((found.softmax(dim=1) - own.softmax(dim=1)).abs().max()))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        raise ConfigError(f"{member.name}: its graph from pixels does not run ({one_line(error)[:200]})") from None
    if not worst <= (LARGEST_CHANGE if member.eight_bits is None else _LARGEST_IN_8_BITS):
        raise ConfigError(f"{member.name}: its graph from pixels changes a probability by {worst:.3f}; it is not written")
    return worst
