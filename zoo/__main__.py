"""`python -m zoo`: the command `zoo`, from a clone too where nothing is installed."""

if __name__ == "__main__":
    from training.__main__ import main  # only here: nothing else of `zoo` knows of `training`

    main()
