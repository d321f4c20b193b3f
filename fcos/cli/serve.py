"""`fcos serve`: a detector behind HTTP, with a page for people."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..system.stderr import say
from . import complete
from .common import (
    DEFAULT,
    MODEL,
    Device,
    Lanes,
    Settings,
    Trust,
    detecting_words,
    dtype_option,
    model_words,
    runtime_option,
)


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, model_words()] = None,
    settings: Settings = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", autocompletion=complete.models, help=f"[NAME=] {MODEL} It may be repeated."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: a free one.")] = 8000,
    device: Device = "auto",
    trust: Trust = False,
    runtime: Annotated[str | None, runtime_option(" or auto, the fastest. Default: auto, or FCOS_RUNTIME.")] = None,
    dtype: Annotated[str | None, dtype_option("fp32, bf16 or fp16.")] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="CPU threads of each process; 0: share the cores.")
    ] = 0,
    lanes: Lanes = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in one forward pass, if there is one lane.")] = 8,
    wait: Annotated[
        float, typer.Option("--wait-ms", min=0, help="Milliseconds that an image waits for others to join it.")
    ] = 5.0,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes, each with the models and a share of the threads.")
    ] = 1,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Images that may wait. Further requests get status 503.")
    ] = 64,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Most seconds that an answer may take.")] = 30.0,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds for open requests at a stop.")] = 10.0,
    megabytes: Annotated[int, typer.Option("--max-mb", min=1, help="Largest request in MB.")] = 32,
    megapixels: Annotated[int, typer.Option("--max-megapixels", min=1, help="Largest image.")] = 50,
    images: Annotated[int, typer.Option("--max-images", min=1, help="Most images in a request.")] = 16,
    admin: Annotated[
        str | None, typer.Option("--admin-token", envvar="FCOS_ADMIN_TOKEN", help="Allows reloading, with this token.")
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", help="Other web page that may use the API, such as https://example.org."),
    ] = None,
    allow_url: Annotated[
        list[str] | None,
        typer.Option("--allow-url", help="Host from which images may be fetched by URL, such as example.org."),
    ] = None,
    label_studio: Annotated[
        str | None,
        typer.Option(
            "--label-studio", help="Address of a Label Studio to annotate for; LABEL_STUDIO_API_KEY: its key."
        ),
    ] = None,
) -> None:
    """Serve a detector over HTTP, with a page for people.

    \b
    fcos serve --model runs/mine    # then open http://localhost:8000

    \b
    If FCOS_TOKEN is set in the environment, every request needs the header
    Authorization: Bearer TOKEN.
    """
    from ..errors import FcosError, require
    from ..inference.load import fastest

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "serve")
    from ..serving.options import Access, Limits, Placing, ServeOptions, bare_host, bare_token
    from ..serving.run import run

    things, overrides = detecting_words(words, settings, context)
    token = bare_token("FCOS_TOKEN", os.environ.get("FCOS_TOKEN"))
    admin = bare_token("--admin-token", admin)
    if not host.strip():
        raise FcosError("--host is empty; give an address, such as 127.0.0.1 or 0.0.0.0 for all")
    if label_studio is not None and not label_studio.startswith(("http://", "https://")):
        raise FcosError(f"--label-studio {label_studio!r} is no address; write it with http:// or https:// in front")
    for page in cors or ():
        if page not in ("*", "null") and "://" not in page:
            raise FcosError(f"--cors {page!r} is no address of a page; write it with http:// or https:// in front")
    options = ServeOptions(
        tuple([*things, *(model or [])] or [DEFAULT]),
        tuple(overrides),
        Placing(device, runtime or fastest(), dtype, threads, lanes, batch, wait / 1000, trust),
        Limits(megabytes << 20, megapixels * 1_000_000, images, queue, timeout, grace),
        Access(token, admin, tuple(cors or ()), tuple(bare_host(host) for host in allow_url or ())),
        workers,
        label_studio,
    )
    run(options, host, port, say=say)
