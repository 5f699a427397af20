"""What the processor at hand can do, for tests that want it."""

from __future__ import annotations

import pytest
import torch

BFLOAT16_HERE = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="neither training nor inference is bfloat16 on this CPU",
)
