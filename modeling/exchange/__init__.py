"""Models that leave and models that come: ONNX, plain folders, and weights made elsewhere."""
