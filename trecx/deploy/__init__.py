"""From a trained network to a microcontroller: ONNX stages, int8, C, and instructions counted in emulation."""
