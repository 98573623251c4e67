"""Building the page and serving it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lesion_hub.app.environment import leave_a_core, prepare
from lesion_hub.app.options import AppOptions
from lesion_hub.errors import ConfigError

if TYPE_CHECKING:
    from lesion_hub.app.page import Page

DEFAULT_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Running:
    """A served page."""

    url: str
    page: Page = field(repr=False)

    def wait(self) -> None:
        """Until the process is interrupted."""
        self.page.block_thread()

    def stop(self) -> None:
        """Close the server; what it held in memory goes with it."""
        self.page.close(verbose=False)


def build(options: AppOptions | None = None) -> Page:
    """The page over the models of ``options``, loaded, not yet served.

    build(AppOptions(models=("ham10000-trio",))).launch()
    """
    chosen = options or AppOptions()
    folder = prepare()
    from lesion_hub.app.page import Page
    from lesion_hub.app.service import Service
    from lesion_hub.app.vault import Vault

    vault = Vault(f"{folder}/vault", capacity=2 * chosen.max_batch_bytes, keep_seconds=chosen.keep_seconds)
    return Page(Service(chosen), vault)


def launch(
    options: AppOptions | None = None, *, host: str | None = None, port: int | None = None, block: bool = True
) -> Running:
    """Serve the page; with ``block`` until the process is interrupted.

    Args:
        options: what to serve and its limits.
        host: address to listen on; None is ``GRADIO_SERVER_NAME``, which a Space sets, else this machine alone.
        port: None is ``GRADIO_SERVER_PORT``, else the first free one from 7860.
        block: whether to return only when the server ends.
    """
    if block:
        leave_a_core()
    page = build(options)
    name = host or os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST
    try:
        page.launch(server_name=name, server_port=port, prevent_thread_lock=True)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {name}:{port or 'any port'} ({' '.join(str(error).split())}); choose another --port"
        ) from None
    running = Running(page.local_url or "", page)
    if block:
        running.wait()
    return running
