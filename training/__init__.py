"""Training: recipes, the loop, and the parts it is made of, on top of the library, which never imports this package."""

from lesion_hub.extras import require_extra

require_extra("train")
