"""Networks and the classifier around them. Importing this package registers our architectures with timm."""

from lesion_hub.models.classifier import METADATA_INPUTS, LesionClassifier, encode_metadata
from lesion_hub.models.zoo import CUSTOM_ARCHITECTURES, list_architectures

__all__ = ["CUSTOM_ARCHITECTURES", "METADATA_INPUTS", "LesionClassifier", "encode_metadata", "list_architectures"]
