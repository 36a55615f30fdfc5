"""What Snakemake and DVC ask and keep: locks, metadata, resources, the checkout, the image."""
