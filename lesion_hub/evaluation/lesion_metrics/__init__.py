"""The folder that ``evaluate.load`` is given; see ``lesion_hub.evaluation.module_path``."""
