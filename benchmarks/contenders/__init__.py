"""What each contender runs: `make(work)` gives a call, whose result is there when it returns."""
