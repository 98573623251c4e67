"""The data set and the models that the commands that measure are tried on: those of ``tests/evaluation``."""

from tests.evaluation.conftest import data, make_model, manifest, samples

__all__ = ["data", "make_model", "manifest", "samples"]
