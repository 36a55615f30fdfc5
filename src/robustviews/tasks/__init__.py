"""Tasks: what is asked about an image, which head answers, and how answers are scored."""
