"""Synthetic dermoscopy: lesions drawn by a program, for demonstrations and tests. Nothing in it is a real patient.

`draw_lesion` draws one; `write_sample_set` writes a whole set in the layout of a public one.
"""

from lesion_hub.data.synthetic.diagnoses import APPEARANCES, Appearance, Patient
from lesion_hub.data.synthetic.drawing import SyntheticLesion, draw_lesion
from lesion_hub.data.synthetic.plan import PlannedImage, SamplePlan, SampleSpec, plan_sample_set
from lesion_hub.data.synthetic.write import SampleSet, draw_planned, write_sample_set

__all__ = [
    "APPEARANCES",
    "Appearance",
    "Patient",
    "PlannedImage",
    "SamplePlan",
    "SampleSet",
    "SampleSpec",
    "SyntheticLesion",
    "draw_lesion",
    "draw_planned",
    "plan_sample_set",
    "write_sample_set",
]
