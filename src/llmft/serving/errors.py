"""Errors -> responses with OpenAI's error object."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
MAX_FAULTS = 5


class ErrorDetail(BaseModel):
    """Content of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error object, for the OpenAPI schema."""

    error: ErrorDetail


class ApiError(Exception):
    """An error response; its message goes to the client, so it contains no path and no stack trace."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


async def api_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of ApiError."""
    assert isinstance(error, ApiError)
    return error.response()


async def http_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of a wrong path or method, or a body that is not JSON."""
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, str(error.detail), headers=error.headers).response()


async def validation_error(_: Request, error: Exception) -> JSONResponse:
    """Handler of an invalid body: names the first few fields, and never repeats their values."""
    assert isinstance(error, RequestValidationError)
    faults = list(error.errors())
    fields = [_field(fault) for fault in faults]
    messages = [f"{field or 'body'}: {_message(fault)}" for field, fault in zip(fields, faults, strict=True)]
    message = "; ".join(_plain(fault) for fault in dict.fromkeys(messages[:MAX_FAULTS]))
    return ApiError(400, message, param=_plain(fields[0]) or None if fields else None).response()


async def client_disconnected(_: Request, __: Exception) -> JSONResponse:
    """Handler of a client that has disconnected (499 in nginx)."""
    return ApiError(499, "the client has disconnected").response()


async def internal_error(_: Request, __: Exception) -> JSONResponse:
    """Handler of any other exception, which is logged."""
    return ApiError(500, "internal server error; see the server's log").response()


def _field(fault: Mapping[str, Any]) -> str:
    parts = () if fault["type"] == "json_invalid" else fault["loc"][1:]
    # for a union pydantic also names the member that it tried
    return ".".join(str(part) for part in parts if isinstance(part, int) or (part.isidentifier() and part != "str"))


def _message(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return f"broken JSON at character {fault['loc'][-1]}"
    return "is unknown or not supported" if fault["type"] == "extra_forbidden" else fault["msg"]


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:300]
