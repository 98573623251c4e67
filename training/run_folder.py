"""The folder of one run: which recipe it belongs to, and where everything in it lies.

It is at once a publishable model folder: what a repo holds lies beside what stays at home (checkpoints, log, recipe).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, TypeVar

from lesion_hub.config import CONFIG_NAME
from lesion_hub.errors import ConfigError
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.layout import CARD_NAME
from training.checkpoints import CheckpointFolder
from training.recipe import EnsembleRecipe, Recipe
from training.recipe_files import dump_recipe, first_difference, read_yaml

R = TypeVar("R", Recipe, EnsembleRecipe)


class RunFolder:
    """Paths in a run folder, and the claim of a recipe on it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def log_file(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def picture_file(self) -> Path:
        """Augmented training images. Not among the plots, which are published: these are pictures of people's lesions."""
        return self.path / "augmented_samples.png"

    @property
    def draw_file(self) -> Path:
        return self.path / "draw.json"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def started(self) -> bool:
        """Whether there is anything to resume."""
        return (self.path / "checkpoints").is_dir()

    @property
    def finished(self) -> bool:
        """Whether all was written: the card comes last."""
        return (self.path / CARD_NAME).is_file()

    def checkpoints(self, keep: int) -> CheckpointFolder:
        return CheckpointFolder(self.path / "checkpoints", keep)

    def claim(self, recipe: R, *, restart: bool = False, any_batch: bool = False) -> R:
        """Make the folder this recipe's; one that is another's is refused, unless to ``restart``: that forgets the run there.

        Returns the recipe to go on with: under ``any_batch`` the batch size that the run there found to fit is kept.
        """
        if restart:
            self._forget()
        if self.recipe_file.is_file():
            there = read_yaml(self.recipe_file)
            if any_batch:
                recipe = recipe.model_copy(update={key: there.get(key) for key in ("batch_size", "accumulation")})
            difference = first_difference(there, recipe.model_dump(mode="json"))
            if difference is not None:
                raise ConfigError(
                    f"{self.path}: holds a run of another recipe ({difference}); choose another --out, or --restart"
                )
            return recipe
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be made ({error.strerror}); choose another --out") from None
        if self.finished:
            raise ConfigError(f"{self.path}: holds a model but no recipe.yaml; choose another --out")
        write_text(self.recipe_file, dump_recipe(recipe))
        return recipe

    def reclaim(self, recipe: Recipe) -> None:
        """Note the recipe again, with what was found out about it since."""
        write_text(self.recipe_file, dump_recipe(recipe))

    def _forget(self) -> None:
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        for name in (
            CARD_NAME,
            CONFIG_NAME,
            self.recipe_file.name,
            self.log_file.name,
            self.draw_file.name,
            self.manifest_file.name,
        ):
            (self.path / name).unlink(missing_ok=True)

    def write_log(self, history: list[dict[str, Any]]) -> None:
        """The epochs so far, a JSON object per line."""
        write_text(self.log_file, "".join(json.dumps(record) + "\n" for record in history))

    def write_json(self, name: str, value: Any) -> None:
        write_text(self.path / name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
