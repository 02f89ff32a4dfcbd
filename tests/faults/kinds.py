"""Every kind of fault that the driver knows."""

from tests.faults import kinds_client
from tests.faults.lane import Kind

KINDS = {
    kind.name: kind
    for kind in (
        Kind("client_cut", kinds_client.client_cut, batch=12),
    )
}
