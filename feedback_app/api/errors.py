"""Every refusal of the API has one shape, {"error": what is wrong, "mend": what to do}, and the status that fits."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from feedback_app.together import TooBusy
from storage.engine import explain
from storage.errors import Conflict, FeedbackError, Invalid, NotAllowed, NotEnoughData, NotFound, StoreUnavailable

_STATUS: dict[type[FeedbackError], int] = {
    NotFound: 404,
    NotAllowed: 403,
    Conflict: 409,
    NotEnoughData: 409,
    Invalid: 422,
    StoreUnavailable: 503,
}
_PLAIN = {404: "there is nothing at this address; see /api/v1/openapi.json"}
_NAMED = 5  # wrong fields told of at once


def refusal(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer that says no: what stands behind the first semicolon of `line` is what to do."""
    error, _, mend = line.partition("; ")
    return JSONResponse({"error": error, **({"mend": mend} if mend else {})}, status, headers)


def refusal_of(error: FeedbackError) -> JSONResponse:
    """The answer to an error that a person can mend."""
    if isinstance(error, TooBusy):
        return refusal(429, str(error), {"retry-after": "1"})
    return refusal(next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400), str(error))


def install(app: FastAPI) -> None:
    """Give `app` these answers for everything that can go wrong."""
    app.add_exception_handler(FeedbackError, _mendable)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _fault)


async def _mendable(_request: Request, error: Exception) -> Response:
    return refusal_of(error) if isinstance(error, FeedbackError) else _nobody_foresaw(error)


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _nobody_foresaw(error)
    line = _PLAIN.get(error.status_code, str(error.detail))
    if error.status_code == 405:
        line = f"{request.method} is not possible here; see /api/v1/openapi.json"
    return refusal(error.status_code, line, error.headers)


async def _malformed(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return _nobody_foresaw(error)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return refusal(422, "the body is not JSON; send one JSON object")
    told = "; ".join(f"{_place(one['loc'])}: {_reason(one)}" for one in found[:_NAMED])
    more = f" (and {len(found) - _NAMED} more)" if len(found) > _NAMED else ""
    return JSONResponse({"error": told + more, "mend": "see /api/v1/openapi.json"}, 422)


async def _fault(_request: Request, error: Exception) -> Response:
    return _nobody_foresaw(error)


def _nobody_foresaw(error: Exception) -> Response:
    known = explain(error)
    if known is not None:
        return refusal(503, known)
    logging.getLogger(__name__).error("unexpected", exc_info=error)
    return refusal(500, "this is a fault of the program; its log has the traceback")


def _place(parts: tuple[Any, ...]) -> str:
    # ("body", "prompts", 3, "text") -> prompts[3].text. A wrong key can be long: it is the sender's own text.
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:60]}" for part in parts[1:])
    return shown.removeprefix(".") or "the body"


def _reason(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:] if message else "not as expected"
