"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # how long an example takes says nothing on a busy one
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side; and numbers that are compared bit for bit are made with one thread."""
    torch.set_num_threads(1)
