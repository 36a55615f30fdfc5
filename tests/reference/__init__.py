"""Independent float64 truth: references from the equations, numbers of the published code."""
