"""Networks and the classifier around them. Importing this package registers our architectures with timm."""

from lesion_hub.models.classifier import CUSTOM_ARCHITECTURES, LesionClassifier
from lesion_hub.models.metadata import METADATA_INPUTS, encode_metadata
from lesion_hub.models.zoo import list_architectures

__all__ = ["CUSTOM_ARCHITECTURES", "METADATA_INPUTS", "LesionClassifier", "encode_metadata", "list_architectures"]
