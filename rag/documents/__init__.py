"""Loading of files and chunking into passages with exact offsets."""
