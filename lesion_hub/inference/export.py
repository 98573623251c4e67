"""Export to ONNX: a file is only kept if its logits are the model's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from lesion_hub.errors import ConfigError
from lesion_hub.files import require_new_folder, write_bytes, write_json
from lesion_hub.hub.format import stored_weights
from lesion_hub.hub.graph import require_onnx, write_graph
from lesion_hub.hub.layout import WEIGHTS_NAME
from lesion_hub.hub.onnx_file import LOGITS, cpu_session
from lesion_hub.inference.members import Member
from lesion_hub.inference.pixel_graph import checked_pixel_graph
from lesion_hub.inference.predictor import Predictor
from lesion_hub.models.joint import join

Batch: TypeAlias = NDArray[np.float32]

TOLERANCE = 1e-3
_PARITY_BATCHES = (1, 3)
_BATCH = 32


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from the model.

    ``difference`` is the largest of a logit, or, of a file that takes pixels, of a probability. ``precision`` is what the file
    computes in.
    """

    path: str
    bytes: int
    difference: float
    precision: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def export_onnx(model: Predictor, path: str | Path, *, tolerance: float = TOLERANCE) -> ExportReport:
    """Write a model as one ONNX file: the graph that `hub.graph` makes, with its weights inside.

    Input ``pixel_values`` (N, 3, H, W) float32, normalised; outputs ``logits`` (N, C), and where the network can be cut
    ``features``, from which heat maps are drawn. An ensemble becomes one network, which makes each member's input of the one
    image (see ``joint.shared_input``). Labels and preprocessing stand in the file's metadata. A network that takes patient
    metadata is exported as if nothing were known of the patient. Needs ``pip install 'lesion-hub[onnx]'``. A file that
    differs by more than ``tolerance`` in any logit is not kept.

    >>> export_onnx(from_pretrained("ham-lite0"), "ham-lite0.onnx").difference < 1e-3  # doctest: +SKIP
    True
    """
    member, target = as_one_member(model), Path(path).expanduser()
    onnx = require_onnx()
    target.parent.mkdir(parents=True, exist_ok=True)
    with kept_if_good(target) as aside:
        onnx.save(_whole_graph(onnx, member), str(aside))
        difference = _difference(member, aside)
        if not difference <= tolerance:
            raise ConfigError(f"{target}: differs from the model by {difference:.2g} in a logit, over {tolerance:g}; not kept")
    return ExportReport(str(target), target.stat().st_size, difference)


def export_pixel_graphs(model: Predictor, path: str | Path) -> list[ExportReport]:
    """Write a model as ONNX from pixels to logits, heat maps and pooled features (see `pixel_graph`), one file per member.

    Of a single model ``path`` is the file. Of an ensemble it is a folder, new or empty, in which ``combination.json`` says how
    the members' answers become one. A file that answers otherwise than its member is not written.

    >>> export_pixel_graphs(from_pretrained("dermoscopy-lite0"), "lite0.onnx")[0].difference < 0.005  # doctest: +SKIP
    True
    """
    target = Path(path).expanduser()
    if len(model.members) == 1:
        return [_export_pixel_graph(model.members[0], target)]
    require_new_folder(target)
    names = [f"{member.name.replace('/', '_')}.onnx" for member in model.members]
    reports = [_export_pixel_graph(member, target / name) for member, name in zip(model.members, names, strict=True)]
    how = model.combination
    facts = {
        "labels": list(model.labels),
        "combine": how.combine,
        "temperature": how.temperature,
        "members": [
            {"file": name, "weight": weight, "labels": list(member.space.labels), "to_labels": list(mapping.indices)}
            for name, member, mapping, weight in zip(names, model.members, how.maps, how.weights, strict=True)
        ],
        "operating_points": {name: point.model_dump() for name, point in model.operating_points.items()},
    }
    write_json(target / "combination.json", facts)
    return reports


def _export_pixel_graph(member: Member, target: Path) -> ExportReport:
    data, change = checked_pixel_graph(member)
    write_bytes(target, data)
    return ExportReport(str(target), len(data), change)


def as_one_member(model: Predictor) -> Member:
    """Return the only member; of an ensemble all members as one network, with what combines them."""
    if len(model.members) == 1:
        return model.members[0]
    how = model.combination
    classifiers = [member.classifier for member in model.members]
    joined = join(classifiers, model.space, how.maps, weights=how.weights, combine=how.combine, temperature=how.temperature)
    return Member(model.name, joined)


@contextmanager
def kept_if_good(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` that becomes it when the block ends well, and is removed when it raises."""
    aside = target.with_name(f".{target.name}.tmp")
    try:
        yield aside
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _whole_graph(onnx: Any, member: Member) -> Any:
    """Make the network's graph with its weights, its labels and its preprocessing inside, to be used on its own."""
    with TemporaryDirectory() as scratch:
        weights = Path(scratch) / WEIGHTS_NAME
        save_file(stored_weights(member.classifier, "float32"), weights)
        graph = onnx.load_from_string(write_graph(member.classifier, weights))
        onnx.external_data_helper.load_external_data_for_model(graph, scratch)
    for tensor in graph.graph.initializer:
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    config = member.classifier.input_config
    facts = {
        "labels": json.dumps(list(member.space.labels)),
        "label_space": member.space.name,
        "input_size": json.dumps(config.input_size),
        "mean": json.dumps(config.mean),
        "std": json.dumps(config.std),
        "interpolation": config.interpolation,
        "crop_pct": str(config.crop_pct),
        "crop_mode": config.crop_mode,
    }
    onnx.helper.set_model_props(graph, facts)
    onnx.checker.check_model(graph)
    return graph


def _difference(member: Member, path: Path) -> float:
    """Measure the largest difference of a logit between file and model, on random inputs."""
    generator = torch.Generator().manual_seed(0)
    size, worst = member.classifier.input_config.input_size, 0.0
    for count in _PARITY_BATCHES:
        batch = torch.randn(count, *size, generator=generator)
        ours = member.score(batch.to(member.classifier.device, member.classifier.dtype)).cpu().numpy()
        worst = max(worst, float(np.abs(run_onnx(path, [image.numpy() for image in batch]) - ours).max()))
    return worst


def run_onnx(path: Path, images: Sequence[Batch]) -> Batch:
    """Compute the (N, C) logits of an ONNX file on the CPU, whatever it calls its one input."""
    return session_logits(cpu_session(path), images)


def session_logits(session: Any, images: Sequence[Batch]) -> Batch:
    """Compute the (N, C) logits that an open ONNX file gives N images."""
    name = session.get_inputs()[0].name
    chunks = [np.stack(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    return np.concatenate([session.run([LOGITS], {name: chunk})[0] for chunk in chunks])
