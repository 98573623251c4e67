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
- **Calls that are queued or run** (`files_of_calls`, `withdraw_calls`). Touched: ``Blocks._queue`` and its
  ``event_ids_to_events``, ``remove_from_queue`` and ``send_message``; of ``Event`` its ``_id``, ``session_hash``, ``fn`` and
  ``data``. Noticed by ``tests/app/test_hostile_requests.py`` and ``tests/app/test_browser.py``.
- **Calls are started when they come** (`PromptQueue`). Gradio looks a thousand times a second, as long as the page is served,
  whether a call is queued, which takes some 7 % of a core and the lock of the interpreter from the model. Touched:
  ``Blocks._queue``; of ``Queue`` its constructor and the attributes that it sets from its arguments, ``push``,
  ``start_processing``, ``process_events``, ``get_events`` and the tables of running calls. Noticed by
  ``tests/app/test_gradio_internals.py`` and ``tests/app/test_load.py``.
- **Tables by session** (`IdleSessions`, which `replace_sessions` sets to work). Touched: of the queue
  ``pending_messages_per_session`` and ``pending_event_ids_session``; ``App.iterators`` and ``App.iterators_to_reset``. Noticed
  by ``tests/app/test_hostile_requests.py``, which looks for session hashes in every table of the process.
- **Connections that bring no request** (`SilentConnections`). uvicorn closes a connection that rests behind a request, but it
  waits for ever for the first one, and for an answer to be read. Touched: ``Blocks.server``, uvicorn's
  ``server_state.connections``, and of a connection its ``transport`` and ``cycle``. Noticed by the same tests.
- **A Space is no other place** (`without_reloading`, and `lesion_hub.app.page.Page`). There Gradio starts a server that takes
  edits of ``app.py`` (where the package ``spaces`` is missing, as in a Docker Space, it prints a stack trace instead), and its
  page asks for fonts of another host. Touched: ``http_server.get_space``, ``Blocks.space_id``. Noticed by
  ``tests/app/test_gradio_internals.py``.
- **Errors in a call** (`BlocksWithoutTraces`, `ERRORS_OF_CALLERS`). Gradio prints the stack trace of every error but those that
  say otherwise, and lets some escape. Touched: ``Blocks.process_api``, ``FnIndexInferError``. Noticed by the same tests.
- **Routes** (`lesion_hub.app.middleware.PageMiddleware`, which touches no object of Gradio, only the paths of its routes and
  the ``session_hash`` of a call). ``/upload`` and ``/file=`` are answered before Gradio; ``/proxy=``, ``/stream/`` and the like
  are closed. Noticed by ``tests/app/test_uploads.py``, which calls them over HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio import http_server
from gradio.data_classes import FileData, ListFiles
from gradio.queueing import Queue
from gradio.route_utils import FnIndexInferError
from gradio.routes import App
from gradio.server_messages import ProcessCompletedMessage
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import set_task_name

from lesion_hub.app import words
from lesion_hub.app.options import AppOptions
from lesion_hub.app.uploads import FileStore, Upload

logger = logging.getLogger(__name__)

ERRORS_OF_CALLERS = (LookupError, TypeError, ValueError, FnIndexInferError)
"""What Gradio raises at a call that names what is not there, or gives the wrong kind of value."""

_SESSIONS_KEPT = 1000
_IDLE_SESSIONS_KEPT = 200  # each may hold a result that waits to be fetched, pictures included


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


class IdleSessions:
    """The sessions that Gradio's queue still knows though none of their calls is queued or running.

    It keeps one, with the results that nobody has fetched, for ``keep_seconds``, and the newest ``capacity`` at most.
    """

    def __init__(self, app: App, *, keep_seconds: float, capacity: int = _IDLE_SESSIONS_KEPT) -> None:
        self.app = app
        self.keep_seconds = keep_seconds
        self.capacity = capacity
        self._last_seen: dict[str, float] = {}  # the session that was idle for longest first

    def forget(self, now: float) -> None:
        """Remove those whose time is over, and the oldest of too many, from every table."""
        queue = self.app.get_blocks()._queue
        busy = {event.session_hash for event in list(queue.event_ids_to_events.values())}
        known = {*queue.pending_messages_per_session, *queue.pending_event_ids_session}
        idle = {session: self._last_seen.get(session, now) for session in known - busy}
        self._last_seen = dict(sorted(idle.items(), key=lambda item: item[1]))
        for session, since in list(self._last_seen.items()):
            if now - since < self.keep_seconds and len(self._last_seen) <= self.capacity:
                break
            del self._last_seen[session]
            queue.pending_messages_per_session.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
        self.app.iterators_to_reset.intersection_update(self.app.iterators)


class SilentConnections:
    """The connections over which no request comes, or whose answer nobody reads."""

    def __init__(self, app: App, *, idle_seconds: float) -> None:
        self.app = app
        self.idle_seconds = idle_seconds
        self._seen: dict[Any, tuple[tuple[int, int], float]] = {}  # connection -> ((request, bytes unread), since when)

    def close(self, now: float) -> None:
        """Close those at which nothing changed for too long."""
        server = self.app.get_blocks().server
        seen = {}
        for connection in list(server.server_state.connections) if server else []:
            cycle = connection.cycle
            if cycle is not None and not cycle.response_complete:
                continue  # a request is being received or answered, and has limits of its own
            state = (id(cycle), connection.transport.get_write_buffer_size())
            before, since = self._seen.get(connection, (state, now))
            seen[connection] = (state, since if state == before else now)
            if now - seen[connection][1] >= self.idle_seconds:
                connection.transport.abort()
        self._seen = seen


def replace_sessions(options: AppOptions) -> Callable[[App], AbstractAsyncContextManager[None]]:
    """Make the ASGI lifespan that replaces a Gradio app's sessions before its first visitor, and tidies up every second."""

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        sessions = SessionsWithoutValues()
        sessions.set_blocks(app.get_blocks())
        app.state_holder = sessions
        idle = IdleSessions(app, keep_seconds=options.keep_seconds)
        silent = SilentConnections(app, idle_seconds=options.idle_seconds)

        async def tidy_up() -> None:
            while True:
                await asyncio.sleep(1)
                idle.forget(time.monotonic())
                silent.close(time.monotonic())

        tidying = asyncio.create_task(tidy_up())
        yield
        tidying.cancel()

    return lifespan


class PromptQueue(Queue):
    """A queue that starts calls when one has come or has ended, and does nothing in between."""

    stopped: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress_update_sleep_when_free = 1.0  # seconds between two looks for a ``gr.Progress``, of which there is none
        self._changed = asyncio.Event()

    async def push(self, *args: Any, **kwargs: Any) -> Any:
        answer = await super().push(*args, **kwargs)
        self._changed.set()
        return answer

    async def process_events(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().process_events(*args, **kwargs)
        finally:
            self._changed.set()

    async def start_processing(self) -> None:
        """Start all calls that can be started, as Gradio does, whenever something has changed."""
        self._changed = asyncio.Event()  # belongs to the event loop that serves the page
        try:
            while not self.stopped:
                async with self.delete_lock:
                    found = self.get_events() if None in self.active_jobs else None
                if found is None:
                    with suppress(asyncio.TimeoutError):  # else closing the page would not be noticed
                        await asyncio.wait_for(self._changed.wait(), timeout=0.5)
                    self._changed.clear()
                    continue
                events, batch, concurrency_id = found
                fn, begin = events[0].fn, time.time()
                self.active_jobs[self.active_jobs.index(None)] = events
                queued = self.event_queue_per_concurrency_id[concurrency_id]
                queued.current_concurrency += 1
                queued.start_times_per_fn[fn].add(begin)
                call = asyncio.create_task(self.process_events(events, batch, begin, fn))
                set_task_name(call, events[0].session_hash, fn._id, events[0]._id, batch)
                self._asyncio_tasks.add(call)
                call.add_done_callback(self._asyncio_tasks.discard)
                self.broadcast_estimations(concurrency_id)
        finally:
            self.stopped = True
            self._cancel_asyncio_tasks()


class BlocksWithoutTraces(gr.Blocks):
    """A ``gr.Blocks`` whose calls start when they come, and fail in one line, which in the log names no value."""

    def queue(self, *args: Any, **kwargs: Any) -> BlocksWithoutTraces:
        made: Any = super().queue(*args, **kwargs)._queue
        self._queue: Queue = PromptQueue(
            live_updates=made.live_updates,
            concurrency_count=made.max_thread_count,
            update_intervals=made.update_intervals,
            max_size=made.max_size,
            blocks=self,
            default_concurrency_limit=made.default_concurrency_limit,
        )
        return self

    async def process_api(self, block_fn: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await super().process_api(block_fn, *args, **kwargs)
        except gr.Error as error:
            error.print_exception = False
            raise
        except Exception as error:
            logger.warning("a call of %s was refused: %s", getattr(block_fn, "api_name", block_fn), type(error).__name__)
            logger.debug("why the call was refused", exc_info=error)
            raise gr.Error(words.WRONG_VALUES, print_exception=False) from None


@contextmanager
def without_reloading() -> Iterator[None]:
    """Let Gradio start its server as anywhere else: on a Space it would listen for edits of the page's code as well."""
    before = http_server.get_space
    http_server.get_space = lambda: None
    try:
        yield
    finally:
        http_server.get_space = before


def files_of_calls(page: gr.Blocks) -> set[str]:
    """Return the paths that the calls name which are queued or running."""
    calls = [event.data.data for event in list(page._queue.event_ids_to_events.values()) if event.data]
    values = [value for data in calls for value in data]
    files = [file for value in values for file in (value if isinstance(value, list) else [value]) if isinstance(file, dict)]
    return {file["path"] for file in files if isinstance(file.get("path"), str)}


async def withdraw_calls(page: gr.Blocks, session: str, *, api_name: str) -> None:
    """Take a session's calls of an endpoint out of the queue; for the page they end without a change."""
    queue = page._queue
    for call in list(queue.event_ids_to_events.values()):
        if (call.session_hash, call.fn.api_name) != (session, api_name):
            continue
        await queue.remove_from_queue(call._id)
        if call._id not in queue.event_ids_to_events:  # else it runs already
            unchanged = {"data": [gr.skip() for _ in call.fn.outputs], "is_generating": False}
            queue.send_message(call, ProcessCompletedMessage(output=unchanged, success=True))


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
