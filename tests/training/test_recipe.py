from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.errors import ConfigError
from lesion_hub.training.recipe import EnsembleRecipe, Recipe
from lesion_hub.training.recipe_files import SHIPPED, dump_recipe, first_difference, load_recipe, recipe_from, shipped_recipes

# What DESIGN calls the systems that must run as recipes.
SYSTEMS = [
    "isic2019_custom_cnn",
    "isic2019_efficientnet_b5",
    "isic_binary_alexnet",
    "isic_binary_inception_v3",
    "isic_binary_resnet50",
    "isic_binary_densenet121",
    "isic_binary_efficientnet_b0",
    "isic_binary_ensemble",
    "melanoma10k_resnet34",
    "melanoma10k_resnext101",
    "melanoma10k_mobilenetv2",
    "melanoma10k_efficientnet_b0",
    "ham10000_focal_cnn",
    "ham10000_efficientnet_b4",
    "ham10000_efficientnet_b7",
    "clinical6_mobilenetv2",
    "clinical6_efficientnet_b1",
    "clinical6_resnet50",
    "clinical6_ensemble",
    "ham10000_default",
    "ham10000_resnet50",
    "ham10000_mobilenetv2",
    "ham10000_lite0",
    "ham10000_lite2",
    "dermoscopy_mobilenetv2",
    "dermoscopy_lite0",
    "dermoscopy_lite2",
    "demo",
]
LEAST = {"data": {"space": "ham7"}, "model": {"backbone": "resnet18"}, "epochs": 1}


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_has_a_documented_recipe(name: str) -> None:
    assert load_recipe(name).name == name
    comments = [line for line in (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert sum(map(len, comments)) > 80


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_reads_back_equal(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe_from(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_the_papers_facts_are_in_the_recipes() -> None:
    clinical = load_recipe("clinical6_ensemble")
    assert isinstance(clinical, EnsembleRecipe) and clinical.weights == (0.3, 0.3, 0.4)
    resnet = load_recipe("clinical6_resnet50")
    assert isinstance(resnet, Recipe) and resnet.data.draw is not None and resnet.data.draw.per_class == 3000
    assert resnet.model.head == ("drop 0.4", 1024, "bn", "relu", "drop 0.4", 512, "bn", "relu", "drop 0.3", "out")
    kaggle = load_recipe("melanoma10k_resnet34")
    assert isinstance(kaggle, Recipe)
    found = (kaggle.loss.name, kaggle.optimiser.name, kaggle.optimiser.lr, kaggle.batch_size, kaggle.epochs)
    assert found == ("bce", "adam", 1e-3, 64, 25)
    assert kaggle.augmentation is not None and kaggle.augmentation.rotation == 15


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epochs: 1\nepochs: 2\n", "mine.yaml: not readable as YAML (line 2: key 'epochs' is given twice)"),
        ("epochs: [1\n", "not readable as YAML (line"),
        ("x: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("just words\n", "holds no sections"),
        ("data: {space: ham7}\nepochs: 1\n", "key 'model' is missing"),
        ("data: {space: ham7}\nmodel: {backbone: resnet18}\nepoch: 1\n", "unknown key 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_broken_file_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, text))
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimiser.lrr=1", "unknown key 'optimiser.lrr'; did you mean 'lr'?"),
        ("augmentation.rotatoin=1", "unknown key 'augmentation.rotatoin'; did you mean 'rotation'?"),
        ("epochs=yes", "epochs: Input should be a valid integer"),
        ("epochs=2.5", "epochs: Input should be a valid integer"),
        ("batch_size='32'", "batch_size: Input should be a valid integer"),
        ("batch_size=0", "batch_size: Input should be greater than or equal to 1"),
        ("optimiser.lr=fast", "optimiser.lr: Input should be a valid number"),
        ("precision=fp8", "precision: Input should be 'bf16', 'fp16', 'fp32' or 'auto'"),
        ("compile=maybe", "compile: use true, false or auto"),
        ("data.space=ham8", "unknown label space 'ham8'; did you mean 'ham7'?"),
        ("model.backbone=resnet5", "unknown architecture 'resnet5'; did you mean"),
        ("model.head=[512]", "must end in 'out'"),
        ("loss.name=focl", "unknown 'focl'; did you mean 'focal'?"),
        ("loss.name=bce", "loss bce is for two classes and ham7 has more"),
        ("loss.gamma=2.0", "gamma belongs to focal and class_balanced_focal, not to cross_entropy; drop it"),
        ("loss={name: focal, tau: 1.0}", "tau belongs to logit_adjusted, not to focal; drop it"),
        ("loss.beta=0.9", "beta belongs to class_weights: effective; drop it, or set those"),
        ("loss.options={epsilon: 1.0}", "options are for a loss of your own (package.module:name), not for cross_entropy"),
        ("loss.name=no_such_package:Mine", "loss: no_such_package:Mine: cannot be imported (No module named"),
        (
            "loss={name: 'tests.training.own_components:PolyLoss', gamma: 1.0}",
            "gamma belongs to focal and class_balanced_focal",
        ),
        (
            "loss={name: 'math:sqrt', options: {x: 1}}",
            "cannot be called with class_counts, weight, label_smoothing, reduction, x",
        ),
        ("augmentation.extra=[no_such_package:fn]", "augmentation.extra: no_such_package:fn: cannot be imported"),
        ("optimiser.momentum=0.9", "momentum and nesterov belong to sgd, not adamw; drop them"),
        ("optimiser.nesterov=true", "momentum and nesterov belong to sgd, not adamw; drop them"),
        ("optimiser={name: sgd, betas: [0.9, 0.99]}", "betas belong to adam and adamw, not sgd; drop them"),
        ("schedule.factor=0.5", "schedule cosine: no option 'factor'"),
        ("sampler.kind=balanced", "data.draw and sampler.kind: balanced go together"),
        ("data.draw.per_class=9", "data.draw and sampler.kind: balanced go together"),
        ("data.split={validation: 0.6, test: 0.4}", "leave nothing to train on"),
        ("data.split.validation=0", "every run needs one to choose by"),
        ("data.split.kind=manifest", "split.manifest and split.kind: manifest go together"),
        ("data.shuffle_buffer=9", "shuffle_buffer belongs to streaming: true; drop it, or set that"),
        ("data={streaming: true, draw: {per_class: 9}}", "draw picks single images, which a stream cannot give"),
        ("phases=[{train: head}, {train: all}]", "every phase but the last needs its number of epochs"),
        ("phases=[{train: all, epochs: 3}]", "the last phase takes the epochs that are left"),
        ("epochs", "write key=value"),
        ("epochs.x=1", "what comes before 'x' is a single value"),
        ("optimiser.lr=[1", "the value is not YAML"),
    ],
)
def test_a_wrong_override_is_one_line(override: str, line: str, tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(LEAST))
    with pytest.raises(ConfigError) as error:
        load_recipe(path, [override])
    assert line in str(error.value) and "\n" not in str(error.value)


def test_overrides_reach_into_sections_that_are_not_there_and_lists_that_are() -> None:
    recipe = load_recipe("clinical6_resnet50", ["ema.decay=0.99", "phases.0.epochs=7", "optimiser.lr=1e-2", "clip=null"])
    assert isinstance(recipe, Recipe) and recipe.ema is not None
    assert (recipe.ema.decay, recipe.phases[0].epochs, recipe.optimiser.lr, recipe.clip) == (0.99, 7, 0.01, None)


def test_overrides_of_an_ensemble_go_to_its_members_but_for_its_own_keys() -> None:
    recipe = load_recipe("clinical6_ensemble", ["epochs=1", "weights=[0.2, 0.2, 0.6]", "model.pretrained=false"])
    assert isinstance(recipe, EnsembleRecipe)
    assert recipe.set == ("epochs=1", "model.pretrained=false") and recipe.weights == (0.2, 0.2, 0.6)


def test_an_ensemble_weighs_every_member() -> None:
    with pytest.raises(ConfigError, match="2 weights for 3 members"):
        load_recipe("clinical6_ensemble", ["weights=[0.5, 0.5]"])


@given(st.floats(min_value=1e-6, max_value=10), st.integers(1, 999), st.booleans())
def test_any_valid_values_survive_the_file(lr: float, epochs: int, compiled: bool) -> None:
    recipe = recipe_from({**LEAST, "optimiser": {"lr": lr}, "epochs": epochs, "compile": compiled}, "x")
    assert recipe_from(yaml.safe_load(dump_recipe(recipe)), "x") == recipe


def test_fingerprints_tell_recipes_apart() -> None:
    one, other = load_recipe("demo"), load_recipe("demo", ["seed=1"])
    assert isinstance(one, Recipe) and isinstance(other, Recipe)
    assert one.fingerprint() == load_recipe("demo").fingerprint() != other.fingerprint()  # type: ignore[union-attr]


# What these recipes were before losses and operations of one's own could be named: runs of theirs go on.
FINGERPRINTS = {
    "demo": "bd8db97024be2353dde5024999acd6d7af959e3fe91cc63264510c712a1e50f8",
    "ham10000_lite0": "4068840df19cfa1c0e64d2e80ba1c6075456c26d579ec22e9306dc3aab3ca124",
    "isic2019_efficientnet_b5": "59aebce1159b782cfed70f21c9436755281f787c9d84dbc4b2449687d5f478e3",
}


@pytest.mark.parametrize(("name", "fingerprint"), FINGERPRINTS.items())
def test_keys_that_are_not_set_do_not_change_a_recipe(name: str, fingerprint: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.fingerprint() == fingerprint
    assert recipe.loss.options == {} and "options" not in recipe.model_dump()["loss"]
    assert recipe.gate and "gate" not in recipe.model_dump()


def test_a_stream_takes_images_as_they_come() -> None:
    with pytest.raises(ConfigError, match="sampler weighted picks single images, which a stream cannot give"):
        load_recipe("demo", ["data.streaming=true"])
    recipe = load_recipe("demo", ["data.streaming=true", "sampler.kind=natural"])
    assert isinstance(recipe, Recipe) and recipe.model_dump()["data"]["shuffle_buffer"] == 1000
    assert recipe_from(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_components_of_ones_own_are_part_of_a_recipe() -> None:
    own = "tests.training.own_components"
    recipe = load_recipe(
        "demo", [f"loss={{name: '{own}:PolyLoss', options: {{epsilon: 2.0}}}}", f"augmentation.extra=['{own}:noise']"]
    )
    assert isinstance(recipe, Recipe)
    assert recipe.loss.given == {"epsilon": 2.0} and recipe.fingerprint() != FINGERPRINTS["demo"]
    assert recipe_from(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_the_first_difference_is_named_by_its_dotted_key() -> None:
    there, now = (load_recipe("demo", [f"optimiser.lr={lr}"]).model_dump(mode="json") for lr in (0.1, 0.2))
    assert first_difference(there, now) == "optimiser.lr 0.1 there, 0.2 now"
    assert first_difference(there, there) is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimiser.lr=0.1", "optimiser is for training step by step, and a probe is solved; drop optimiser, or probe"),
        ("ema.decay=0.9", "ema is for training step by step"),
        (
            "loss.name=focal",
            "a probe is solved with a convex loss (cross_entropy, weighted_cross_entropy, logit_adjusted, bce)",
        ),
        ("probe.strengths=[0.1, 1.0]", "sort them, the strongest first"),
        ("probe.strength=1.0", "unknown key 'probe.strength'; did you mean 'strengths'?"),
    ],
)
def test_a_probe_takes_what_applies_to_it(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("probe", [override])
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_recipe_dumps_what_applies() -> None:
    assert "probe" not in load_recipe("demo").model_dump() and "optimiser" in load_recipe("demo").model_dump()
    probe = load_recipe("probe").model_dump()
    assert probe["probe"]["strengths"][0] == 1.0 and not {"optimiser", "schedule", "phases", "ema"} & set(probe)
