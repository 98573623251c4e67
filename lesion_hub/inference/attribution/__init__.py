"""Where in the image the evidence for a label lies: attribution with Captum, for single models and ensembles."""

from lesion_hub.inference.attribution.cut import Cut, cut
from lesion_hub.inference.attribution.methods import METHODS, Evidence, Method, method

__all__ = ["METHODS", "Cut", "Evidence", "Method", "cut", "method"]
