"""Synthetic dermoscopy: lesions drawn by a program, for demonstrations and tests. Nothing in it is a real patient.

`draw_lesion` draws one; `write_sample_set` writes a whole set in the layout of a public one.
"""

from lesion_hub.data.synthetic.diagnoses import DIAGNOSES, Appearance
from lesion_hub.data.synthetic.draw import SyntheticLesion, draw_lesion
from lesion_hub.data.synthetic.patients import Patient
from lesion_hub.data.synthetic.plan import PlannedImage
from lesion_hub.data.synthetic.plant import SamplePlan, plan_sample_set
from lesion_hub.data.synthetic.render import draw_planned
from lesion_hub.data.synthetic.spec import SampleSpec
from lesion_hub.data.synthetic.write import SampleSet, write_sample_set

__all__ = [
    "DIAGNOSES",
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
