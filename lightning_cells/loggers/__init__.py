"""Where runs are kept: MLflow's store, its registry, and what waits for them on this machine."""
