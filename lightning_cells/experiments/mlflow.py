"""The earlier place of `RunLogger`, which the configurations of earlier runs name."""

from lightning_cells.loggers.mlflow import RunLogger as RunLogger
