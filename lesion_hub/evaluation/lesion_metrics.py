"""Our measures as a module of the ``evaluate`` library.

``evaluate.load`` takes this file's path (``lesion_hub.evaluation.module_path``), copies the file and imports the copy, so no
network is needed; nothing in the package imports it.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from lesion_hub.evaluation import metrics

_DESCRIPTION = (
    "Measures of skin-lesion classifiers: balanced accuracy, per-class sensitivity, specificity, PPV, NPV and AUROC, "
    "malignancy at clinical operating points, and calibration."
)
_KWARGS = """
Args:
    predictions: probabilities, one list of C numbers in [0, 1] per example.
    references: the index of each example's label.
    label_space: name of the label space that gives the C labels, such as "ham7".
Returns:
    the dictionary of ``lesion_hub.evaluation.metrics.compute``.
Examples:
    >>> module = evaluate.load(lesion_hub.evaluation.module_path())
    >>> module.compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=[0, 1], label_space="binary")["accuracy"]
    1.0
"""


class LesionMetrics(evaluate.Metric):
    """``metrics.compute`` behind the interface of ``evaluate``; probabilities pass through float32 on the way."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, *, predictions: Any, references: Any, label_space: str) -> dict[str, Any]:
        return metrics.compute(predictions, references, label_space)
