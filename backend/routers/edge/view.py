"""The base class of response bodies."""

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """The body of a response. Pydantic builds its serializer when the first one is sent, not at the server's start."""

    model_config = ConfigDict(defer_build=True)
