"""Loading a published model or ensemble, predicting with it, and explaining what it says."""

from lesion_hub.inference.loading import from_network, from_pretrained
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.results import CasePrediction, Explanation, Prediction

__all__ = ["CasePrediction", "Explanation", "Prediction", "Predictor", "from_network", "from_pretrained"]
