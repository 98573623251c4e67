"""The audit of a data set: duplicates, leaks, label conflicts, image quality, and how far the label is told without the lesion.

`run` makes the audit, `source_only` measures an image and holds the source-only baseline, `report` holds the results as
values, `page` renders them as HTML.
"""

from lesion_hub.data.audit.page import write_page
from lesion_hub.data.audit.report import AuditReport, Conflict, SharedWithOther, Table
from lesion_hub.data.audit.run import audit
from lesion_hub.data.audit.source_only import SourceOnly, source_only

__all__ = ["AuditReport", "Conflict", "SharedWithOther", "SourceOnly", "Table", "audit", "source_only", "write_page"]
