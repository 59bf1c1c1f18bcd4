"""One command that says whether all of it runs on this accelerator, rightly, and how fast."""
