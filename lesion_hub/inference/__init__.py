"""Loading a published model or ensemble, and predicting with it."""

from lesion_hub.inference.loading import from_pretrained
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.results import Prediction

__all__ = ["Prediction", "Predictor", "from_pretrained"]
