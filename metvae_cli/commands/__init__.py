"""The commands: each `main(argv)` returns an exit status."""
