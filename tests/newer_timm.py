"""A mark for tests whose encoders the oldest allowed timm does not have."""

import pytest
import timm

needs_newer_timm = pytest.mark.skipif("test_maxvit" not in timm.list_models(), reason="needs a newer timm than 1.0.26")
