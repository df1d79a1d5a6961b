"""The guides' TensorFlow model, in the real TensorFlow: make test-tensorflow."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import pytest
from gpu_advisor.compatibility import TrainingGPUConfig, get_tensorflow_gpu_integration

from tests.servers import free_port

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-tensorflow")


@pytest.mark.parametrize("hidden", [(), (16,), (128, 64, 32)])
def test_the_model_has_the_layers_of_its_configuration_and_trains(
    hidden: Sequence[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import numpy as np

    monkeypatch.setenv("GPU_ADVISOR_URL", f"http://127.0.0.1:{free_port()}")
    integration = get_tensorflow_gpu_integration()
    with caplog.at_level(logging.WARNING, "gpu_resource_manager"):
        assert integration.setup_tensorflow_gpu(TrainingGPUConfig(gpu_count=1))["gpu_available"] is False
    assert "using the CPU" in caplog.text
    configuration = {"type": "mlp", "input_dim": 10, "output_dim": 3, "hidden_units": list(hidden)}
    model = integration.create_tensorflow_model_with_gpu(configuration, TrainingGPUConfig(gpu_count=1))
    widths = [10, *hidden, 3]
    expected = [shape for before, after in itertools.pairwise(widths) for shape in ((before, after), (after,))]
    assert [tuple(each.shape) for each in model.trainable_weights] == expected
    model.compile(optimizer="sgd", loss="mse")
    history = model.fit(np.zeros((8, 10)), np.ones((8, 3)), epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    integration.cleanup()
