from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForImageClassification

from lesion_hub import from_pretrained
from lesion_hub.files import read_json
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.models import LesionClassifier
from lesion_hub.training import probe, run
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.losses import make_loss
from lesion_hub.training.probe import LastLayerInput, PrincipalAxes, Probe, apply, minimise
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.reporting import Report
from lesion_hub.training.run import train_recipe
from lesion_hub.training.stopping import RunInterrupted

SMALL = ("model={backbone: resnet10t, pretrained: false, image_size: 32}", "epochs=2", "data.split.near_duplicates=false")


def small(*overrides: str) -> Recipe:
    recipe = load_recipe("probe", [*SMALL, "probe.strengths=[1.0, 0.1, 0.01]", *overrides])
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.mark.parametrize("strength", [1.0, 0.01])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_solution_is_that_of_logistic_regression(strength: float, weighted: bool) -> None:
    """Scikit-learn minimises the same function times the rows; features correlate and differ in size, one class is rare."""
    generator = np.random.default_rng(0)
    raw = generator.normal(size=(120, 30)) @ generator.normal(size=(30, 30)) * np.geomspace(0.1, 10, 30) + 3
    labels = np.clip((raw[:, 0] / 0.5 + generator.normal(size=120)).astype(int) % 4, 0, 2)
    features = torch.from_numpy(raw)
    loss = make_loss(
        "cross_entropy", class_counts=np.bincount(labels).tolist(), class_weights="inverse" if weighted else None
    ).double()
    axes = PrincipalAxes.of(features)
    start = torch.zeros(3, 31, dtype=torch.float64)
    found = minimise(axes(features), axes.variances, torch.from_numpy(labels), loss, strength, start)
    weight, bias = axes.folded(found)
    standard = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    weights = (len(labels) / (3 * np.bincount(labels)))[labels] if weighted else None
    other = LogisticRegression(C=1 / (strength * 120), tol=1e-9, max_iter=10000).fit(standard, labels, sample_weight=weights)
    ours = (features @ weight.T + bias).softmax(dim=1).numpy()
    assert np.abs(ours - other.predict_proba(standard)).max() < 2e-4
    # However far away it starts.
    again = minimise(axes(features), axes.variances, torch.from_numpy(labels), loss, strength, start + 1)
    assert torch.allclose(apply(again, axes(features)).softmax(1), torch.from_numpy(ours), atol=1e-5)


def test_features_that_do_not_vary_do_no_harm() -> None:
    features = torch.ones(8, 3, dtype=torch.float64)
    features[4:, 0] = 2
    axes = PrincipalAxes.of(features)
    labels = torch.tensor([0] * 4 + [1] * 4)
    found = minimise(
        axes(features),
        axes.variances,
        labels,
        make_loss("cross_entropy", class_counts=[4, 4]),
        0.01,
        torch.zeros(2, 4, dtype=torch.float64),
    )
    weight, bias = axes.folded(found)
    assert torch.isfinite(weight).all() and ((features @ weight.T + bias).argmax(1) == labels).all()


@pytest.mark.parametrize("head", [None, ["drop 0.5", 16, "relu", "out"]])
def test_the_last_layer_on_its_input_is_the_network(head: list[str | int] | None) -> None:
    classifier = LesionClassifier.create("lesion_cnn_shallow", "ham7", head=head, image_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = LastLayerInput(classifier)(images)
        assert torch.allclose(classifier.last_layer(features), classifier(images), atol=1e-6)
    assert not classifier.last_layer._forward_pre_hooks


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, sample_set, cache) -> LaunchOptions:  # type: ignore[no-untyped-def]
    options = LaunchOptions(data=sample_set("ham7"), out=tmp_path_factory.mktemp("probe") / "run", cache=cache)
    train_recipe(small(), options)
    return options


@pytest.mark.slow
def test_a_probe_ends_in_a_folder_that_all_three_loaders_load_alike(finished: LaunchOptions) -> None:
    folder = finished.out
    assert {"README.md", "plots/training_curves.png"} <= set(publishable_files(folder))
    classifier, config = read_model(folder)
    assert config.lesion_hub.temperature is not None
    images = torch.randn(2, *config.pretrained_cfg.input_size)
    with torch.no_grad():
        ours = classifier(images)
        others = [
            timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(images),
            AutoModelForImageClassification.from_pretrained(folder).eval()(images).logits,
            from_pretrained(folder).members[0].classifier(images),
        ]
    assert all((other - ours).abs().max() < 1e-4 for other in others)
    record = read_json(folder / "metrics.json")["training"]
    assert record["views"] == 2 and record["strengths"] <= 3 and record["best"]["strength"] in (1.0, 0.1, 0.01)
    assert not {"optimiser", "schedule", "phases"} & set(record["recipe"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Views of every image | 2" in card and "Learning rate" not in card and "Validation chose the penalty" in card


@pytest.mark.slow
def test_the_folded_layer_scores_as_the_path_said(finished: LaunchOptions) -> None:
    """The images are as small as the cache keeps them, so both paths see the same pixels but for a second resize."""
    metrics = read_json(finished.out / "metrics.json")
    assert metrics["validation"]["balanced_accuracy"] == pytest.approx(
        metrics["training"]["best"]["balanced_accuracy"], abs=0.1
    )


@pytest.fixture
def no_finish(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What would be finished: the weights of each run."""
    made: list[dict[str, torch.Tensor]] = []

    def keep(folder: object, recipe: object, classifier: LesionClassifier, *_: object) -> None:
        made.append({name: value.clone() for name, value in classifier.network.state_dict().items()})

    monkeypatch.setattr(run, "finish", keep)
    monkeypatch.setattr(Report, "summary", lambda *_: None)
    return made


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_an_interrupted_probe_goes_on_with_the_next_view_and_ends_in_the_same_weights(
    options: LaunchOptions, no_finish: list[dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = options.model_copy(update={"out": options.out.parent / "straight"})
    train_recipe(small(), straight)
    step = Report.step

    def stopping(self: Report, number: int, *more: float) -> None:
        step(self, number, *more)
        if self.epoch == 1:
            signals.signum = 15

    signals = probe.StopSignal()
    with monkeypatch.context() as patched:
        patched.setattr(probe, "StopSignal", lambda: signals)
        patched.setattr(Report, "step", stopping)
        with pytest.raises(RunInterrupted, match="stopped in view 2; the views before it are saved"):
            train_recipe(small(), options)
    computed: list[int] = []
    begin = Report.begin_epoch

    def noting(self: Report, epoch: int, step: int) -> None:
        begin(self, epoch, step)
        computed.append(epoch)

    with monkeypatch.context() as patched:
        patched.setattr(Report, "begin_epoch", noting)
        train_recipe(small(), options)
    assert computed == [1] and same(no_finish[1], no_finish[0])
    # A damaged view is computed again; two more are added to those that are there.
    (options.out / "checkpoints" / "step-000000001.safetensors").write_bytes(b"torn")
    computed.clear()
    with monkeypatch.context() as patched:
        patched.setattr(Report, "begin_epoch", noting)
        train_recipe(small("epochs=3"), options)
        assert computed == [0, 2]
    train_recipe(small("epochs=3"), straight)
    assert same(no_finish[2], no_finish[3]) and not same(no_finish[2], no_finish[0])


@pytest.mark.slow
def test_the_path_ends_when_validation_no_longer_rises(
    options: LaunchOptions, no_finish: list[dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = {"validation_loss": 1.0, "accuracy": 0.5, "balanced_accuracy": 0.5}
    monkeypatch.setattr(probe, "quick_metrics", lambda *_: flat)
    histories = []
    solve = Probe.solve
    monkeypatch.setattr(Probe, "solve", lambda *given: histories.append(solve(*given)) or histories[-1])
    train_recipe(small("epochs=1", "early_stopping.patience=1"), options)
    assert [record["strength"] for record in histories[0]] == [1.0, 0.1]
    assert len((options.out / "log.jsonl").read_text().splitlines()) == 2
