"""What every capability may use: the database, the folder of data, telemetry, the server's life, and the network."""

from dataclasses import dataclass
from pathlib import Path

from backend.kit.network.network import DIRECT, Network
from backend.services.lifecycle import Draining, Readiness
from backend.services.telemetry.telemetry import Telemetry
from backend.storage.engine.database import Database


@dataclass(frozen=True, slots=True)
class Core:
    """The handful of things that each capability is opened with.

    `shows_advice`: whether callers see which settings to change. True while no keys are set, because then they run the
    server themselves.
    """

    database: Database
    data_dir: Path
    telemetry: Telemetry
    draining: Draining
    readiness: Readiness
    network: Network = DIRECT
    shows_advice: bool = True
