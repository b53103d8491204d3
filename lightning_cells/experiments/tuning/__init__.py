"""Optuna studies over the options of the command line: trainings, or clusterings of what a checkpoint embeds."""
