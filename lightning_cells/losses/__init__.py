"""Network outputs and targets -> a scalar to minimise; knows only torch."""
