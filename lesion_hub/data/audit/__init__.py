"""The audit of a data set: duplicates, leaks, conflicts, quality, and how far the label is guessed without the lesion.

`measure` looks at each image once, `source_only` is the baseline, `run` asks the questions, `report` holds the
answers, `plots` and `page` show them.
"""

from lesion_hub.data.audit.page import write_page
from lesion_hub.data.audit.report import AuditReport, Conflict, Overlap, Table
from lesion_hub.data.audit.run import audit
from lesion_hub.data.audit.source_only import SourceOnly, source_only

__all__ = ["AuditReport", "Conflict", "Overlap", "SourceOnly", "Table", "audit", "source_only", "write_page"]
