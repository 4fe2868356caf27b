"""What a client did wrong, or the server cannot do now -> an answer in OpenAI's shape."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
SHOWN = 5


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error object, for the description of the API."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer that is an error; the message is for the client, so it holds no path and no stack."""

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
        """The whole answer."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


async def api_error(_: Request, error: Exception) -> JSONResponse:
    """Of an ApiError."""
    assert isinstance(error, ApiError)
    return error.response()


async def http_error(_: Request, error: Exception) -> JSONResponse:
    """Of a wrong path or method, or a body that is no JSON."""
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, str(error.detail), headers=error.headers).response()


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """Of a body that does not fit: the first few faults, each with its place; never what was sent."""
    assert isinstance(error, RequestValidationError)
    faults = list(error.errors())
    places = [_place(fault) for fault in faults]
    told = [f"{place or 'body'}: {_told(fault)}" for place, fault in zip(places, faults, strict=True)]
    message = "; ".join(_plain(fault) for fault in dict.fromkeys(told[:SHOWN]))
    return ApiError(400, message, param=_plain(places[0]) or None if places else None).response()


async def left(_: Request, __: Exception) -> JSONResponse:
    """Of a client that is not there any more (nginx calls it 499)."""
    return ApiError(499, "the client has left").response()


async def broken(_: Request, __: Exception) -> JSONResponse:
    """Of a fault of ours: the log has it."""
    return ApiError(500, "the server failed; its log says more").response()


def _place(fault: Mapping[str, Any]) -> str:
    parts = () if fault["type"] == "json_invalid" else fault["loc"][1:]
    # of a union pydantic also names the kind that it tried
    return ".".join(str(part) for part in parts if isinstance(part, int) or (part.isidentifier() and part != "str"))


def _told(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return f"broken JSON at character {fault['loc'][-1]}"
    return "is not known, or not supported here" if fault["type"] == "extra_forbidden" else fault["msg"]


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:300]
