"""Many runs: experiment tracking, pictures, sweeps and tables."""
