"""How far a model's heat maps can be believed."""

from lesion_hub.inference.faithfulness.check import CheckOptions, Specimen, check, record
from lesion_hub.inference.faithfulness.specimens import specimens_of

__all__ = ["CheckOptions", "Specimen", "check", "record", "specimens_of"]
