"""The HTTP routes of the API."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from promptpanda.serving import page
from promptpanda.serving.guard import FAILURE, Guard, gone, read_body, refused
from promptpanda.serving.limits import RefusedError
from promptpanda.serving.messages import ErrorResponse, PredictRequest, PredictResponse, parse_object, parse_request
from promptpanda.serving.service import Service
from promptpanda.serving.summaries import ancestry, card_of, summary
from promptpanda.version import __version__

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The request cannot be read."},
    401: {"model": ErrorResponse, "description": "No token, or a wrong one."},
    404: {"model": ErrorResponse, "description": "No such prompt is served."},
    413: {"model": ErrorResponse, "description": "Too large: the body, the number of rows, or a text."},
    422: {"model": ErrorResponse, "description": "The prompt cannot read these texts or rows."},
    429: {"model": ErrorResponse, "description": "Too many rows are waiting."},
    503: {"model": ErrorResponse, "description": "No answer in time, or the server is being stopped."},
}
_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": PredictRequest.model_json_schema()}}}
}


def application(service: Service, *, token: str | None = None, local: bool = True) -> ASGIApp:
    """The application of a started service; see `Guard` for the arguments."""
    app = FastAPI(
        title="promptpanda",
        version=__version__,
        description="Predictions of many soft prompts from one frozen language model.",
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere; ours is in page.py
        redoc_url=None,
    )
    _add_health(app, service)
    _add_prompts(app, service)
    _add_predict(app, service)
    page.add(app, service)

    def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {
            404: "There is nothing under this address; GET /docs tells what there is.",
            405: f"This address takes no {request.method[:10]}; GET /docs tells what it takes.",
        }
        sentence = said.get(error.status_code, f"{error.detail}.")
        return JSONResponse({"error": sentence}, error.status_code, headers=error.headers)

    def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return refused(error)

    def on_failure(request: Request, error: Exception) -> Response:
        return FAILURE

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RefusedError, on_refused)
    app.add_exception_handler(Exception, on_failure)
    return Guard(
        app,
        limits=service.limits,
        token=token,
        local=local,
        failed=lambda error: _log_failure(error, service.tell),
        count=lambda route, status: service.metrics.requests.labels(route, str(status)).inc(),
    )


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Whether requests can be answered",
        responses={503: {"model": ErrorResponse, "description": "The server is being stopped, or the bank is gone."}},
    )
    async def readyz() -> dict[str, str]:
        if (why := service.unready()) is not None:
            raise RefusedError(503, why)
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_prompts(app: FastAPI, service: Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {status: _REFUSALS[status] for status in (401, 404)}

    @app.get("/v1/prompts", tags=["prompts"], summary="All prompts of the banks", responses={401: _REFUSALS[401]})
    async def prompts() -> dict[str, Any]:
        return {"prompts": [summary(entry) for entry in service.registry.entries()]}

    @app.get(
        "/v1/prompts/{prompt_id}", tags=["prompts"], summary="One prompt: card, scores, ancestry", responses=refusals
    )
    async def prompt(prompt_id: str) -> dict[str, Any]:
        """By its id, or by a task's name: the prompt that answers for it."""
        entry = service.registry.known(prompt_id)
        card = None if entry.card is None else card_of(entry.card)
        return {**summary(entry), "card": card, "ancestry": ancestry(entry, service.registry.entries())}


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        tags=["predict"],
        summary="Predictions of one prompt for texts or rows",
        response_model=PredictResponse,
        responses=_REFUSALS,
        openapi_extra=_BODY,
    )
    async def predict(request: Request) -> Response:
        body = await read_body(request, service.limits, "application/json")
        parsed = parse_request(parse_object(body), service.limits)
        entry = service.registry.find(parsed.prompt)
        found = await service.predict(
            entry,
            parsed.texts,
            parsed.rows,
            gone=lambda: gone(request),
            probabilities=parsed.probabilities,
            top=parsed.top,
            calibrated=parsed.calibrated,
        )
        return JSONResponse({"prompt": entry.id, "predictions": found})


def _log_failure(error: Exception, tell: Callable[[str], None]) -> None:
    """Name the failure and where it was, without what was computed with: that may be somebody's text."""
    if isinstance(error, ConnectionError):
        return  # whoever asked is gone
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    place = "" if last is None else f" in {Path(last.filename).name}, line {last.lineno}"
    tell(f"A request failed: {type(error).__name__}{place}.")
