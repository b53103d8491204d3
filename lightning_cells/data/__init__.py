"""Files on disk -> clips for training and chunks of video for evaluation."""
