"""Gradio's file component over the vault: what comes in is taken out of memory at once, what goes out is put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles

from lesion_hub.app.intake import Upload
from lesion_hub.app.vault import Vault


def parcel(vault: Vault, *, many: bool = False, label: str) -> gr.File:
    """A hidden ``gr.File``; a handler gets ``Upload`` objects from it and returns them to it. No file is involved.

    The methods are those of one object, not of a subclass: Gradio would write a stub file beside a subclass's source.
    """
    component = gr.File(file_count="multiple" if many else "single", label=label, visible=False)
    hatch = _Hatch(vault, many)
    component.preprocess = hatch.receive
    component.postprocess = hatch.send
    component.move_resource_to_block_cache = _stays
    component.async_move_resource_to_block_cache = _stays_async
    return component


class _Hatch:
    """Both directions of one component."""

    def __init__(self, vault: Vault, many: bool) -> None:
        self.vault = vault
        self.many = many

    def receive(self, payload: Any) -> Any:
        """The uploads that the payload names, taken out of the vault; a path that is not there gives nothing."""
        named = payload.root if isinstance(payload, ListFiles) else [] if payload is None else [payload]
        uploads = [upload for upload in (self.vault.take(file.path) for file in named) if upload is not None]
        if self.many:
            return uploads
        return uploads[0] if uploads else None

    def send(self, value: Upload | None) -> FileData | None:
        """An upload as the file data by which a client fetches it, once."""
        if value is None:
            return None
        return FileData(path=self.vault.put(value.name, value.content), orig_name=value.name, size=len(value.content))


def _stays(url_or_file_path: str | Path | None) -> str | None:
    """In memory, where it is. An address elsewhere is not fetched."""
    return None if url_or_file_path is None else str(url_or_file_path)


async def _stays_async(url_or_file_path: str | Path | None) -> str | None:
    return _stays(url_or_file_path)
