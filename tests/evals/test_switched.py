"""The switches of the ablation: one that names nothing would measure nothing."""

import pytest

from evals.switched import SWITCHES, owner_of


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_names_what_is_there(name: str) -> None:
    for path in SWITCHES[name].instead:
        owner, attribute = owner_of(path)
        assert hasattr(owner, attribute), path
