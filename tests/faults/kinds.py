"""Every kind of fault that the driver knows."""

from tests.faults import kill9, kinds_client, kinds_provider, kinds_server, kinds_session
from tests.faults.lane import Kind

KINDS = {
    kind.name: kind
    for kind in (
        Kind("client_cut", kinds_client.client_cut, batch=12),
        Kind("second_watcher", kinds_client.second_watcher, batch=14),
        Kind("deserted", kinds_client.deserted, batch=8),
        Kind(
            "frozen_reader", kinds_client.frozen_reader, batch=10, settings={"send_timeout": kinds_client.SEND_TIMEOUT}
        ),
        Kind("repeated_post", kinds_session.repeated_post, batch=5),
        Kind("busy", kinds_session.busy, batch=5),
        Kind("cancel", kinds_session.cancel, batch=9),
        Kind("provider_cut", kinds_provider.provider_cut, batch=kinds_provider.CUTS, every=kinds_provider.BYTES),
        Kind(
            "provider_stall",
            kinds_provider.provider_stall,
            batch=12,
            settings={"first_token_timeout": kinds_provider.SILENCE, "idle_timeout": kinds_provider.SILENCE},
        ),
        Kind("provider_error", kinds_provider.provider_error, batch=15),
        Kind("storage_fault", kinds_server.storage_fault, batch=5),
        Kind("sigterm", kinds_server.sigterm, batch=1),
        Kind("kill9", kill9.kill9, batch=1, settings={"checkpoint_seconds": kill9.CHECKPOINT_SECONDS}),
    )
}
