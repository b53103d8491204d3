"""What a training, a test or a prediction does beside its method: Lightning's callbacks."""
