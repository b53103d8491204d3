"""Network outputs -> labelled cells -> tracks."""
