"""What a trained network looks for, drawn: weights, filters, feature maps, Grad-CAM, ideal images, robustness.

The functions that compute return arrays and know no colours; `drawing` and `plates` make pictures of them.
"""
