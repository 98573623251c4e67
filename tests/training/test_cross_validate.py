from __future__ import annotations

import json
from statistics import mean, stdev

import pandas as pd
import pytest

from lesion_hub.training import cross_validate, run
from lesion_hub.training.cross_validate import CROSS_VALIDATION_NAME
from lesion_hub.training.launch import LaunchOptions

pytestmark = pytest.mark.slow

QUICK = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "epochs=1",
    "data.split={validation: 0.2, near_duplicates: false}",
)


def arguments(options: LaunchOptions) -> list[str]:
    places = ["--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache)]
    return ["--recipe", "demo", "--folds", "3", *places, "--set", *QUICK]


def test_every_image_is_tested_once_and_an_interrupted_validation_goes_on(
    options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], brief: None
) -> None:
    train, trained = run.train_recipe, []

    def second_fold_dies(recipe, place):  # type: ignore[no-untyped-def]
        trained.append(recipe.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(recipe, place)

    monkeypatch.setattr(cross_validate, "train_recipe", second_fold_dies)
    with pytest.raises(KeyboardInterrupt):
        cross_validate.main(arguments(options))
    first = (options.out / "fold-0-of-3" / "model.safetensors").stat().st_mtime_ns
    assert cross_validate.main(arguments(options)) == 0
    assert (options.out / "fold-0-of-3" / "model.safetensors").stat().st_mtime_ns == first

    pooled = pd.read_parquet(options.out / "predictions.parquet")
    assert len(pooled) == 71 == pooled["image_id"].nunique()
    assert pooled.groupby("group")["fold"].nunique().max() == 1
    result = json.loads((options.out / CROSS_VALIDATION_NAME).read_text())
    scores = [fold["accuracy"] for fold in result["folds"]]
    assert result["mean"]["accuracy"] == pytest.approx(mean(scores)) and result["sd"]["accuracy"] == pytest.approx(
        stdev(scores)
    )
    assert result["pooled"]["accuracy"] == pytest.approx((pooled["label"] == pooled["predicted"]).mean())
    assert "mean ± sd" in capsys.readouterr().out


def test_an_ensemble_has_no_folds(options: LaunchOptions, capsys: pytest.CaptureFixture[str]) -> None:
    assert cross_validate.main(["--recipe", "ham10000_trio", "--out", str(options.out)]) == 1
    assert "cross-validate its members" in capsys.readouterr().err
