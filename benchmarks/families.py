"""One small member of every family of timm, through everything that a published model goes through.

Each is built, trained for a step, given a temperature, written, read by us, by timm and by transformers, and explained. What
came out goes to ``lesion_hub/models/families.json``, which `lesion-hub models` shows, and to the table of ``docs/models.md``;
``tests/models/test_families.py`` tries again and compares. About ten minutes of one core, half
of them for the ten largest networks.

    python benchmarks/families.py [--only xcit eva] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from lesion_hub.errors import ConfigError
from lesion_hub.files import json_text, write_text
from lesion_hub.hub.format import fold_temperature, read_model, write_model
from lesion_hub.inference.attribution import METHODS, Evidence
from lesion_hub.models import LesionClassifier
from lesion_hub.models.zoo import FAMILIES_FILE, Family, families, family_of, list_architectures
from lesion_hub.training.optimisers import make_optimiser, set_train_mode, set_trainable
from lesion_hub.training.recipe import Phase

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
TOLERANCE = 1e-4
SPACE, LABELS = "ham7", 7
HEAVY = 60.0
"""Networks of more million parameters are tried by this script alone."""

# Architecture and the smallest input at which it has a map worth the name; the family is the architecture's.
MEMBERS = {
    "lesion_cnn_shallow": 32,
    "beit_base_patch16_224": 32,
    "lambda_resnet26t": 64,
    "mobileone_s0": 64,
    "cait_xxs24_224": 32,
    "coat_tiny": 64,
    "convit_tiny": 32,
    "convmixer_768_32": 64,
    "convnext_atto": 64,
    "cpubone_nano": 64,
    "crossvit_tiny_240": 120,
    "csatv2": 64,
    "cs3darknet_s": 64,
    "cspnext_tiny": 64,
    "davit_tiny": 64,
    "deepseek_vit_412m": 126,
    "deit_tiny_distilled_patch16_224": 32,
    "densenet121": 64,
    "dla46x_c": 64,
    "dpn48b": 64,
    "edgenext_xx_small": 64,
    "efficientformer_l1": 224,
    "efficientformerv2_s0": 64,
    "efficientnet_lite0": 64,
    "efficientvim_m1": 64,
    "efficientvit_b0": 64,
    "efficientvit_m0": 128,
    "eva02_tiny_patch14_224": 28,
    "fasternet_t0": 64,
    "fastvit_t8": 64,
    "focalnet_tiny_srf": 64,
    "gcvit_xxtiny": 64,
    "gemma4_vit_167m": 96,
    "ghostnet_050": 64,
    "hardcorenas_a": 64,
    "hgnetv2_b0": 64,
    "hiera_tiny_224": 64,
    "sam2_hiera_tiny": 64,
    "hrnet_w18_small": 64,
    "iformer_t": 64,
    "inception_next_atto": 64,
    "inception_resnet_v2": 96,
    "inception_v3": 128,
    "inception_v4": 96,
    "lcnetv2_small": 64,
    "levit_128s": 64,
    "lowformer_b0": 64,
    "mambaout_femto": 64,
    "coatnet_pico_rw_224": 64,
    "poolformer_s12": 64,
    "mixer_s32_224": 64,
    "mobilenetv3_small_050": 64,
    "mobilenetv5_300m": 96,
    "mobilevitv2_050": 64,
    "mvitv2_tiny": 64,
    "naflexvit_base_patch16_gap": 32,
    "nasnetalarge": 96,
    "nest_tiny": 64,
    "nextvit_small": 64,
    "nf_regnet_b0": 64,
    "pit_ti_distilled_224": 64,
    "pnasnet5large": 96,
    "pvt_v2_b0": 64,
    "qwen3_vit_88m": 64,
    "rdnet_tiny": 64,
    "regnetx_002": 64,
    "repghostnet_050": 64,
    "repvit_m1": 64,
    "res2net50_14w_8s": 64,
    "resnest14d": 64,
    "resnet18": 64,
    "resnetv2_50x1_bit": 64,
    "rexnet_100": 64,
    "selecsls42": 64,
    "legacy_seresnet18": 64,
    "sequencer2d_s": 64,
    "shvit_s1": 128,
    "skresnet18": 64,
    "starnet_s050": 64,
    "swiftformer_xs": 64,
    "swin_tiny_patch4_window7_224": 64,
    "swinv2_tiny_window8_256": 64,
    "swinv2_cr_tiny_ns_224": 64,
    "tiny_vit_5m_224": 64,
    "tnt_s_patch16_224": 64,
    "tresnet_m": 64,
    "twins_svt_small": 64,
    "vgg11": 32,
    "visformer_tiny": 64,
    "vit_tiny_patch16_224": 32,
    "vit_tiny_r_s16_p8_224": 64,
    "vit_relpos_small_patch16_224": 32,
    "samvit_base_patch16_224": 64,
    "vitamin_small_224": 64,
    "volo_d1_224": 64,
    "ese_vovnet19b_slim_dw": 64,
    "legacy_xception": 64,
    "xception41": 64,
    "xcit_nano_12_p16_224": 32,
}


def build(architecture: str, image_size: int) -> LesionClassifier:
    """Build a classifier whose last layers are of a trained network's size: some start as zeros, and all are small."""
    torch.manual_seed(0)
    classifier = LesionClassifier.create(architecture, SPACE, image_size=image_size)
    for layer in classifier.last_layers:
        nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    return classifier


def train_a_step(classifier: LesionClassifier) -> tuple[str, ...]:
    """Train all layers for a step, as recipes with a decay by layer do; return the parameters that got no gradient."""
    network, phase = classifier.network, Phase()
    set_trainable(network, phase)
    set_train_mode(network, phase)
    optimiser = make_optimiser("adamw", network, lr=1e-4, layer_decay=0.9)
    images = torch.randn(2, *classifier.input_config.input_size, generator=torch.Generator().manual_seed(1))
    loss = nn.functional.cross_entropy(network(images), torch.tensor([0, 1]))
    if not torch.isfinite(loss):
        raise ArithmeticError(f"{classifier.architecture}: the loss is {loss.item()}")
    loss.backward()
    optimiser.step()
    classifier.eval()
    return tuple(name for name, parameter in network.named_parameters() if parameter.requires_grad and parameter.grad is None)


@torch.no_grad()
def logits_of_three_loaders(folder: Path, images: Tensor) -> dict[str, Tensor]:
    """Read the same folder with our loader, timm's and transformers'; return each one's (N, C) logits."""
    ours, _ = read_model(folder)
    logits = {"lesion_hub": ours(images)}
    logits["timm"] = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images)
    logits["transformers"] = AutoModelForImageClassification.from_pretrained(folder).eval()(images).logits
    return logits


def explain(classifier: LesionClassifier, image: Tensor) -> bool:
    """Draw a map for each label, by Grad-CAM or, where no cut fits, by a method that needs none; tell whether it fits."""
    images, labels = image.expand(LABELS, -1, -1, -1), torch.eye(LABELS, dtype=torch.bool)
    try:
        heat = _maps("gradcam", classifier, images, labels)
    except ConfigError:
        heat = _maps("integrated_gradients", classifier, images[:1], labels[:1])
        layer_maps = False
    else:
        layer_maps = True
    if not torch.isfinite(heat).all() or not heat.max() > 0:
        raise ArithmeticError(f"{classifier.architecture}: its maps are empty")
    return layer_maps


def _maps(method: str, classifier: LesionClassifier, images: Tensor, labels: Tensor) -> Tensor:
    cut = METHODS[method].cut(classifier)
    with torch.no_grad():
        state = cut.stem(images)
        torch.testing.assert_close(cut(state), classifier(images), atol=TOLERANCE, rtol=TOLERANCE)
    return METHODS[method].attribute(Evidence(cut, images, state), labels)


def try_family(architecture: str, image_size: int, folder: Path) -> Family:
    """Take one network through all of it; what does not hold is raised."""
    classifier = build(architecture, image_size)
    classifier.require_trainable()
    without_gradient = train_a_step(classifier)
    images = torch.randn(2, *classifier.input_config.input_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = classifier(images)
    fold_temperature(classifier, 2.0)
    write_model(folder, classifier, temperature=2.0, storage="float32")
    for loader, after in logits_of_three_loaders(folder, images).items():
        torch.testing.assert_close(after * 2, before, atol=TOLERANCE, rtol=TOLERANCE, msg=f"logits differ through {loader}")
    layer_maps = explain(classifier, images[:1])
    size = round(sum(parameter.numel() for parameter in classifier.parameters()) / 1e6, 1)
    family = family_of(architecture)
    return Family(family, architecture, image_size, size, True, layer_maps, without_gradient, refused_members(family))


def refused_members(family: str) -> tuple[str, ...]:
    """List the members that have no classifier: encoders of vision-language models, which timm names so."""
    found = []
    for name in (member.name for member in list_architectures("*_enc") if member.family == family):
        try:
            with torch.device("meta"):
                LesionClassifier.create(name, SPACE)
        except ConfigError:
            found.append(name)
    return tuple(found)


def table(rows: dict[str, Family]) -> str:
    """Word the families as a Markdown table."""
    lines = ["| family | tried with | pixels | million parameters | trains | heat maps | |", "|---|---|---|---|---|---|---|"]
    for row in rows.values():
        notes = [f"not {', '.join(f'`{name}`' for name in row.refused)}: no classifier"] if row.refused else []
        if row.without_gradient:
            notes.append(f"{len(row.without_gradient)} parameters without a gradient")
        maps = "all methods" if row.layer_maps else "all but the layer-wise"
        cells = (row.name, f"`{row.architecture}`", row.image_size, row.megaparameters, "yes" if row.trains else "no", maps)
        lines.append(f"| {' | '.join(map(str, cells))} | {'; '.join(notes)} |")
    return "\n".join(lines)


def page_with(text: str, rows: dict[str, Family]) -> str:
    """Put the table between the page's markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE}: the lines {BEGIN!r} and {END!r} are missing; put them where the table belongs")
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="families to try; the others keep their rows")
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    arguments = parser.parse_args()
    rows = dict(families()) if FAMILIES_FILE.is_file() else {}
    failed = {}
    for architecture, image_size in MEMBERS.items():
        family = family_of(architecture)
        if arguments.only and family not in arguments.only:
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                rows[family] = try_family(architecture, image_size, Path(folder))
        except Exception as error:  # noqa: BLE001 - whatever a network does is what is to be found out
            failed[family] = f"{type(error).__name__}: {error}"
        print(family, failed.get(family, "works"), file=sys.stderr)
    rows = {name: rows[name] for name in sorted(rows)}
    write_text(FAMILIES_FILE, json_text({"timm": timm.__version__, "families": [row.to_dict() for row in rows.values()]}))
    write_text(PAGE, page_with(PAGE.read_text(encoding="utf-8"), rows))
    if arguments.json:
        print(json.dumps({"families": {name: row.to_dict() for name, row in rows.items()}, "failed": failed}, indent=2))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
