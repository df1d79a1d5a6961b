"""Inference servers that no mapping reads, by a metric that each of their pages has: the checklist names them."""

from __future__ import annotations

from collections.abc import Mapping

#: Sources: https://docs.pytorch.org/serve/metrics.html,
#: https://docs.bentoml.com/en/latest/build-with-bentoml/observability/metrics.html,
#: https://docs.openvino.ai/2024/openvino-workflow/model-server/ovms_docs_metrics.html,
#: https://github.com/aphrodite-engine/aphrodite-engine (aphrodite/engine/metrics.py)
UNMAPPED_SERVERS: Mapping[str, str] = {
    "ts_inference_requests_total": "TorchServe",
    "bentoml_service_request_total": "BentoML",
    "ovms_requests_success": "OpenVINO Model Server",
    "aphrodite:num_requests_running": "Aphrodite",
}
