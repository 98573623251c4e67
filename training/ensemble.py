"""An ensemble recipe: its members trained one by one, and a description of what they make together.

What this leaves for later: an ensemble's ``ensemble.json`` pins *published* members, so publish each member's folder
first, then give ``ensemble_members.json`` to ``lesion-hub ensemble create``.
"""

from __future__ import annotations

from pathlib import Path

from lesion_hub.config import load_model_config
from lesion_hub.errors import ConfigError
from training.launch import LaunchOptions, make_accelerator
from training.recipe import EnsembleRecipe, Recipe
from training.recipe_files import load_recipe
from training.run import train_recipe
from training.run_folder import RunFolder

MEMBERS_NAME = "ensemble_members.json"


def train_ensemble(recipe: EnsembleRecipe, options: LaunchOptions) -> Path:
    """Train the members that are not finished into ``OUT/members/NAME``; returns the description's path."""
    members = load_members(recipe)
    folder = RunFolder(options.out)
    accelerator = make_accelerator(next(iter(members.values())), options)
    with accelerator.main_process_first():
        folder.claim(recipe, restart=options.restart and accelerator.is_main_process)
    for name, member in members.items():
        train_recipe(member, options.model_copy(update={"out": options.out / "members" / name}))
    accelerator.wait_for_everyone()
    described = [
        {
            "folder": f"members/{name}",
            "recipe": member.name,
            "weight": weight,
            "weights_sha256": load_model_config(options.out / "members" / name).lesion_hub.weights_sha256,
        }
        for (name, member), weight in zip(members.items(), recipe.weights, strict=True)
    ]
    if accelerator.is_main_process:
        folder.write_json(MEMBERS_NAME, {"name": recipe.name, "combine": recipe.combine, "members": described})
    return options.out / MEMBERS_NAME


def load_members(recipe: EnsembleRecipe) -> dict[str, Recipe]:
    """The members' recipes by name; members that would not see the same data are refused."""
    members: dict[str, Recipe] = {}
    for place in recipe.members:
        member = load_recipe(place, recipe.set)
        if not isinstance(member, Recipe):
            raise ConfigError(f"{recipe.name}: member {place} is an ensemble itself; name its members")
        if member.name in members:
            raise ConfigError(f"{recipe.name}: two members are called {member.name!r}; give them names of their own")
        members[member.name] = member
    first = next(iter(members.values()))
    for member in members.values():
        if member.data.model_copy(update={"cache_size": None}) != first.data.model_copy(update={"cache_size": None}):
            raise ConfigError(
                f"{recipe.name}: {member.name} has another data section than {first.name}; members must share split and draw"
            )
    return members
