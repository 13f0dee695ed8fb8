"""Errors as HTTP answers: {error, cause, next_step, exit_code}, with the status of their class.

Every error that hsmctl prints has come through here; nothing else turns exceptions into answers.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import HsmError
from .deps import order_failed


def body_of(fault: Exception) -> dict[str, Any]:
    """The JSON of an error; what is not ours is a bug and is called one."""
    if isinstance(fault, HsmError):
        return {
            "error": type(fault).__name__,
            "cause": fault.message,
            "next_step": fault.next_step,
            "exit_code": fault.exit_code,
        }
    return {
        "error": "Internal",
        "cause": f"{type(fault).__name__}: {fault}",
        "next_step": "this is a fault of hsmfs; its traceback is in the log of hsmfsd",
        "exit_code": HsmError.exit_code,
    }


def install(app: FastAPI) -> None:
    """Make the app answer all errors in this form."""

    @app.exception_handler(HsmError)
    async def known(request: Request, fault: HsmError) -> JSONResponse:
        await order_failed(request, fault.message)
        return JSONResponse(body_of(fault), fault.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, fault: RequestValidationError) -> JSONResponse:
        causes = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in fault.errors()]
        await order_failed(request, "; ".join(causes))
        return JSONResponse(_plain("BadRequest", "; ".join(causes), "see /openapi.json"), 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, fault: HTTPException) -> JSONResponse:
        cause = f"{request.method} {request.url.path}: {fault.detail}"
        return JSONResponse(_plain("HTTP", cause, "see /openapi.json"), fault.status_code)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, fault: Exception) -> JSONResponse:
        await order_failed(request, f"{type(fault).__name__}: {fault}")
        return JSONResponse(body_of(fault), 500)


def _plain(error: str, cause: str, step: str) -> dict[str, Any]:
    return {"error": error, "cause": cause, "next_step": step, "exit_code": 2}
