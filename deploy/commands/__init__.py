"""The commands of the `headrace` command line, a file each."""
