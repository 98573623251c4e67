"""Every place where the page depends on parts of Gradio that its documentation does not promise.

- **Sessions without values** (`SessionsWithoutValues`, put in place by `replace_sessions`). Gradio keeps the last value of
  every component of every visitor, pictures included, so that a link can reproduce a page; this page has no such links. Not
  keeping them also spares each new visitor's first request a description of the whole page. Touched: ``App.state_holder`` and
  ``App.get_blocks``; of ``StateHolder`` its ``set_blocks``, ``capacity``, ``session_data`` and ``__getitem__``; of
  ``SessionState`` its constructor, which reads ``default_config`` and ``blocks`` of the ``Blocks``, its ``_update_config`` and
  its ``_update_value_in_config``. Noticed by ``tests/app/test_gradio_internals.py``.
- **Files that stay in memory** (`hidden_file`). A ``gr.File`` would read and write files in Gradio's cache folder. Touched, on
  one component: ``preprocess``, ``postprocess``, ``move_resource_to_block_cache``, ``async_move_resource_to_block_cache``.
  Noticed by ``tests/app/test_handlers.py``, which looks for files after every call.
- **Routes for files** (`lesion_hub.app.uploads.UploadMiddleware`, which touches no object of Gradio, only the paths of its
  routes). ``/upload`` and ``/file=`` are answered before Gradio; ``/proxy=``, ``/stream/`` and the like are closed. Noticed by
  ``tests/app/test_uploads.py``, which calls them over HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles
from gradio.routes import App
from gradio.state_holder import SessionState, StateHolder

from lesion_hub.app.uploads import FileStore, Upload

_SESSIONS_KEPT = 1000


class SessionWithoutValues(SessionState):
    """A visitor's session: it keeps which choices the page offers, and no value that was shown."""

    def __init__(self, blocks: gr.Blocks) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))  # no block, no values

    def _update_config(self, key: int) -> None:
        """Keep nothing."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Keep nothing."""


class SessionsWithoutValues(StateHolder):
    """The sessions of a page; the oldest make room for new ones."""

    def set_blocks(self, blocks: gr.Blocks) -> None:
        super().set_blocks(blocks)
        self.capacity = _SESSIONS_KEPT

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = SessionWithoutValues(self.blocks)
        return super().__getitem__(session_id)


@asynccontextmanager
async def replace_sessions(app: App) -> AsyncIterator[None]:
    """Replace a Gradio app's sessions before its first visitor; an ASGI lifespan."""
    sessions = SessionsWithoutValues()
    sessions.set_blocks(app.get_blocks())
    app.state_holder = sessions
    yield


def hidden_file(files: FileStore, *, label: str, many: bool = False) -> gr.File:
    """Make a hidden ``gr.File`` through which a handler takes and returns `Upload` objects that lie in ``files``.

    The methods are set on the object, not in a subclass: Gradio would write a stub file beside a subclass's source.
    """

    def preprocess(payload: ListFiles | FileData | None) -> Any:
        """Take the uploads that the payload names out of ``files``; a path that is not there gives nothing."""
        named = payload.root if isinstance(payload, ListFiles) else [] if payload is None else [payload]
        uploads = [upload for file in named if (upload := files.take(file.path)) is not None]
        return uploads if many else uploads[0] if uploads else None

    def postprocess(value: Upload | None) -> FileData | None:
        """Put an upload into ``files``, from where a client fetches it once."""
        if value is None:
            return None
        return FileData(path=files.put(value.name, value.content), orig_name=value.name, size=len(value.content))

    def leave_in_memory(url_or_file_path: str | Path | None) -> str | None:
        """Leave a file where it is, and fetch none from an address."""
        return None if url_or_file_path is None else str(url_or_file_path)

    async def leave_in_memory_async(url_or_file_path: str | Path | None) -> str | None:
        return leave_in_memory(url_or_file_path)

    component = gr.File(file_count="multiple" if many else "single", label=label, visible=False)
    component.preprocess = preprocess
    component.postprocess = postprocess
    component.move_resource_to_block_cache = leave_in_memory
    component.async_move_resource_to_block_cache = leave_in_memory_async
    return component
