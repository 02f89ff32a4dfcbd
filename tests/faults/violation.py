"""What the driver reports: a promise that was not kept."""


class Violation(Exception):
    """`kind` is one word for what is wrong (see docs/faults.md), `detail` what was seen."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
