"""Training: the loop, its settings, its optimizer and its checkpoints."""
