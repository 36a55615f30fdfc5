"""Independent float64 references: from the equations, and numbers of the published code."""
