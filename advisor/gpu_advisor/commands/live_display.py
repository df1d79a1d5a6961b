"""Live output of `watch` and `top`: a refreshing view on a terminal, lines in a pipe."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import click

from gpu_advisor.commands.keyboard import keyboard

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")


def run_live(
    fetch: Callable[[], T],
    render: Callable[[T, str], RenderableType],
    lines: Callable[[T | None, T], Iterable[str]],
    interval_seconds: float,
    on_key: Callable[[str], bool] = lambda key: key != "q",
) -> None:
    """Fetch and display at an interval until Ctrl-C or SIGTERM, or until `on_key` is false for a key.

    On a terminal `render` draws the state and the error of the last fetch (or ""), and again after each key. In a pipe
    `lines` yields what changed since the previous state. An error of the first fetch is raised; later ones are
    displayed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # restores the terminal
    try:
        state = fetch()
        if sys.stdout.isatty():
            _on_terminal(state, fetch, render, interval_seconds, on_key)
        else:
            _in_pipe(state, fetch, lines, interval_seconds)
    except KeyboardInterrupt:
        return


def _on_terminal(
    state: T,
    fetch: Callable[[], T],
    render: Callable[[T, str], RenderableType],
    interval_seconds: float,
    on_key: Callable[[str], bool],
) -> None:
    from rich.live import Live

    live, error_text = Live(render(state, ""), screen=True, auto_refresh=False), ""
    with keyboard() as keys:
        try:  # not `with live`: an interrupt during its start would not restore the terminal
            live.start()
            while True:
                live.refresh()
                due = time.monotonic() + interval_seconds
                while key := keys.wait(due - time.monotonic()):
                    if not on_key(key):
                        return
                    live.update(render(state, error_text), refresh=True)
                try:
                    state, error_text = fetch(), ""
                except click.ClickException as error:
                    error_text = error.message
                live.update(render(state, error_text))
        finally:
            live.stop()


def _in_pipe(
    state: T, fetch: Callable[[], T], lines: Callable[[T | None, T], Iterable[str]], interval_seconds: float
) -> None:
    before, error_text = None, ""
    while True:
        for line in lines(before, state):
            click.echo(line)
        sys.stdout.flush()
        time.sleep(interval_seconds)
        before = state
        try:
            state, error_text = fetch(), ""
        except click.ClickException as error:
            if error.message != error_text:  # once, not at each fetch
                click.echo(f"gpu-advisor: {error.message}", err=True)
            error_text = error.message
