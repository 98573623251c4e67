"""Readers: whatever layout images come in, out comes one `datasets.Dataset` with the schema's eight columns.

`entry` recognises the layout, a module per family (`ham10000`, `isic`, `tree`, `table`, `hub`) reads its rows,
`assemble` finds the images and judges the rows, `report` says what was found.
"""

from lesion_hub.data.sources.entry import SOURCES, read
from lesion_hub.data.sources.report import Finding, ReadReport, ReadResult
from lesion_hub.data.sources.summary import summarise

__all__ = ["SOURCES", "Finding", "ReadReport", "ReadResult", "read", "summarise"]
