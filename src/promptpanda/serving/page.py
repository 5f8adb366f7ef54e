"""The pages for people: server-rendered, with a little script of our own and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment

from promptpanda.bank.card import Card
from promptpanda.serving.curve import curve_of
from promptpanda.serving.forms import forms_of
from promptpanda.serving.guard import gone, read_body
from promptpanda.serving.limits import RefusedError
from promptpanda.serving.messages import parse_object
from promptpanda.serving.pasted_rows import rank_pasted
from promptpanda.serving.service import Service
from promptpanda.serving.summaries import ancestry, card_of, example_row, summary
from promptpanda.serving.table import predicted_table
from promptpanda.templating import environment

_STATIC = {
    "page.css": ("promptpanda.serving", "static/page.css", "text/css"),
    "page.js": ("promptpanda.serving", "static/page.js", "text/javascript"),
    "sort.js": ("promptpanda.report", "templates/sort.js", "text/javascript"),
}


def add(app: FastAPI, service: Service) -> None:
    """Add the pages, and what their script asks for."""
    _add_static(app)
    _add_pages(app, service)
    _add_actions(app, service)


def _add_static(app: FastAPI) -> None:
    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in _STATIC:
            raise RefusedError(404, "There is nothing under this address.")
        package, path, kind = _STATIC[name]
        return Response(_file(package, path), media_type=f"{kind}; charset=utf-8")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)


def _add_pages(app: FastAPI, service: Service) -> None:
    def show(template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(_templates().get_template(template).render(limits=service.limits, **values))

    def served() -> list[Card]:
        entries = service.registry.entries()
        return [entry.card for entry in entries if entry.served and entry.card is not None]

    @app.get("/", include_in_schema=False)
    async def prompts() -> HTMLResponse:
        return show("prompts.html.j2", prompts=[summary(entry) for entry in service.registry.entries()])

    @app.get("/prompts/{prompt_id}", include_in_schema=False)
    async def prompt(prompt_id: str) -> HTMLResponse:
        entry = service.registry.entry(prompt_id)
        card = entry.card
        return show(
            "prompt.html.j2",
            prompt=summary(entry),
            card=None if card is None else card_of(card),
            curve=None if card is None else curve_of(card),
            row=None if card is None else example_row(card),
            ancestors=ancestry(entry, service.registry.entries()),
        )

    @app.get("/try", include_in_schema=False)
    async def try_texts(form: str = "", prompt: str = "") -> HTMLResponse:
        forms = forms_of(served())
        chosen = next((one for one in forms if one.name == form or prompt in one.prompts), forms[0] if forms else None)
        return show("try.html.j2", forms=forms, form=chosen, prompt=prompt)

    @app.get("/rank", include_in_schema=False)
    async def rank() -> HTMLResponse:
        return show("rank.html.j2")

    @app.get("/file", include_in_schema=False)
    async def file(prompt: str = "") -> HTMLResponse:
        return show("file.html.j2", prompts=served(), prompt=prompt)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return show("docs.html.j2", api=app.openapi())


def _add_actions(app: FastAPI, service: Service) -> None:
    @app.post("/page/rank", include_in_schema=False)
    async def rank(request: Request) -> dict[str, Any]:
        body = parse_object(await read_body(request, service.limits, "application/json"))
        return await rank_pasted(service, body, gone=lambda: gone(request))

    @app.post("/page/file", include_in_schema=False)
    async def file(request: Request, prompt: str) -> Response:
        body = await read_body(request, service.limits, "text/csv")
        entry = service.registry.find(prompt)
        text, unread = await predicted_table(service, entry, body, gone=lambda: gone(request))
        return Response(text, media_type="text/csv; charset=utf-8", headers={"X-Unread-Rows": str(unread)})


@cache
def _templates() -> Environment:
    made = environment("promptpanda.serving")
    filters: dict[str, Callable[[Any], str]] = {
        "percent": lambda value: f"{100 * value:.1f}",
        "size": lambda value: f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB",
        "words": lambda value: str(value).replace("_", " ").replace(" qa", " QA"),
    }
    made.filters.update(filters)
    return made


@cache
def _file(package: str, path: str) -> bytes:
    return files(package).joinpath(path).read_bytes()
