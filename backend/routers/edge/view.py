"""The base of what the API answers with."""

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """A body that the API sends. Pydantic builds its serializer for the first one sent, not while the server starts."""

    model_config = ConfigDict(defer_build=True)
