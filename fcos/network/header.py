"""What a model file says about itself is data from strangers: parsed here, once, before anything uses it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..config import Config, from_dict
from ..errors import ConfigError, DataError, ModelError, one_line, worded
from ..system.readers import parse_json
from ..types import Classes
from ..version import __version__

Name = Annotated[str, Field(max_length=1000)]
Id = Annotated[int, Field(ge=-(2**53), le=2**53)]
Side = Annotated[int, Field(ge=1, le=65536)]


class StoredPart(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class StoredClasses(StoredPart):
    """Names and ids, as many of the one as of the other."""

    names: Annotated[list[Name], Field(min_length=1, max_length=100_000)]
    ids: Annotated[list[Id], Field(max_length=100_000)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ids and len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.ids)} class ids")
        return self

    def classes(self) -> Classes:
        return Classes(tuple(self.names), tuple(self.ids))


def check_storable(classes: Classes, root: object) -> None:
    """DataError, which names the data set `root`, for classes that a model's file cannot hold."""
    try:
        StoredClasses(names=list(classes.names), ids=list(classes.ids))
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][-1] if first["loc"] else ""
        which = f"the class {one_line(classes.names[place], 60)!r}" if isinstance(place, int) else "its classes"
        reason = worded(first["msg"]).lower()
        raise DataError(f"{root}: {which} cannot be kept in a model's file: {reason}") from None


class StoredAbout(StoredPart):
    """Facts of a person or of training. Those that are counted with are numbers; the rest may be anything."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow", allow_inf_nan=False)

    parameters: Annotated[int, Field(ge=0)] | None = None
    AP: float | None = None
    AP50: float | None = None
    AP75: float | None = None
    licence: Name | None = None
    judged_on: Name | None = None


class StoredGraph(StoredPart):
    """What an exported graph takes: a batch and a (height, width), or None where it takes any."""

    batch: Side | None
    size: Annotated[list[Side], Field(min_length=2, max_length=2)] | None
    nms: bool
    dtype: Literal["fp32", "bf16", "fp16", "int8"]
    ap50: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)] | None = None


class StoredWeights(StoredPart):
    """The "fcos" entry of a .safetensors file; its values are JSON texts."""

    config: str
    classes: str
    about: str = "{}"


class StoredExport(StoredPart):
    """The metadata of an exported file."""

    config: dict[str, Any]
    classes: StoredClasses
    graph: StoredGraph
    version: Annotated[str, Field(max_length=100)] = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


T = TypeVar("T", bound=BaseModel)


def parse(text: str | bytes, kind: type[T], path: object) -> T:
    """JSON text of the file `path` as a `kind`; ModelError that names the file and the entry."""
    value = parse_json(text, f"{path}: its fcos metadata", ModelError)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        reason = worded(first["msg"]).lower()
        raise ModelError(f"{path}: its fcos metadata cannot be read: {where}: {reason}") from None


def parse_mapping(text: str, path: object) -> dict[str, Any]:
    """JSON text of the file `path` that must be a mapping."""
    value = parse_json(text, f"{path}: its fcos metadata", ModelError)
    if not isinstance(value, dict):
        raise ModelError(
            f"{path}: its fcos metadata cannot be read: a mapping was expected, not {type(value).__name__}"
        )
    return value


def stored_config(values: dict[str, Any], path: object, version: str) -> Config:
    """The settings in the file `path`. ConfigError for what are none; it says so where a later `version` wrote them."""
    try:
        return from_dict(values, str(path))
    except ConfigError as error:
        if _numbers(version) <= _numbers(__version__):
            raise
        raise ConfigError(
            f"{error}; fcos {version} wrote this file, and this is fcos {__version__}: update it"
        ) from None


def _numbers(version: str) -> list[int]:
    """The numbers of a version to compare it by: 1, 10 and 0 of "1.10.0"; none of another text."""
    return [int(part) for part in version.split(".")] if re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,3}", version) else []
