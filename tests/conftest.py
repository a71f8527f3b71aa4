"""What holds for all tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side; and numbers that are compared bit for bit are made with one thread."""
    torch.set_num_threads(1)
