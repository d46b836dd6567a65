"""Bodies of POST /v1/predict: JSON with base64, or a multipart form, as a `PictureRequest`."""

from __future__ import annotations

import base64
import binascii
import logging
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from reslearn.deploy.server_limits import RequestError

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
IMAGE_FIELD = "image"
# The parser logs each malformed form on the standard error, and the client gets the reason anyway.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())
_MAX_PARTS = 64
_MAX_HEADER_BYTES = 2**12
_MAX_JSON_VALUES = 1000
_LONGEST_KEY = 200


class RequestOptions(BaseModel):
    """What a request may say beside its pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(
        None, max_length=100, description="Name of the model. Default: the first one."
    )
    top: int = Field(5, ge=1, le=1_000_000, description="Number of classes for each picture.")
    heat_map: bool = Field(
        False, description="Add a PNG for each picture: the regions that support the class."
    )


class JsonRequest(RequestOptions):
    """The body of a request in JSON."""

    images: list[Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]] = Field(
        min_length=1, description="Files of pictures, in base64."
    )


class FormRequest(RequestOptions):
    """The fields of a multipart form."""

    image: list[Annotated[str, Field(json_schema_extra={"format": "binary"})]] = Field(
        min_length=1, description="Files of pictures: the field may be repeated."
    )


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """The bytes of one picture.

    Attributes:
        name: File name that the client gave, or a number such as "image 1".
    """

    name: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class PictureRequest:
    """A request that was parsed, before its pictures are decoded."""

    files: tuple[PictureFile, ...]
    options: RequestOptions


def parse_body(body: bytes, content_type: str, *, max_pictures: int) -> PictureRequest:
    """Parse the body of a request.

    Args:
        body: The whole body.
        content_type: The header of the request.
        max_pictures: More pictures are refused.

    Raises:
        RequestError: 400 for a malformed body, 413 for too many pictures, 415 for another content
            type, 422 for a wrong value.
    """
    kind, parameters = parse_options_header(content_type)
    if kind == JSON_TYPE.encode():
        request = _parse_json(body)
    elif kind == FORM_TYPE.encode():
        request = _parse_form(body, parameters.get(b"boundary", b""))
    else:
        raise RequestError(
            415, f"the content type is {content_type!r}: allowed are {JSON_TYPE} and {FORM_TYPE}"
        )
    if not request.files:
        raise RequestError(422, f"the request has no picture: send it in the field {IMAGE_FIELD}")
    if len(request.files) > max_pictures:
        raise RequestError(
            413, f"the request has {len(request.files)} pictures: {max_pictures} are allowed"
        )
    return request


def _parse_json(body: bytes) -> PictureRequest:
    # Base64 has none of these letters. Millions of small values would take gigabytes.
    if sum(body.count(letter) for letter in (b",", b"[", b"{")) > _MAX_JSON_VALUES:
        raise RequestError(422, f"the JSON has more than {_MAX_JSON_VALUES} values")
    try:
        request = JsonRequest.model_validate_json(body)
    except ValidationError as error:
        raise _validation_error(error, JsonRequest) from None
    files = [
        PictureFile(name=f"image {number}", content=_decoded(text, number))
        for number, text in enumerate(request.images, 1)
    ]
    return PictureRequest(files=tuple(files), options=request)


def _decoded(text: str, number: int) -> bytes:
    """Decode base64, with or without the beginning of a data address."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(422, f"image {number} is not base64: {error}") from None


def _validation_error(error: ValidationError, body: type[RequestOptions]) -> RequestError:
    """Return the answer to a body with a wrong field. `body` has all fields that are allowed."""
    detail = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part)[:_LONGEST_KEY] for part in detail["loc"])
    is_malformed = detail["type"] == "json_invalid"
    message = detail["msg"]
    if detail["type"] in ("missing", "extra_forbidden"):
        reason = "is missing" if detail["type"] == "missing" else "is not allowed"
        message = f"the field {reason}; the fields are {', '.join(sorted(body.model_fields))}"
    return RequestError(400 if is_malformed else 422, f"{key}: {message}" if key else message)


def _parse_form(body: bytes, boundary: bytes) -> PictureRequest:
    if not 1 <= len(boundary) <= 200:
        raise RequestError(400, "the multipart form has no boundary, or a very long one")
    collector = _PartCollector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise RequestError(400, f"the multipart form is malformed: {error}") from None
    if not collector.is_complete:
        raise RequestError(400, "the multipart form ends too early")
    files: list[PictureFile] = []
    values: dict[str, str] = {}
    for part in collector.parts:
        if part.field_name == IMAGE_FIELD:
            name = part.file_name or f"image {len(files) + 1}"
            files.append(PictureFile(name=name, content=bytes(part.content)))
        elif part.field_name in values:
            raise RequestError(422, f"{part.field_name}: the field is given more than once")
        else:
            values[part.field_name] = part.content.decode("utf-8", "replace")
    try:
        options = RequestOptions.model_validate_strings(values)
    except ValidationError as error:
        raise _validation_error(error, FormRequest) from None
    return PictureRequest(files=tuple(files), options=options)


@dataclass
class _Part:
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    header_bytes: int = 0
    field_name: str = ""
    file_name: str = ""
    content: bytearray = field(default_factory=bytearray)


class _PartCollector:
    """Collect the parts of a form from the callbacks of the parser."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.is_complete = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == _MAX_PARTS:
            raise ValueError(f"it has more than {_MAX_PARTS} parts")
        self.parts.append(_Part())

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self.parts[-1].header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self.parts[-1].header_value += data[start:end]

    def _count_header(self, num_bytes: int) -> None:
        self.parts[-1].header_bytes += num_bytes
        if self.parts[-1].header_bytes > _MAX_HEADER_BYTES:
            raise ValueError("the headers of a part are too long")

    def _header_end(self) -> None:
        part = self.parts[-1]
        if bytes(part.header_name).lower() == b"content-disposition":
            _, options = parse_options_header(bytes(part.header_value))
            part.field_name = options.get(b"name", b"").decode("utf-8", "replace")
            part.file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        part.header_name.clear()
        part.header_value.clear()

    def _end(self) -> None:
        self.is_complete = True
