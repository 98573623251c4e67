"""What the server remembers of a visitor: which choices the page offers, and nothing that was shown.

Gradio keeps the last value of every component of every visitor, pictures included, so that a link can reproduce a page. This
page has no such links. Not keeping them also spares each new visitor's first request a description of the whole page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from gradio import Blocks
from gradio.routes import App
from gradio.state_holder import SessionState, StateHolder

CAPACITY = 1000


class ForgetfulSession(SessionState):
    """A session without the values of its components."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))  # no block, no values

    def _update_config(self, key: int) -> None:
        """Nothing to keep."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nothing to keep."""


class ForgetfulSessions(StateHolder):
    """The sessions of a page, the oldest making room for new ones."""

    def set_blocks(self, blocks: Blocks) -> None:
        super().set_blocks(blocks)
        self.capacity = CAPACITY

    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = ForgetfulSession(self.blocks)
        return super().__getitem__(session_id)


@asynccontextmanager
async def forgetful(app: App) -> AsyncIterator[None]:
    """Lifespan of a Gradio app: put our sessions in the place of its own before anybody visits."""
    sessions = ForgetfulSessions()
    sessions.set_blocks(app.get_blocks())
    app.state_holder = sessions
    yield
