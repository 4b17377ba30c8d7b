"""From recorded predictions to benefit curves, operating points, calibration and statistics."""
