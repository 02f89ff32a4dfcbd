"""Images of messages."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from backend.routers.edge.problems import ProblemExample, responses
from backend.routers.edge.routes import OwnRoute
from backend.routers.edge.services import Owner, ServicesDep

router = APIRouter(prefix="/images", tags=["sessions"], route_class=OwnRoute)
_NO_IMAGE = ProblemExample(404, "not_found", "No such image.")
ImageId = Annotated[str, Path(description="An image's id: `image_id` in a part of a message.")]

_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
_BYTES = {"type": "string", "format": "binary"}


@router.get(
    "/{image_id}",
    response_class=Response,
    responses={
        200: {"description": "The image.", "content": {name: {"schema": _BYTES} for name in _TYPES}},
        304: {"description": "You have this image already: `If-None-Match` names it."},
        **responses(401, _NO_IMAGE),
    },
    summary="Image of a message",
)
async def get_image(image_id: ImageId, request: Request, services: ServicesDep, owner: Owner) -> Response:
    """Returns the image as it was sent with the message. An image never changes; it is deleted with its session."""
    row = await services.conversations.images.get(owner, image_id)
    tag = f'"{row.id}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Vary": "Authorization",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(row.data, media_type=row.media_type, headers=headers)
