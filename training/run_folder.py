"""The folder of one run: which recipe it belongs to, and the paths of the files in it.

It is also the model folder that is published: the files of a repo lie beside those that are not published (checkpoints, log,
recipe).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from lesion_hub.config import CONFIG_NAME
from lesion_hub.errors import ConfigError
from lesion_hub.files import write_json, write_text
from lesion_hub.hub.layout import CARD_NAME
from lesion_hub.training.checkpoints import CheckpointFolder
from lesion_hub.training.claims import ClaimLost
from lesion_hub.training.recipe import EnsembleRecipe, Recipe
from lesion_hub.training.recipe_files import dump_recipe, first_difference, read_yaml

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
        """Augmented training images: pictures of people's lesions, and so not among the plots, which are published."""
        return self.path / "augmented_samples.png"

    @property
    def draw_file(self) -> Path:
        return self.path / "draw.json"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def index_file(self) -> Path:
        """The words of all images of a streamed run, and where each lies."""
        return self.path / "index.parquet"

    @property
    def inputs_file(self) -> Path:
        """The images, labels and starting weights that the run is made from, to be compared when it goes on."""
        return self.path / "inputs.parquet"

    @property
    def execution_file(self) -> Path:
        """The precision that the run computes in, and whether it is compiled: chosen once (see ``training.execution``)."""
        return self.path / "execution.json"

    @property
    def started(self) -> bool:
        """Whether there is anything to resume."""
        return (self.path / "checkpoints").is_dir()

    @property
    def finished(self) -> bool:
        """Whether everything is written: the card is written last."""
        return (self.path / CARD_NAME).is_file()

    def checkpoints(self, keep: int) -> CheckpointFolder:
        """Open the folder of checkpoints, of which the ``keep`` newest stay."""
        return CheckpointFolder(self.path / "checkpoints", keep)

    @property
    def epochs_done(self) -> int:
        """How many epochs the log tells of; a probe logs none."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines() if self.log_file.is_file() else []
        return json.loads(lines[-1]).get("epoch", 0) if lines else 0

    @property
    def files_of_a_claim(self) -> tuple[Path, ...]:
        """The files that a run may write before it saves anything that can be resumed."""
        return (
            self.recipe_file,
            self.log_file,
            self.draw_file,
            self.manifest_file,
            self.index_file,
            self.inputs_file,
            self.execution_file,
            self.picture_file,
        )

    def claim(self, recipe: R, *, restart: bool = False, any_batch: bool = False) -> R:
        """Make the folder this recipe's; refuse one that is another's, unless ``restart`` is set: that deletes the run there.

        The number of epochs may be another, as long as no fewer than are done: see `reopen`. Returns the recipe to train:
        with ``any_batch`` its batch size is the one that the run there found to fit.
        """
        if restart:
            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
            for path in (self.path / CARD_NAME, self.path / CONFIG_NAME, *self.files_of_a_claim):
                path.unlink(missing_ok=True)
        if self.recipe_file.is_file():
            there = read_yaml(self.recipe_file)
            if any_batch:
                recipe = recipe.model_copy(update={key: there.get(key) for key in ("batch_size", "accumulation")})
            now = recipe.model_dump(mode="json")
            epochs = now.get("epochs")
            difference = first_difference({**there, "epochs": epochs}, now)
            if difference is not None:
                raise ConfigError(
                    f"{self.path}: holds a run of another recipe ({difference}); only epochs may change: "
                    "choose another --out, or --restart"
                )
            if epochs is not None and epochs < self.epochs_done:
                raise ConfigError(
                    f"{self.path}: {self.epochs_done} epochs are done and epochs is {epochs}; give at least as many, "
                    "choose another --out, or --restart"
                )
            return recipe
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be made ({error.strerror}); choose another --out") from None
        if self.finished:
            raise ConfigError(f"{self.path}: holds a model but no recipe.yaml; choose another --out")
        self.write_recipe(recipe)
        return recipe

    def reopened_by(self, recipe: Recipe | EnsembleRecipe) -> bool:
        """Tell whether ``recipe``, which has claimed the folder, asks for another number of epochs than the run there."""
        return read_yaml(self.recipe_file).get("epochs") != recipe.model_dump().get("epochs")

    def reopen(self, recipe: Recipe | EnsembleRecipe) -> None:
        """Let the run there, finished or not, go on to the epochs of ``recipe``; the model stays until another is written."""
        (self.path / CARD_NAME).unlink(missing_ok=True)
        self.write_recipe(recipe)

    @contextmanager
    def freed_unless_saved(self, *, restart: bool) -> Iterator[None]:
        """Let the first process give the folder up where the block fails before anything is saved that can be resumed."""
        kept = [] if restart else [path for path in self.files_of_a_claim if path.is_file()]
        try:
            yield
        except ClaimLost:  # it is another worker's now
            raise
        except BaseException:
            if os.environ.get("RANK", "0") == "0":
                self._release(kept)
            raise

    def _release(self, kept: Collection[Path]) -> None:
        """Delete the files of a run that saved nothing; those ``kept`` were there before it."""
        if self.recipe_file in kept or any(self.path.rglob("checkpoints/*.safetensors")):
            return
        for path in self.files_of_a_claim:
            if path not in kept:
                path.unlink(missing_ok=True)
        for folder in (self.path / "checkpoints", self.path):
            with suppress(OSError):  # not there, or not empty
                folder.rmdir()

    def write_recipe(self, recipe: Recipe | EnsembleRecipe) -> None:
        """Write the resolved recipe."""
        write_text(self.recipe_file, dump_recipe(recipe))

    def write_log(self, history: list[dict[str, Any]]) -> None:
        """Write the epochs so far, a JSON object per line."""
        write_text(self.log_file, "".join(json.dumps(record) + "\n" for record in history))

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as the file ``name``."""
        write_json(self.path / name, value)
