"""The commands of the command line, a file each, imported when they are called."""
