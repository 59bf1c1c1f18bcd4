"""Speed, memory and scaling, always A against B in one run; `RESULTS.md` has what they gave."""
