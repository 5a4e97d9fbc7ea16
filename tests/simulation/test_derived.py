"""What was derived from a desired state is shared by all observations of it, so nobody may change it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from whatsapp_operator.core.desired import Desired

from .trials import Trial, certificates, unheard_answers
from .world import simulate


@pytest.mark.parametrize("trial", [unheard_answers, certificates])
def test_what_is_kept_is_never_changed(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    derive, again = Desired.derive, 0

    def compared(self: Desired, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal again
        again += function in self.derived
        found = derive(self, function, *args, **kwargs)
        assert found == function(self, *args, **kwargs)
        return found

    monkeypatch.setattr(Desired, "derive", compared)
    simulate(trial)
    assert again > 100, "hardly anything was kept"
