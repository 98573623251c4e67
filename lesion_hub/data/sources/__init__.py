"""Readers: whatever layout images come in, out comes one `datasets.Dataset` with the schema's eight columns.

`reading` recognises the layout, `layouts` (folders and tables) and `hub` (data sets that carry their images) read its
rows, `rows` is what they share, `assemble` finds the images, judges the rows, and makes the data set and the report.
"""

from lesion_hub.data.sources.assemble import Finding, ReadReport, ReadResult, summarise
from lesion_hub.data.sources.reading import SOURCES, read

__all__ = ["SOURCES", "Finding", "ReadReport", "ReadResult", "read", "summarise"]
